//go:build linux

package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"qianma/cluster/leaktest"
	"qianma/cluster/topology/topologytest"
)

func open(t *testing.T, cfg Config) *Loop {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func group(t *testing.T, l *Loop, urls ...string) *Group {
	t.Helper()
	g, err := l.Group(urls)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// finish polls until n calls have ended.
func finish(t *testing.T, l *Loop, n int) []*Call {
	t.Helper()
	var out []*Call
	for until := time.Now().Add(time.Minute); len(out) < n; {
		if time.Now().After(until) {
			t.Fatalf("%d of %d calls ended", len(out), n)
		}
		if err := l.Poll(10*time.Millisecond, func(c *Call) {
			c.Answer = append([]byte(nil), c.Answer...)
			out = append(out, c)
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestEveryCallGetsItsOwnAnswer(t *testing.T) {
	defer leaktest.None(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body)%3 == 0 {
			w.(http.Flusher).Flush() // makes the answer chunked
		}
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL, r.Header.Get("Idempotency-Key"), body)
	}))
	defer srv.Close()
	l := open(t, Config{PerNode: 5})
	defer l.Close()
	g := group(t, l, srv.URL)
	want := map[*Call]string{}
	for i := range 500 {
		c := &Call{Post: i%2 == 0, Path: fmt.Appendf(nil, "/p/%d", i)}
		text := fmt.Sprintf("GET /p/%d  ", i)
		if c.Post {
			c.Type, c.Key, c.Body = "text/plain", fmt.Appendf(nil, "k%d", i), []byte(strings.Repeat("x", i*31))
			text = fmt.Sprintf("POST /p/%d k%d %s", i, i, c.Body)
		}
		want[c] = text
		l.Start(g, c)
	}
	for _, c := range finish(t, l, 500) {
		if c.Err != nil || c.Status != 200 || string(c.Answer) != want[c] {
			t.Fatalf("%s: status %d, err %v, answer %.60q", c.Path, c.Status, c.Err, c.Answer)
		}
		if !c.Sent || c.EndedAt < c.SentAt {
			t.Fatalf("%s: sent %v at %v, ended at %v", c.Path, c.Sent, c.SentAt, c.EndedAt)
		}
		delete(want, c)
	}
	if len(want) != 0 || l.InFlight() != 0 || g.Waiting() != 0 {
		t.Errorf("%d never ended, %d in flight, %d waiting", len(want), l.InFlight(), g.Waiting())
	}
	if n := g.nodes[0].open; n > 5 {
		t.Errorf("%d connections, the bound is 5", n)
	}
}

func TestABigBodyAndABigAnswerPassInPieces(t *testing.T) {
	big := strings.Repeat("y", 6<<20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d%s", n, big)
	}))
	defer srv.Close()
	l := open(t, Config{})
	g := group(t, l, srv.URL)
	l.Start(g, &Call{Post: true, Path: []byte("/"), Type: "text/plain", Body: make([]byte, 4<<20)})
	c := finish(t, l, 1)[0]
	if c.Err != nil || string(c.Answer[:7]) != "4194304" || len(c.Answer) != 7+len(big) {
		t.Errorf("status %d, err %v, %d bytes", c.Status, c.Err, len(c.Answer))
	}
}

// Goal: a call that never left the machine says so, and one that may have
// arrived says so too.
func TestSentTellsUnknownFromNotDone(t *testing.T) {
	defer leaktest.None(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // the kernel accepts; nobody answers
	rude := listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 10)) })
	defer rude.Close()
	garbled := listen(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 10)); _, _ = io.WriteString(c, "what?\r\n\r\n") })
	defer garbled.Close()
	dead := topologytest.Addrs(t, 1)[0]

	hasty, patient := open(t, Config{Timeout: time.Second}), open(t, Config{Timeout: time.Minute})
	defer hasty.Close()
	defer patient.Close()
	for _, c := range []struct {
		l    *Loop
		addr string
		err  error
		sent bool
	}{
		{hasty, silent.Addr().String(), ErrTimeout, true},
		{patient, rude.Addr().String(), ErrLost, true},
		{patient, garbled.Addr().String(), ErrBadAnswer, true},
		{patient, dead, ErrConnect, false},
	} {
		l := c.l
		l.Start(group(t, l, "http://"+c.addr), &Call{Path: []byte("/")})
		got := finish(t, l, 1)[0]
		if !errors.Is(got.Err, c.err) || got.Sent != c.sent {
			t.Errorf("want %v sent=%v, got %v sent=%v", c.err, c.sent, got.Err, got.Sent)
		}
	}
}

// listen answers every connection with fn and then closes it.
func listen(t *testing.T, fn func(net.Conn)) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fn(c)
			c.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln
}

