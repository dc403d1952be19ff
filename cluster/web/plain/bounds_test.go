package plain

import (
	"net/http"
	"testing"
	"time"
)

// office has handlers that say when they begin, and end when they may.
type office struct {
	began chan *http.Request
	ended chan error // what the context said
	free  chan struct{}
}

func newOffice() *office {
	return &office{make(chan *http.Request, 8), make(chan error, 8), make(chan struct{})}
}

// ServeHTTP waits for the end of the request's context, or until it is free.
func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.began <- r
	select {
	case <-r.Context().Done():
	case <-o.free:
	}
	o.ended <- r.Context().Err()
	_, _ = w.Write([]byte("done"))
}

// is waits until a connection is at something.
func (c *conn) is(t *testing.T, state int32) {
	t.Helper()
	until(t, "the connection is there", func() bool { return c.state.Load() == state })
}

// lookAfter has the warden look so long after the connection came to be at what it is at.
func (c *conn) lookAfter(took time.Duration) { c.s.look(time.Unix(0, c.since.Load()).Add(took)) }

const bound = time.Hour

// ages of a connection, and what bounds them.
var ages = []struct {
	name  string
	said  []string
	state int32
	bound func(*http.Server) *time.Duration
}{
	{"idle", []string{get}, idle, func(hs *http.Server) *time.Duration { return &hs.IdleTimeout }},
	{"silent", nil, reading, func(hs *http.Server) *time.Duration { return &hs.ReadHeaderTimeout }},
	{"half a head", []string{get[:30]}, reading, func(hs *http.Server) *time.Duration { return &hs.ReadHeaderTimeout }},
	{"half a head after another", []string{get, get[:30]}, reading, func(hs *http.Server) *time.Duration { return &hs.ReadHeaderTimeout }},
	{"one and half a head", []string{get + get[:30]}, reading, func(hs *http.Server) *time.Duration { return &hs.ReadHeaderTimeout }},
	{"half a body", []string{post[:len(post)-4]}, filling, func(hs *http.Server) *time.Duration { return &hs.ReadTimeout }},
	{"one and half a body", []string{get + post[:len(post)-4]}, filling, func(hs *http.Server) *time.Duration { return &hs.ReadTimeout }},
	{"at work", []string{post}, serving, func(hs *http.Server) *time.Duration { return &hs.WriteTimeout }},
}

// comeTo is a connection that has come to such an age. A GET is answered at once.
func comeTo(t *testing.T, hs *http.Server, age int) (*conn, *caller, *office) {
	t.Helper()
	o := newOffice()
	hs.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			o.ServeHTTP(w, r)
		}
	})
	s := start(t, hs)
	p := call(t, s.lis)
	c := s.only(t)
	for _, said := range ages[age].said {
		before := s.lis.read.Load()
		p.say(said)
		until(t, "it was read", func() bool { return s.lis.read.Load() == before+int64(len(said)) })
		if said[0] == 'G' && len(said) >= len(get) {
			p.hears("\n\n")
		}
	}
	c.is(t, ages[age].state)
	return c, p, o
}

// Goal: what takes too long is cut, and not before. Method: the warden looks at a
// moment that the test chooses; all other bounds are shorter.
func TestWhatTakesTooLongIsCut(t *testing.T) {
	for i, age := range ages {
		t.Run(age.name, func(t *testing.T) {
			hs := &http.Server{}
			*age.bound(hs) = bound
			c, p, o := comeTo(t, hs, i)
			c.lookAfter(bound)
			if is := c.state.Load(); is != age.state {
				t.Fatalf("cut before its time: %d", is)
			}
			c.lookAfter(bound + 1)
			p.cut()
			until(t, "it is forgotten", func() bool { return c.s.size() == 0 })
			if age.state == serving && <-o.ended == nil {
				t.Error("its handler was not told")
			}
		})
	}
}

// Goal: a bound that is not set is none. Method: as above, with the other bounds set.
func TestABoundOfNothingIsNone(t *testing.T) {
	for i, age := range ages {
		t.Run(age.name, func(t *testing.T) {
			hs := &http.Server{IdleTimeout: bound, ReadHeaderTimeout: bound, ReadTimeout: bound, WriteTimeout: bound}
			if *age.bound(hs) = -1; age.state == filling || age.state == serving {
				*age.bound(hs) = 0
			}
			c, _, o := comeTo(t, hs, i)
			c.lookAfter(1000 * bound)
			if is := c.state.Load(); is != age.state {
				t.Errorf("cut: %d", is)
			}
			close(o.free)
		})
	}
}

// Goal: ReadTimeout is the bound of who has set no other, as in net/http.
func TestReadTimeoutStandsForOthers(t *testing.T) {
	for i, age := range ages[:5] {
		t.Run(age.name, func(t *testing.T) {
			c, p, _ := comeTo(t, &http.Server{ReadTimeout: bound}, i)
			c.lookAfter(bound)
			if is := c.state.Load(); is != age.state {
				t.Fatalf("cut before its time: %d", is)
			}
			c.lookAfter(bound + 1)
			p.cut()
		})
	}
}

// Goal: a connection that was idle for longer than a request may take to come is not
// cut in the moment in which one comes. Method: one that is told to be idle for long
// asks again and again while the warden does nothing but look.
func TestWhoWakesHasItsTime(t *testing.T) {
	s := start(t, &http.Server{ReadHeaderTimeout: bound, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	p := call(t, s.lis)
	c := s.only(t)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				s.look(time.Now())
			}
		}
	}()
	for range 3000 {
		p.say(get)
		if _, err := p.hear(http.MethodGet); err != nil {
			t.Errorf("cut: %v", err)
			break
		}
		c.is(t, idle)
		s.mu.Lock() // or a look that has begun would see time go back
		c.since.Store(time.Now().Add(-2 * bound).UnixNano())
		s.mu.Unlock()
	}
	close(stop)
	<-stopped
}

// Goal: who has waited for long for its answer may be idle as long as anybody.
// Method: the request is told to be as old as an idle connection may not be.
func TestAnAnswerBeginsTheIdleTime(t *testing.T) {
	for said, state := range map[string]int32{get: idle, get + get[:20]: reading} {
		o := newOffice()
		s := start(t, &http.Server{Handler: o, IdleTimeout: bound, ReadHeaderTimeout: bound})
		p := call(t, s.lis)
		c := s.only(t)
		p.say(said)
		<-o.began
		s.mu.Lock()
		c.since.Store(time.Now().Add(-2 * bound).UnixNano())
		s.mu.Unlock()
		close(o.free)
		p.hears("done")
		c.is(t, state)
		s.look(time.Now())
		if is := c.state.Load(); is != state {
			t.Errorf("cut: %d", is)
		}
	}
}
