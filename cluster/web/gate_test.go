package web

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

func TestWaitingEndsWithTheCaller(t *testing.T) {
	g := newGate(Limit{Concurrent: 1, Queue: 1, Wait: time.Hour}, clock.Real)
	ctx, cancel := context.WithCancel(context.Background())
	if !g.enter(ctx) {
		t.Fatal("no place")
	}
	cancel()
	if g.enter(ctx) || g.waiting.Len() != 0 {
		t.Fatal("a caller that left took a place")
	}
	g.leave()
	if !g.enter(context.Background()) {
		t.Fatal("the place is lost")
	}
}

// putBack is what becomes of a clock that was two hours ahead: nobody has waited
// the less for it.
func putBack(c *clock.Manual) { c.Set(c.Now().Add(-2 * time.Hour)) }

// Pressure is looked at again when its time has passed, though the clock was put
// back.
func TestPressureIsLookedAtThoughTheClockWasPutBack(t *testing.T) {
	at := clock.NewManual(time.Unix(1e9, 0))
	p := &pressure{clock: at}
	p.sheds(Normal)
	p.level.Store(2)
	p.before = nil // a look then finds no pressure: everything since the start is no window
	putBack(at)
	at.Advance(pressureEvery)
	if p.sheds(Normal) {
		t.Fatal("turned away for what was long ago")
	}
}

// Those who wait a little are served in turn; once the first has waited for
// long, the newest is.
func TestTheOrderOfThoseWhoWait(t *testing.T) {
	for _, c := range []struct {
		name   string
		waited time.Duration
		want   []int
	}{{"a moment", inTurn, []int{0, 1, 2}}, {"long", inTurn + 1, []int{2, 1, 0}}} {
		t.Run(c.name, func(t *testing.T) {
			at := clock.NewManual(time.Unix(1e9, 0))
			g := newGate(Limit{Concurrent: 1, Queue: 3, Wait: time.Hour}, at)
			g.enter(t.Context())
			served := make(chan int)
			for i := range 3 {
				go func() {
					g.enter(t.Context())
					served <- i
				}()
				until(t, func() bool { _, waiting := g.full(); return waiting == i+1 })
			}
			putBack(at)
			at.Advance(c.waited)
			var got []int
			for range 3 {
				g.leave()
				got = append(got, <-served)
			}
			if !slices.Equal(got, c.want) {
				t.Fatalf("served %v, want %v", got, c.want)
			}
			g.leave()
			if taken, waiting := g.full(); taken != 0 || waiting != 0 {
				t.Fatalf("%d at work and %d waiting when all is done", taken, waiting)
			}
		})
	}
}

// While the vital waits, nothing else takes the processor from it; and what is
// turned away is so at once.
func TestTheVitalGoesFirst(t *testing.T) {
	at := clock.NewManual(time.Unix(1e9, 0))
	s := newServer(t, Config{Clock: at, Limits: map[Class]Limit{Normal: {Concurrent: 1}, Vital: {Concurrent: 1, Queue: 1, Wait: time.Hour}}})
	h := newHeld()
	s.HandleClass(Vital, "GET /v1/code", h.handle)
	s.Handle("GET /v1/tube", func(http.ResponseWriter, *http.Request) error { return nil })
	s.HandleClass(Operations, "GET /v1/status", func(http.ResponseWriter, *http.Request) error { return nil })
	done := make(chan int)
	for range 2 {
		go func() { done <- do(s, "GET", "/v1/code", "").Code }()
	}
	<-h.began
	until(t, func() bool { _, waiting := s.gates[Vital].full(); return waiting == 1 })
	if got := do(s, "GET", "/v1/tube", "").Code; got != 200 {
		t.Fatalf("turned away as soon as something waits: %d", got)
	}
	putBack(at)
	at.Advance(lateAfter + 1)
	wantProblem(t, do(s, "GET", "/v1/tube", ""), 429, problem.Overloaded)
	if got := do(s, "GET", "/v1/status", "").Code; got != 200 {
		t.Fatalf("who looks after it is answered %d", got)
	}
	close(h.free)
	for range 2 {
		if got := <-done; got != 200 {
			t.Fatalf("the vital was answered %d", got)
		}
	}
	if got := do(s, "GET", "/v1/tube", "").Code; got != 200 {
		t.Fatalf("once nothing waits: %d", got)
	}
}

// A crowded process keeps a remnant of its places for what is neither vital nor
// optional: results are few and restrictions fewer, and none at all would be an outage.
func TestACrowdedProcessKeepsARemnantForTheNormal(t *testing.T) {
	s := newServer(t, Config{Limits: map[Class]Limit{Normal: {Concurrent: 2 * remnant}}})
	h := newHeld()
	s.Handle("POST /v1/results", h.handle)
	done := make(chan int)
	post := func() { done <- do(s, "POST", "/v1/results", "").Code }
	s.load.level.Store(2)
	for range 2 {
		go post()
		select {
		case <-h.began:
		case got := <-done:
			t.Fatalf("turned away while there are places left: %d", got)
		}
	}
	wantProblem(t, do(s, "POST", "/v1/results", ""), 429, problem.Overloaded)
	if !s.sheds(Optional) {
		t.Error("the optional has a remnant too")
	}
	s.load.level.Store(1)
	go post()
	<-h.began
	close(h.free)
	for range 3 {
		if got := <-done; got != 200 {
			t.Fatal(got)
		}
	}
}

// A request that only waits for the other carrier keeps nobody out, and gives
// its place back once.
func TestARestingRequestTakesNoPlace(t *testing.T) {
	s := newServer(t, Config{Limits: map[Class]Limit{Vital: {Concurrent: 1}}})
	h := newHeld()
	s.HandleClass(Vital, "POST /v1/registrations", func(w http.ResponseWriter, r *http.Request) error {
		o, err := WriteOptions(r)
		if err != nil || o.Ack != machine.Replicated {
			return err
		}
		o.Rest()
		return h.handle(w, r)
	})
	done := make(chan int)
	go func() { done <- do(s, "POST", "/v1/registrations?ack=replicated", "{}").Code }()
	<-h.began
	if got := do(s, "POST", "/v1/registrations", "{}").Code; got != 200 {
		t.Fatalf("kept out by one that rests: %d", got)
	}
	close(h.free)
	if got := <-done; got != 200 {
		t.Fatal(got)
	}
	if taken, _ := s.gates[Vital].full(); taken != 0 {
		t.Fatalf("%d places are taken when all is done", taken)
	}
	if !strings.Contains(do(s, "GET", "/metrics", "").Body.String(), `qianma_http_in_flight{class="vital"} 0`) {
		t.Fatal("the gauge does not say so")
	}
}
