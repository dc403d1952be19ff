package replica

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// call is one caller's proposal on its way.
type call struct {
	proposal machine.Proposal
	size     int
	here     bool // came from another replica: must not be forwarded again
	tries    int
	since    time.Time
	maybe    bool         // an earlier try was lost: it may have been done
	gone     atomic.Bool  // nobody waits for the answer any more
	answer   chan verdict // holds one

	// Guarded by the queue.
	next, prev *call
	queued     bool
}

// queue holds calls until they can be sent: a list, so that a caller who gives
// up can leave from the middle. It is bounded in calls and in bytes; at the
// bound a caller is refused at once.
type queue struct {
	maxCalls, maxBytes int

	mu     sync.Mutex
	head   *call
	tail   *call
	calls  int
	bytes  int
	closed bool
	wake   chan struct{} // holds one
}

var (
	errClosing = problem.New(problem.Unavailable, "this node is stopping", "send the request to another node")
	errNobody  = problem.New(problem.Unavailable, "no leader could take the write in time; nothing was written", "send it again").After(millis(500))
	errCrowded = problem.New(problem.Overloaded, "too many writes are waiting", "slow down and send it again").After(millis(200))
)

func newQueue(maxCalls, maxBytes int) *queue {
	return &queue{maxCalls: maxCalls, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// push adds a new call at the end.
func (q *queue) push(c *call) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errClosing
	case q.calls >= q.maxCalls || q.bytes+c.size > q.maxBytes && q.calls > 0:
		return errCrowded
	}
	q.link(c, q.tail, nil)
	q.signal()
	return nil
}

// back puts calls that were taken in front again, whatever the bounds: they
// were counted before.
func (q *queue) back(calls []*call) {
	q.mu.Lock()
	closed := q.closed
	if !closed {
		for i := len(calls) - 1; i >= 0; i-- {
			q.link(calls[i], nil, q.head)
		}
		q.signal()
	}
	q.mu.Unlock()
	if closed {
		answerClosing(calls)
	}
}

func (q *queue) link(c, prev, next *call) {
	c.prev, c.next, c.queued = prev, next, true
	if prev == nil {
		q.head = c
	} else {
		prev.next = c
	}
	if next == nil {
		q.tail = c
	} else {
		next.prev = c
	}
	q.calls++
	q.bytes += c.size
}

func (q *queue) unlink(c *call) {
	if c.prev == nil {
		q.head = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		q.tail = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.prev, c.next, c.queued = nil, nil, false
	q.calls--
	q.bytes -= c.size
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// leave takes a call out, if it is still waiting. False means that it is under
// way, or answered.
func (q *queue) leave(c *call) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !c.queued {
		return false
	}
	q.unlink(c)
	return true
}

// take removes calls from the front: at least one if there is one, then as
// many as fit.
func (q *queue) take(maxBytes, maxCommands int) []*call {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []*call
	bytes, commands := 0, 0
	for c := q.head; c != nil; c = q.head {
		bytes += c.size
		commands += max(1, len(c.proposal.Commands))
		if len(out) > 0 && (bytes > maxBytes || commands > maxCommands) {
			break
		}
		q.unlink(c)
		out = append(out, c)
	}
	if q.head != nil {
		q.signal()
	}
	return out
}

// holds reports whether at least so many bytes wait.
func (q *queue) holds(bytes int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes >= bytes
}

func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.calls
}

// close refuses new calls and answers those that wait: nothing was done.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	var left []*call
	for q.head != nil {
		c := q.head
		q.unlink(c)
		left = append(left, c)
	}
	q.mu.Unlock()
	answerClosing(left)
}

// expire answers calls that have waited since before a time. The oldest stand
// in front, but for calls that came back.
func (q *queue) expire(before time.Time) {
	q.mu.Lock()
	var old []*call
	for c := q.head; c != nil && c.since.Before(before); c = q.head {
		q.unlink(c)
		old = append(old, c)
	}
	q.mu.Unlock()
	for _, c := range old {
		if c.maybe {
			c.answer <- verdict{err: outcomeUnknown(context.DeadlineExceeded)}
		} else {
			c.answer <- verdict{err: errNobody}
		}
	}
}

func answerClosing(calls []*call) {
	for _, c := range calls {
		if c.maybe {
			c.answer <- verdict{err: outcomeUnknown(errClosing)}
		} else {
			c.answer <- verdict{err: errClosing}
		}
	}
}

// enter queues a proposal.
func (q *queue) enter(p machine.Proposal, here bool) (*call, error) {
	c := &call{proposal: p, size: proposalSize(&p), here: here, since: time.Now(), answer: make(chan verdict, 1)}
	return c, q.push(c)
}

// wait returns the call's verdict, or what is known when ctx ends or the time that
// the proposal gives is over.
func (q *queue) wait(ctx context.Context, c *call) (machine.Receipt, error) {
	v, err := c.await(ctx)
	if err == nil {
		return v.receipt, v.err
	}
	c.gone.Store(true)
	switch left := q.leave(c); {
	case left && c.maybe:
		return machine.Receipt{}, outcomeUnknown(err)
	case left && errors.Is(err, context.DeadlineExceeded):
		return machine.Receipt{}, errNobody
	case left:
		return machine.Receipt{}, problem.Wrap(err, problem.Unavailable, "the caller left; nothing was written", "send it again")
	}
	select {
	case v := <-c.answer: // it came in this very moment
		return v.receipt, v.err
	default:
		return machine.Receipt{}, outcomeUnknown(err)
	}
}

// timers are for waits that have an end of their own: making a context for each
// was a fortieth of what a registration costs.
var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// await is the wait alone; an error says why it ended without a verdict.
func (c *call) await(ctx context.Context) (verdict, error) {
	var over <-chan time.Time
	if c.proposal.Wait > 0 {
		t := timers.Get().(*time.Timer)
		t.Reset(c.proposal.Wait)
		defer func() {
			t.Stop() // whatever it was about to send is not received by the next
			timers.Put(t)
		}()
		over = t.C
	}
	select {
	case v := <-c.answer:
		return v, nil
	case <-over:
		return verdict{}, context.DeadlineExceeded
	case <-ctx.Done():
		return verdict{}, ctx.Err()
	}
}

func outcomeUnknown(cause error) error {
	return problem.Wrap(cause, problem.Unknown, "the write may or may not have been committed",
		"send it again with the same idempotency key").After(millis(500))
}
