// Package peers puts other systems into the province's place: PostgreSQL with
// two standbys and quorum commit, a NATS JetStream key-value bucket with three
// replicas and fsync before every acknowledgement, a three-member etcd. Each
// does the same job under the same schedule and the same ledger: register a
// sample, take a tube's result, show a person's newest test.
//
// It is meant as a fair fight. Each peer runs as its own documentation says
// for durable commits on a majority, with the settings printed beside the
// result, and has a client that keeps connections open. PostgreSQL's is the
// driver's own thread over prepared statements, in binary, on Unix sockets: with
// a goroutine for each connection the generator used as much processor a test as
// the primary did, was late, and was what was measured. etcd and JetStream have
// their own client libraries. None of the three keeps what a province keeps
// besides (idempotency keys, two carriers, an address and a digest for every
// fact), so what they are spared is in their favour. What a peer cannot do
// (count the swabs in a tube, say) it refuses with the code "unsupported", and
// the report says so.
//
// A peer's places stand for carriers: writes go where the peer takes writes,
// reads go to the place that is asked for.
package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/internal/crash"
	"qianma/loadtest/internal/epoll"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
)

// Peer is a running peer.
type Peer struct {
	Name      string
	Places    []string
	Settings  map[string]any
	Processes cost.Source
	// Open makes workers that each do one operation at a time.
	Open func(ctx context.Context, workers int) ([]Worker, func(), error)
	// Target, where it is set, stands in Open's place: the peer brings a target
	// of its own, that has so many operations in flight.
	Target func(workers int, limit time.Duration) (drive.Target, error)
	Close  func() error
}

// Worker does operations, one at a time, and says how they ended.
type Worker interface {
	Do(ctx context.Context, op *drive.Op) error
}

// ErrUnsupported: the peer has no such thing.
var ErrUnsupported = errors.New("unsupported")

// errNotSent wraps failures before anything was sent.
var errNotSent = errors.New("not sent")

// Target is a peer under load: a pool of workers behind bounded queues.
type Target struct {
	places  int
	work    chan *drive.Op
	ended   chan *drive.Op
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	shut    func()
	limit   time.Duration
	start   time.Time
	open    int // given to workers and not yet handed over by Poll
	done    func(*drive.Op)
	dropped []*drive.Op // by Start
	closed  bool
}

const queue = 1 << 16

// NewTarget connects workers to the peer. limit bounds one operation.
func NewTarget(p *Peer, workers int, limit time.Duration) (drive.Target, error) {
	if p.Target != nil {
		return p.Target(workers, limit)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ws, shut, err := p.Open(ctx, workers)
	if err != nil {
		cancel()
		return nil, err
	}
	t := &Target{places: len(p.Places), work: make(chan *drive.Op, queue), ended: make(chan *drive.Op, queue),
		cancel: cancel, shut: shut, limit: limit}
	for _, w := range ws {
		t.wg.Go(func() {
			defer crash.Guard()
			t.serve(ctx, w)
		})
	}
	return t, nil
}

func (t *Target) serve(ctx context.Context, w Worker) {
	for op := range t.work {
		tried(op, time.Since(t.start))
		one, cancel := context.WithTimeout(ctx, t.limit)
		err := w.Do(one, op)
		cancel()
		ended(op, time.Since(t.start), err)
		t.ended <- op // as many fit as Start lets in
	}
}

func tried(op *drive.Op, at time.Duration) {
	op.Tried = at
	if op.First == 0 {
		op.First = at
	}
}

func ended(op *drive.Op, at time.Duration, err error) {
	op.Ended, op.Sent = at, !errors.Is(err, errNotSent)
	op.Outcome, op.Code = judge(err)
}

// dropped: there was no room to wait.
func dropped(op *drive.Op, at time.Duration) {
	op.Outcome, op.Code, op.Ended = drive.Dropped, "generator_queue_full", at
}

func judge(err error) (drive.Outcome, string) {
	switch {
	case err == nil:
		return drive.OK, ""
	case errors.Is(err, ErrUnsupported):
		return drive.Rejected, "unsupported"
	case errors.Is(err, errNotSent):
		return drive.NotSent, "not_sent"
	case errors.Is(err, context.DeadlineExceeded):
		return drive.Unknown, "timeout"
	}
	return drive.Unknown, "error"
}

// Begin fixes the run's clock.
func (t *Target) Begin(start time.Time) { t.start = start }

// Carriers is how many places there are.
func (t *Target) Carriers() int { return t.places }

// Nodes is one: a peer's client looks after its own nodes.
func (t *Target) Nodes(int, drive.Kind) int { return 1 }

// Start hands the operation to a worker, or drops it when the queue is full.
func (t *Target) Start(op *drive.Op) {
	t.open++
	if t.closed || t.open > queue {
		dropped(op, time.Since(t.start))
		t.dropped = append(t.dropped, op)
		return
	}
	t.work <- op
}

// gather is how close together ends are taken up together. The times of what
// workers did are those at which they ended.
const gather = 500 * time.Microsecond

// Poll hands over what has ended. It naps in the kernel and never waits on a
// channel: a goroutine that is bound to its thread would be woken by some
// other thread, which the peer's work may have kept from the processor.
func (t *Target) Poll(wait time.Duration, done func(*drive.Op)) error {
	t.done = done
	if t.handBack() || len(t.ended) > 0 {
		wait = 0
	}
	if wait > 0 {
		epoll.Nap(min(wait, gather))
	}
	for range queue {
		select {
		case op := <-t.ended:
			t.open--
			done(op)
		default:
			return nil
		}
	}
	return nil
}

// handBack reports what Start could not take.
func (t *Target) handBack() bool {
	any := len(t.dropped) > 0
	for len(t.dropped) > 0 {
		op := t.dropped[len(t.dropped)-1]
		t.dropped = t.dropped[:len(t.dropped)-1]
		t.open--
		if t.done != nil {
			t.done(op)
		}
	}
	return any
}

// Close ends the workers; operations that were open are reported to the
// function last given to Poll.
func (t *Target) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	t.cancel()
	close(t.work)
	stopped := make(chan struct{})
	go func() { t.wg.Wait(); close(stopped) }()
	for {
		select {
		case op := <-t.ended:
			t.open--
			if t.done != nil {
				t.done(op)
			}
			continue
		case <-stopped:
		}
		break
	}
	for t.handBack(); t.open > 0; t.handBack() {
		op := <-t.ended
		t.open--
		if t.done != nil {
			t.done(op)
		}
	}
	t.shut()
	return nil
}

// person is a pseudonym of the right size; which one does not matter here.
func person(i uint32) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], population.Mix(1, uint64(i)))
	binary.BigEndian.PutUint64(id[8:], population.Mix(2, uint64(i)))
	return id
}

// view is what a reader is told, from the pieces that peers keep.
func view(sampledMS int64, pool, outcome uint8) drive.View {
	v := drive.View{Found: true, Sampled: sampledMS, Status: "pending"}
	if outcome != 0 {
		e := ledger.Entry{Pool: pool, Outcome: outcome}
		v.Status = e.Status()
	}
	return v
}

// Start brings up a peer by name in a directory of its own.
func Start(ctx context.Context, name, dir string, extra []string) (*Peer, error) {
	switch name {
	case "postgres":
		return startPostgres(ctx, dir, extra)
	case "jetstream-kv":
		return startJetStream(ctx, dir)
	case "etcd":
		return startEtcd(ctx, dir)
	}
	return nil, fmt.Errorf("no peer %q", name)
}
