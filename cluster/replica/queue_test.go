package replica

import (
	"context"
	"testing"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

func entered(t *testing.T, q *queue, wait time.Duration) *call {
	t.Helper()
	c, err := q.enter(machine.Proposal{Key: newKey(), Wait: wait}, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Goal: a wait ends when its proposal says, under a context that does not, and its
// caller is told what is known. Method: one call still in the queue, one under way,
// one that came back from a try that was lost, one whose caller leaves.
func TestAWaitEndsByItself(t *testing.T) {
	left, leave := context.WithCancel(t.Context())
	leave()
	for name, c := range map[string]struct {
		ctx  context.Context
		wait time.Duration
		meet func(q *queue, c *call)
		want problem.Code
	}{
		"in the queue": {t.Context(), time.Millisecond, func(*queue, *call) {}, problem.Unavailable},
		"under way":    {t.Context(), time.Millisecond, func(q *queue, _ *call) { q.take(1<<20, 10) }, problem.Unknown},
		"lost once": {t.Context(), time.Millisecond, func(q *queue, c *call) {
			c.maybe = true
			q.back(q.take(1<<20, 10))
		}, problem.Unknown},
		"its caller leaves": {left, time.Hour, func(*queue, *call) {}, problem.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(4, 1<<20)
			one := entered(t, q, c.wait)
			c.meet(q, one)
			if _, err := q.wait(c.ctx, one); !problem.Is(err, c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if !one.gone.Load() || q.depth() != 0 {
				t.Errorf("gone %v, and %d still wait", one.gone.Load(), q.depth())
			}
		})
	}
}

// Goal: what ends one wait does not end another. Method: waits whose end comes with
// their answer, and behind each one that has an hour, on timers that are used again.
func TestAWaitIsNotEndedForAnother(t *testing.T) {
	q := newQueue(4, 1<<20)
	for range 2000 {
		short := entered(t, q, time.Microsecond)
		go func() { short.answer <- verdict{} }()
		_, _ = q.wait(t.Context(), short) // its answer or its end, whichever is first
		long := entered(t, q, time.Hour)
		long.answer <- verdict{receipt: machine.Receipt{Last: 7}}
		if r, err := q.wait(t.Context(), long); err != nil || r.Last != 7 {
			t.Fatalf("%+v, %v", r, err)
		}
		q.take(1<<20, 10)
	}
}

// Goal: a try that was lost is made again for those who wait, not for those who have
// left. Method: one of each comes back.
func TestNobodyIsServedWhoHasLeft(t *testing.T) {
	r := &Replica{metrics: newMetrics(nil)}
	r.cfg.Tuning.Leaderless = time.Hour
	g := &group{r: r, ctx: t.Context(), queue: newQueue(4, 1<<20)}
	here, left := entered(t, g.queue, 0), entered(t, g.queue, 0)
	left.gone.Store(true)
	g.again(g.queue.take(1<<20, 10), errLost, false)
	if again := g.queue.take(1<<20, 10); len(again) != 1 || again[0] != here {
		t.Errorf("%d calls are tried again, want the one that is waited for", len(again))
	}
	if v := <-left.answer; !problem.Is(v.err, problem.Unknown) {
		t.Errorf("%v, want unknown", v.err)
	}
}
