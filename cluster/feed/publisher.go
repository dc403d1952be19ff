package feed

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/mishap"
)

// Outbox is what a publisher reads: the committed blocks of the shard this
// node leads. Implementations are safe for concurrent use.
type Outbox interface {
	// Own is the origin this node may publish for; false while it does not
	// lead.
	Own() (fact.Origin, bool)
	// Marks says how far each origin is committed. The map is the caller's.
	Marks() map[fact.Origin]fact.Mark
	// Blocks returns the committed blocks of o behind after, up to about
	// maxBytes and at least one if there is one.
	Blocks(o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error)
	// Changed returns a channel that is closed at the next commit or change
	// of leadership.
	Changed() <-chan struct{}
}

// PublisherConfig is what a publisher is made of. Outbox and Broker are needed.
type PublisherConfig struct {
	Outbox Outbox
	Broker Broker
	Clock  clock.Clock  // nil: the machine's
	Logger *slog.Logger // nil: silent
	// Metrics takes the publisher's collector; nil: none.
	Metrics prometheus.Registerer
	Name    string // label of the metrics: "nucleic/0"

	BatchBytes   int           // most bytes handed to the broker at once, which bounds what is in flight; 0: 4 MiB
	BacklogFacts uint64        // a broker further behind than this is not filled up: followers pull; 0: 200,000
	Gather       time.Duration // least time between two publications, so that small blocks travel together; 0: none
	CallTimeout  time.Duration // longest wait for the broker; 0: 5 s
	RetryMin     time.Duration // first wait after a failure; 0: 100 ms
	RetryMax     time.Duration // longest wait after a failure; 0: 2 s
}

func (c *PublisherConfig) fill() error {
	if c.Outbox == nil || c.Broker == nil {
		return errors.New("feed: a publisher needs an outbox and a broker")
	}
	def(&c.Clock, clock.Real)
	def(&c.Logger, slog.New(slog.DiscardHandler))
	def(&c.BatchBytes, 4<<20)
	def(&c.BacklogFacts, 200_000)
	def(&c.CallTimeout, 5*time.Second)
	def(&c.RetryMin, 100*time.Millisecond)
	def(&c.RetryMax, 2*time.Second)
	return nil
}

// def gives a field its default.
func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Publisher carries the committed blocks of a led shard to the broker, in
// order, in batches. It only reads, so no commit ever waits for it. A broker
// that is gone costs it retries; a broker that has lost its store is carried
// on with where the log stands, because followers pull what a broker lost.
type Publisher struct {
	cfg    PublisherConfig
	cancel context.CancelFunc
	done   chan struct{}
	unhook func()

	mu     sync.Mutex
	status PublisherStatus
}

// PublisherStatus is how a publisher is doing.
type PublisherStatus struct {
	Leading bool        `json:"leading"`
	Origin  fact.Origin `json:"-"`
	Cursor  uint64      `json:"cursor"`  // last fact the broker is known to hold
	Facts   uint64      `json:"facts"`   // published since the start
	Skipped uint64      `json:"skipped"` // facts left to pulling because the broker was too far behind
	Errors  uint64      `json:"errors"`
	Fault   string      `json:"fault,omitempty"` // what the last attempt failed with; empty when it did not
}

// OpenPublisher starts a publisher. It publishes whenever its outbox leads and
// rests while it does not.
func OpenPublisher(cfg PublisherConfig) (*Publisher, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Publisher{cfg: cfg, cancel: cancel, done: make(chan struct{})}
	unhook, err := hook(cfg.Metrics, cfg.Name, &publisherCollector{p})
	if err != nil {
		cancel()
		return nil, err
	}
	p.unhook = unhook
	go func() {
		defer close(p.done)
		p.run(ctx)
	}()
	return p, nil
}

// Close stops the publisher and waits for it. It is safe to call twice.
func (p *Publisher) Close() error {
	p.cancel()
	<-p.done
	p.unhook()
	return nil
}

// Status reports how the publisher is doing.
func (p *Publisher) Status() PublisherStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// cursor is a place in one origin's log; known says it was agreed with the
// broker and nothing has failed since.
type cursor struct {
	origin fact.Origin
	after  uint64
	known  bool
}

func (p *Publisher) run(ctx context.Context) {
	var at cursor
	wait := p.cfg.RetryMin
	for ctx.Err() == nil {
		// Ask for the signal before looking, so that no change falls between.
		changed := p.cfg.Outbox.Changed()
		more, err := p.step(ctx, &at)
		p.note(at, err)
		switch {
		case err != nil:
			at.known = false
			p.pause(ctx, wait, nil)
			wait = min(2*wait, p.cfg.RetryMax)
		case more:
			wait = p.cfg.RetryMin
			if p.cfg.Gather > 0 {
				p.pause(ctx, p.cfg.Gather, nil)
			}
		default:
			wait = p.cfg.RetryMin
			p.pause(ctx, 0, changed)
		}
	}
}

// step publishes one batch; more says there may be another at once.
func (p *Publisher) step(ctx context.Context, at *cursor) (more bool, err error) {
	o, leads := p.cfg.Outbox.Own()
	if !leads {
		*at = cursor{}
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.CallTimeout)
	defer cancel()
	if !at.known || at.origin != o {
		if *at, err = p.resume(ctx, o); err != nil {
			return false, err
		}
	}
	blocks, err := p.cfg.Outbox.Blocks(o, at.after, p.cfg.BatchBytes)
	if err != nil || len(blocks) == 0 {
		return false, err
	}
	mishap.BeforePublish.Hit()
	if !mishap.PublishFacts.Omitted() {
		if err := p.cfg.Broker.Publish(ctx, blocks); err != nil {
			return false, err
		}
	}
	mishap.AfterPublish.Hit()
	last := blocks[len(blocks)-1].Last()
	p.count(last-at.after, 0)
	at.after = last
	return true, nil
}

// resume finds where to go on. A broker that is far behind (new, wiped, or
// back after a long absence) is not filled with history: followers that need
// it pull it faster than a broker could carry it.
func (p *Publisher) resume(ctx context.Context, o fact.Origin) (cursor, error) {
	last, err := p.cfg.Broker.Last(ctx, o)
	if err != nil {
		return cursor{origin: o}, err
	}
	tip := p.cfg.Outbox.Marks()[o].Seq
	if tip > last && tip-last > p.cfg.BacklogFacts {
		p.count(0, tip-last)
		p.cfg.Logger.Info("broker is far behind; carrying on from the newest fact", "origin", o.String(), "skipped", tip-last)
		last = tip
	}
	return cursor{o, min(last, tip), true}, nil
}

// pause waits for the signal (nil: for d with jitter) or the end.
func (p *Publisher) pause(ctx context.Context, d time.Duration, signal <-chan struct{}) {
	var timer <-chan time.Time
	if signal == nil {
		timer = p.cfg.Clock.After(d/2 + rand.N(d))
	}
	select {
	case <-ctx.Done():
	case <-signal:
	case <-timer:
	}
}

func (p *Publisher) count(facts, skipped uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Facts += facts
	p.status.Skipped += skipped
}

func (p *Publisher) note(at cursor, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.status
	s.Leading, s.Origin, s.Cursor = at.origin != fact.Origin{}, at.origin, at.after
	if err == nil {
		s.Fault = ""
		return
	}
	s.Errors++
	if s.Fault == "" {
		p.cfg.Logger.Warn("publishing failed; will go on trying", "feed", p.cfg.Name, "err", err)
	}
	s.Fault = err.Error()
}