func TestQueueIsBoundedAndExpires(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	l := open(t, Config{PerNode: 1, Queue: 2, Timeout: time.Second})
	g := group(t, l, "http://"+silent.Addr().String())
	for range 4 {
		l.Start(g, &Call{Path: []byte("/")})
	}
	count := map[error]int{}
	for _, c := range finish(t, l, 4) {
		for _, e := range []error{ErrQueueFull, ErrExpired, ErrTimeout} {
			if errors.Is(c.Err, e) {
				count[e]++
				if c.Sent != (e == ErrTimeout) {
					t.Errorf("%v: sent %v", e, c.Sent)
				}
			}
		}
	}
	// One in flight and two waiting are the bounds. Whether the waiting ones
	// expire or take over the freed connection depends on the sweep.
	if count[ErrQueueFull] != 1 || count[ErrExpired]+count[ErrTimeout] != 3 {
		t.Errorf("ended as %v", count)
	}
}

// Goal: who waits goes in turn while nobody has waited for long, and beyond that
// whoever came last, so that a crowd is not served one by one as it gives up.
func TestTheNewestGoesFirstOnceTheFirstHasWaitedForLong(t *testing.T) {
	const timeout = 5 * time.Second
	var g Group
	var calls [4]Call
	for i := range calls {
		calls[i].deadline = time.Duration(i)*time.Second + timeout // came in the i-th second
		g.wait.push(&calls[i])
	}
	for _, x := range []struct {
		at   time.Duration
		want int
	}{{3 * time.Second, 0}, {5 * time.Second, 3}, {4900 * time.Millisecond, 1}, {6 * time.Second, 2}} {
		if got := g.next(x.at, timeout); got != &calls[x.want] {
			t.Errorf("at %v: the call of second %v, wanted that of %d", x.at, got.deadline-timeout, x.want)
		}
	}
	if g.wait.n != 0 || g.wait.head != nil || g.wait.tail != nil {
		t.Errorf("%d are left", g.wait.n)
	}
}

func TestADeadNodeIsAvoidedAndTakenBack(t *testing.T) {
	var hits atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	defer srv.Close()
	addr := topologytest.Addrs(t, 1)[0]
	l := open(t, Config{Down: time.Millisecond})
	g := group(t, l, "http://"+addr, srv.URL)
	failed := 0
	for range 20 {
		c := &Call{Path: []byte("/")}
		for l.Start(g, c); ; l.Start(g, c) { // a retry goes to the other node
			if finish(t, l, 1)[0].Err == nil {
				break
			}
			failed++
		}
	}
	if hits.Load() != 20 || failed > 20 {
		t.Errorf("%d answered, %d failed; each call must succeed at its second try", hits.Load(), failed)
	}
	back, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var returned atomic.Int64
	second := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { returned.Add(1) })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = second.Serve(back) })
	defer wg.Wait()
	defer second.Close()
	for until := time.Now().Add(time.Minute); returned.Load() == 0; {
		if time.Now().After(until) {
			t.Fatal("the node came back and was never tried again")
		}
		l.Start(g, &Call{Path: []byte("/")})
		finish(t, l, 1)
	}
}

