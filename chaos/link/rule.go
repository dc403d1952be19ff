package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Selector picks processes; an empty field matches all.
type Selector struct {
	Name      string `json:"name,omitempty"`
	Carrier   string `json:"carrier,omitempty"`
	Subsystem string `json:"subsystem,omitempty"`
}

// Rule is a fault on the way from some processes to others: it acts on the
// bytes that flow that way, whoever dialled. Both ways at once is Both.
type Rule struct {
	ID   string   `json:"id"`
	From Selector `json:"from"`
	To   Selector `json:"to"`
	Kind string   `json:"kind,omitempty"` // node, nats, leaf, etcd; empty: all
	Both bool     `json:"both,omitempty"` // also the other way

	Cut       bool          `json:"cut,omitempty"`        // no byte passes; open connections stay and go on when it ends
	Refuse    bool          `json:"refuse,omitempty"`     // new connections are reset
	Reset     bool          `json:"reset,omitempty"`      // open connections are reset once, when the rule comes
	Loss      float64       `json:"loss,omitempty"`       // share of new connections that are reset
	Delay     time.Duration `json:"delay_ns,omitempty"`   // before each piece of bytes
	Jitter    time.Duration `json:"jitter_ns,omitempty"`  // up to this much more
	BytesRate int           `json:"bytes_rate,omitempty"` // bytes a second, each connection

	// Until is when the rule is gone by itself; zero: when it is removed.
	Until time.Time `json:"until,omitzero"`
}

// Validate reports every fault at once.
func (r Rule) Validate() error {
	var faults []error
	if r.ID == "" {
		faults = append(faults, errors.New("a rule needs an id, to be removed by"))
	}
	if r.Loss < 0 || r.Loss > 1 {
		faults = append(faults, errors.New("loss is a share: 0 to 1"))
	}
	if r.Delay < 0 || r.Jitter < 0 || r.BytesRate < 0 {
		faults = append(faults, errors.New("delay, jitter and rate are not negative"))
	}
	return errors.Join(faults...)
}

// matches reports whether bytes from a to b are under the rule.
func (r Rule) matches(p *Proxy, a, b, kind string) bool {
	if r.Kind != "" && r.Kind != kind {
		return false
	}
	return p.picks(r.From, a) && p.picks(r.To, b) || r.Both && p.picks(r.From, b) && p.picks(r.To, a)
}

func (p *Proxy) picks(s Selector, name string) bool {
	end := p.cfg.Ends[name]
	return (s.Name == "" || s.Name == name) &&
		(s.Carrier == "" || s.Carrier == end.Carrier) &&
		(s.Subsystem == "" || s.Subsystem == end.Subsystem)
}

// rules are the faults in force.
type rules struct {
	mu      sync.Mutex // protects the fields below
	list    []Rule
	changed chan struct{} // closed when the list next changes
}

// Set puts a rule in force, in place of one of the same id.
func (p *Proxy) Set(r Rule) error {
	if err := r.Validate(); err != nil {
		return err
	}
	p.rules.change(func(list []Rule) []Rule {
		list = slices.DeleteFunc(list, func(o Rule) bool { return o.ID == r.ID })
		return append(list, r)
	})
	if r.Reset {
		p.reset(func(c *conn) bool {
			return r.matches(p, c.from, c.to, c.kind) || r.matches(p, c.to, c.from, c.kind)
		})
	}
	return nil
}

// Remove takes rules out of force; no id means all. What was held back flows.
func (p *Proxy) Remove(id string) {
	p.rules.change(func(list []Rule) []Rule {
		return slices.DeleteFunc(list, func(r Rule) bool { return id == "" || r.ID == id })
	})
}

// Rules are those in force now.
func (p *Proxy) Rules() []Rule {
	p.rules.mu.Lock()
	defer p.rules.mu.Unlock()
	return slices.Clone(p.rules.now())
}

func (r *rules) change(fn func([]Rule) []Rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = fn(r.now())
	close(r.changed)
	r.changed = make(chan struct{})
}

// now drops what has run out. The caller holds the lock.
func (r *rules) now() []Rule {
	at := time.Now()
	r.list = slices.DeleteFunc(r.list, func(x Rule) bool { return !x.Until.IsZero() && !at.Before(x.Until) })
	return r.list
}

// force is all rules on one way, added up.
type force struct {
	cut, refuse bool
	loss        float64
	delay       time.Duration
	jitter      time.Duration
	rate        int
	until       time.Time       // when the first of them runs out; zero: never
	changed     <-chan struct{} // closed when any rule changes
}

func (f force) refuses() bool { return f.refuse || f.loss > 0 && rand.Float64() < f.loss }

// of adds up the rules on the way from a to b.
func (r *rules) of(p *Proxy, a, b, kind string) force {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := force{changed: r.changed}
	for _, x := range r.now() {
		if !x.matches(p, a, b, kind) {
			continue
		}
		f.cut, f.refuse = f.cut || x.Cut, f.refuse || x.Refuse
		f.loss = 1 - (1-f.loss)*(1-x.Loss)
		f.delay, f.jitter = f.delay+x.Delay, f.jitter+x.Jitter
		if x.BytesRate > 0 && (f.rate == 0 || x.BytesRate < f.rate) {
			f.rate = x.BytesRate
		}
		if !x.Until.IsZero() && (f.until.IsZero() || x.Until.Before(f.until)) {
			f.until = x.Until
		}
	}
	return f
}

// latency is how long a piece of bytes is on its way.
func (f force) latency() time.Duration {
	if f.jitter > 0 {
		return f.delay + rand.N(f.jitter)
	}
	return f.delay
}

// toll is how long n bytes occupy a way of bounded width.
func (f force) toll(n int) time.Duration {
	if f.rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / float64(f.rate) * float64(time.Second))
}

// passable blocks while the way from a to b is cut.
func (r *rules) passable(ctx context.Context, p *Proxy, a, b, kind string) error {
	for {
		f := r.of(p, a, b, kind)
		if !f.cut {
			return ctx.Err()
		}
		if err := f.changes(ctx); err != nil {
			return err
		}
	}
}

// changes blocks until a rule comes, goes or runs out.
func (f force) changes(ctx context.Context) error {
	var over <-chan time.Time
	if !f.until.IsZero() {
		t := time.NewTimer(time.Until(f.until))
		defer t.Stop()
		over = t.C
	}
	select {
	case <-f.changed:
		return nil
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func rest(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
