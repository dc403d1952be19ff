package breaker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"qianma/cluster/problem"
)

// All of these run on a clock that moves only when everybody waits.

var (
	down = problem.New(problem.Unavailable, "m", "f")
	no   = problem.New("tube_full", "m", "f")
)

func call(s *Set, err error) error {
	return s.Do(context.Background(), "b", "lookup", func(context.Context) error { return err })
}

// made reports whether a call gets through.
func made(s *Set, err error) bool {
	did := false
	_ = s.Do(context.Background(), "b", "lookup", func(context.Context) error { did = true; return err })
	return did
}

func state(t *testing.T, s *Set) string {
	t.Helper()
	st := s.States()
	if len(st) != 1 {
		t.Fatalf("%d breakers", len(st))
	}
	return st[0].State
}

func TestOpensAfterFailuresInARowAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 3 {
			if err := call(s, down); !errors.Is(err, error(down)) {
				t.Fatalf("the error became %v", err)
			}
		}
		if state(t, s) != "open" || made(s, nil) {
			t.Fatal("still closed after three failures")
		}
		p := problem.From(call(s, nil))
		if p.Code != problem.Unavailable || p.RetryAfter != time.Second {
			t.Fatalf("%+v", p)
		}
		time.Sleep(time.Second + time.Millisecond)
		if state(t, s) != "half-open" {
			t.Fatal(state(t, s))
		}
		if !made(s, down) || made(s, nil) {
			t.Fatal("one call was to be let through, and its failure to open again")
		}
		time.Sleep(time.Second + time.Millisecond)
		if !made(s, nil) || state(t, s) != "closed" || !made(s, nil) {
			t.Fatal("a call that went well was to close it")
		}
	})
}

// While one call is let through to see, the others are kept away.
func TestHalfOpenLetsOneThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 3 {
			_ = call(s, down)
		}
		time.Sleep(1100 * time.Millisecond)
		free := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = s.Do(context.Background(), "b", "lookup", func(context.Context) error { <-free; return nil })
		})
		synctest.Wait()
		if made(s, nil) {
			t.Error("two calls at a time were let through")
		}
		close(free)
		wg.Wait()
		if !made(s, nil) {
			t.Error("still kept away")
		}
	})
}

func TestHalfOfManyCallsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for i := range 19 { // alternating: never three in a row
			_ = call(s, []error{down, nil}[i%2])
		}
		if state(t, s) != "closed" {
			t.Fatal("opened on too few calls")
		}
		_ = call(s, nil)
		_ = call(s, down)
		if state(t, s) != "open" {
			t.Fatal("still closed with half of the calls failing")
		}
	})
}

// What is long past does not count.
func TestWindowRolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 5 {
			_, _ = call(s, down), call(s, down)
			_ = call(s, nil)
			time.Sleep(11 * time.Second)
		}
		for range 9 {
			_ = call(s, nil)
		}
		if st := s.States()[0]; st.State != "closed" || st.Failures > 2 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestAnswersThatSayNoAreAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 50 {
			if err := call(s, no); !errors.Is(err, error(no)) {
				t.Fatal(err)
			}
		}
		if state(t, s) != "closed" {
			t.Fatal("a rule of the business opened the breaker")
		}
	})
}

func TestFailuresAreWhatSaysNothingOrCannot(t *testing.T) {
	for _, c := range []struct {
		err  error
		want verdict
	}{
		{nil, success}, {no, success}, {problem.New(problem.NotFound, "", ""), success},
		{down, failure}, {problem.New(problem.Unknown, "", ""), failure}, {problem.New(problem.Overloaded, "", ""), failure},
		{problem.New(problem.Internal, "", ""), failure}, {errors.New("odd"), failure}, {context.DeadlineExceeded, failure},
	} {
		if got := verdictOf(judge(context.Background(), c.err)); got != c.want {
			t.Errorf("%v: verdict %d, want %d", c.err, got, c.want)
		}
	}
}

func TestCallersThatGiveUpCountForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for range 50 {
			if err := s.Do(ctx, "b", "lookup", func(ctx context.Context) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		if st := s.States()[0]; st.State != "closed" || st.Calls != 0 {
			t.Fatalf("%+v", st)
		}
		// A deadline that passes is how a slow peer looks.
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			_ = s.Do(ctx, "b", "lookup", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			cancel()
		}
		if state(t, s) != "open" {
			t.Fatal("a slow peer keeps being asked")
		}
		// Nor does giving up keep the one look of a half-open breaker.
		time.Sleep(1100 * time.Millisecond)
		_ = s.Do(ctx, "b", "lookup", func(ctx context.Context) error { return ctx.Err() })
		if !made(s, nil) {
			t.Fatal("a caller that gave up took the only place")
		}
	})
}

func TestOneForEachPeerAndKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 3 {
			_ = call(s, down)
		}
		for _, k := range []key{{"c", "lookup"}, {"b", "marks"}} {
			if err := s.Do(context.Background(), k.peer, k.kind, func(context.Context) error { return nil }); err != nil {
				t.Fatalf("%v: %v", k, err)
			}
		}
		s.Fallback("lookup", "last-known copy")
		got := s.States()
		if len(got) != 3 || got[0].Peer != "b" || got[0].Kind != "lookup" || got[0].State != "open" || got[0].Fallback != "last-known copy" || got[1].Peer != "c" || got[2].Kind != "marks" {
			t.Fatalf("%+v", got)
		}
	})
}

// A breaker that opened and was never tried again says nothing about now.
func TestForgottenBreakersAreNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 3 {
			_ = call(s, down)
		}
		time.Sleep(9 * time.Second)
		if state(t, s) != "half-open" {
			t.Fatal(state(t, s))
		}
		time.Sleep(2 * time.Second)
		if got := s.States(); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
		if !made(s, nil) {
			t.Fatal("a new breaker starts open")
		}
	})
}

func TestPanicsPassAndCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Config{})
		for range 3 {
			func() {
				defer func() { _ = recover() }()
				_ = s.Do(context.Background(), "b", "lookup", func(context.Context) error { panic("x") })
				t.Error("the panic was swallowed")
			}()
		}
		if state(t, s) != "open" {
			t.Error(state(t, s))
		}
	})
}

func TestMetricsAndLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		var log bytes.Buffer
		s := NewSet(Config{Metrics: reg, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s.Fallback("lookup", "last-known copy")
		for range 5 {
			_ = call(s, down)
		}
		s.Fell("lookup")
		w := httptest.NewRecorder()
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for _, want := range []string{
			`qianma_breaker_fallbacks_total{fallback="last-known copy",kind="lookup"} 1`,
			`qianma_breaker_opened_total{kind="lookup",peer="b"} 1`,
			`qianma_breaker_refused_total{kind="lookup",peer="b"} 2`,
			`qianma_breaker_state{kind="lookup",peer="b"} 2`,
		} {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("no %s", want)
			}
		}
		if !strings.Contains(log.String(), "to=open") || s.States()[0].Refused != 2 {
			t.Fatal(log.String())
		}
	})
}

func BenchmarkDo(b *testing.B) {
	s := NewSet(Config{})
	fn := func(context.Context) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Do(context.Background(), "b", "lookup", fn)
	}
}