func TestAnIdleConnectionThatTheServerClosedIsNotUsed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	l := open(t, Config{})
	g := group(t, l, srv.URL)
	for range 3 {
		l.Start(g, &Call{Path: []byte("/")})
		if c := finish(t, l, 1)[0]; c.Err != nil {
			t.Fatal(c.Err)
		}
		srv.CloseClientConnections()
		for until := time.Now().Add(time.Minute); g.nodes[0].open > 0; {
			if time.Now().After(until) {
				t.Fatal("the closed connection was kept")
			}
			if err := l.Poll(time.Millisecond, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCloseReportsEveryCallOnce(t *testing.T) {
	defer leaktest.None(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	l := open(t, Config{PerNode: 2})
	g := group(t, l, "http://"+silent.Addr().String())
	for range 5 {
		l.Start(g, &Call{Path: []byte("/")})
	}
	ended := map[*Call]int{}
	if err := l.Poll(10*time.Millisecond, func(c *Call) { ended[c]++ }); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l.Close()
	for c, n := range ended {
		if n != 1 || !errors.Is(c.Err, ErrClosed) {
			t.Errorf("reported %d times: %v", n, c.Err)
		}
	}
	if len(ended) != 5 {
		t.Errorf("%d of 5 calls were reported", len(ended))
	}
}

func TestAddressesThatCannotBeUsedAreRefused(t *testing.T) {
	l := open(t, Config{})
	for _, bad := range []string{"https://127.0.0.1:1", "127.0.0.1:1", "http://", "http://127.0.0.1:port"} {
		if _, err := l.Group([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := l.Group(nil); err == nil {
		t.Error("a group without nodes was made")
	}
}

// Goal: writes go to the leader that an answer names, reads go round; and a
// leader that is gone, or of another group, keeps nobody waiting.
func TestWritesFollowTheLeader(t *testing.T) {
	var hits [2]atomic.Int64
	var leader atomic.Value
	leader.Store("")
	var srv [2]*httptest.Server
	for i := range srv {
		srv[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			hits[i].Add(1)
			w.Header().Set("X-Leader", leader.Load().(string))
		}))
		defer srv[i].Close()
	}
	l := open(t, Config{})
	g := group(t, l, srv[0].URL, srv[1].URL)
	ask := func(post bool) {
		t.Helper()
		l.Start(g, &Call{Post: post, Path: []byte("/")})
		finish(t, l, 1)
	}
	round := func(name string, post bool, want [2]int64) {
		t.Helper()
		before := [2]int64{hits[0].Load(), hits[1].Load()}
		for range 10 {
			ask(post)
		}
		if got := [2]int64{hits[0].Load() - before[0], hits[1].Load() - before[1]}; got != want {
			t.Errorf("%s: %v calls came, want %v", name, got, want)
		}
	}
	round("nobody is named", true, [2]int64{5, 5})
	leader.Store("http://192.0.2.1:80")
	round("a stranger is named", true, [2]int64{5, 5})
	leader.Store(srv[1].URL)
	ask(true)
	round("writes", true, [2]int64{0, 10})
	round("reads", false, [2]int64{5, 5})
	srv[1].Close()
	leader.Store("")
	for answered := hits[0].Load(); hits[0].Load() == answered; {
		ask(true) // the first finds the leader gone
	}
}

// Goal: a call that has a home goes there while that is up, and then to another.
func TestACallGoesHome(t *testing.T) {
	var hits [2]atomic.Int64
	var srv [2]*httptest.Server
	for i := range srv {
		srv[i] = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits[i].Add(1) }))
		defer srv[i].Close()
	}
	l := open(t, Config{})
	g := group(t, l, srv[0].URL, srv[1].URL)
	ask := func(home uint32) (answered bool) {
		c := &Call{Path: []byte("/"), Home: home}
		l.Start(g, c)
		finish(t, l, 1)
		return c.Err == nil
	}
	for range 10 {
		ask(3)
	}
	if hits[0].Load() != 0 || hits[1].Load() != 10 {
		t.Errorf("%d and %d calls came, want all at the second", hits[0].Load(), hits[1].Load())
	}
	srv[1].Close()
	for !ask(3) { // the first finds its home gone
	}
	if hits[0].Load() == 0 {
		t.Error("no call came to the other when its home was gone")
	}
}

// Goal: a node that hangs (its connections stand, nothing is answered) gets no
// more calls, though it leads. Method: one call is left there, and the node's
// last word is moved back by more than it may be silent.
func TestAHungNodeIsLeftAlone(t *testing.T) {
	release, stuck := make(chan struct{}), make(chan struct{}, 64)
	hung := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stuck <- struct{}{}; <-release }))
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer good.Close()
	defer hung.Close()
	defer close(release)
	l := open(t, Config{})
	g := group(t, l, hung.URL, good.URL)
	n := g.nodes[0]
	g.first = n
	l.Start(g, &Call{Post: true, Path: []byte("/")})
	for there := false; !there; {
		if err := l.Poll(time.Millisecond, func(c *Call) { t.Errorf("the call that hangs ended: %v", c.Err) }); err != nil {
			t.Fatal(err)
		}
		select {
		case <-stuck:
			there = true
		default:
		}
	}
	n.told -= lapse + time.Second
	for range 20 {
		l.Start(g, &Call{Post: true, Path: []byte("/")})
		if c := finish(t, l, 1)[0]; c.Err != nil {
			t.Fatal(c.Err)
		}
	}
	if len(stuck) > 0 {
		t.Errorf("%d more calls went to a node that hangs", len(stuck))
	}
}

// Goal: what is slow does not hang: silence counts from the last word, or from
// the first call after one.
func TestWhoHangs(t *testing.T) {
	busy := &node{open: 1, told: time.Second}
	if !busy.up(time.Second+lapse) || busy.up(time.Second+lapse+1) {
		t.Error("a node with a call hangs after the lapse, and not before")
	}
	if idle := (&node{open: 1, idle: make([]*conn, 1)}); !idle.up(time.Hour) {
		t.Error("a node that nobody asks does not hang")
	}
	if down := (&node{down: 2}); down.up(1) || !down.up(2) {
		t.Error("a node is down until its time")
	}
}
