package traffic

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"qianma/chaos/model"
	"qianma/cluster/identity"
	"qianma/cluster/topology"
	"qianma/loadtest/population"
)

// Probes are clients whose every operation is remembered. They are few and
// slow: it is not their number that finds a lie but their memory. Tables write
// and read tubes; phones follow one person each, over all nodes of both
// carriers; a guard follows people under a restriction.
type Probes struct {
	h      *model.History
	topo   *topology.Topology
	seed   uint64
	base   uint64 // of tubes
	http   *http.Client
	begins time.Time

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex // protects the fields below
	next uint64     // tube
	used []string   // tubes of tables into which something was acknowledged, for the last read
}

// Bounds of a probe.
const (
	tryMax   = 5 * time.Second  // one request
	patience = 20 * time.Second // one operation, with all its tries
	finalMax = 2 * time.Minute  // the last read of a tube: a machine that is slow to answer has lost nothing
	pace     = 150 * time.Millisecond
	tubeSize = 10
)

// tubesApart keeps the probes' tubes clear of the load's.
const tubesApart = 500_000_000_000

// Begin starts the probes; Close stops them.
func Begin(topo *topology.Topology, h *model.History, seed uint64) *Probes {
	p := &Probes{
		h: h, topo: topo, seed: seed, begins: time.Now(), base: population.TubeBase(time.Now()) + tubesApart,
		http: &http.Client{Timeout: tryMax, Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second}},
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	n := 0
	loop := func(carrier string, step func(*probe)) {
		n++
		c := &probe{Probes: p, id: n, carrier: carrier, rand: rand.New(rand.NewPCG(seed, uint64(n)))}
		p.wg.Go(func() { c.live(step) })
	}
	for i, carrier := range topo.Carriers {
		t := new(table)
		loop(carrier, func(c *probe) { c.write(t) })
		loop(carrier, func(c *probe) { c.write(t) })
		loop(carrier, func(c *probe) { c.look(t) })
		for k := range 2 {
			f := &phone{person: 1 + 2*i + k}
			loop(carrier, func(c *probe) { c.follow(f) })
		}
		g := &guard{person: 100 + i}
		loop(carrier, func(c *probe) { c.guard(g) })
	}
	return p
}

// Close stops the probes and waits for them. It is safe to call twice.
func (p *Probes) Close() {
	p.stop()
	p.wg.Wait()
	p.http.CloseIdleConnections()
}

// person is a made-up pseudonym: the probes hold no document.
func (p *Probes) person(n int) identity.Person {
	var id identity.Person
	binary.BigEndian.PutUint64(id[:], population.Mix(p.seed^uint64(p.begins.UnixNano()), uint64(n)))
	binary.BigEndian.PutUint64(id[8:], population.Mix(uint64(n), uint64(p.begins.UnixNano())))
	return id
}

// tube is one that nobody has used.
func (p *Probes) tube() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	return string(population.AppendTube(nil, p.base+p.next))
}

// owe notes a tube into which something was acknowledged: it must be readable
// at the end. One whose only swab was cut off on its way may not exist.
func (p *Probes) owe(tube string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.used, tube) {
		p.used = append(p.used, tube)
	}
}

// probe is one client: a goroutine with its own chance.
type probe struct {
	*Probes
	id      int
	carrier string
	rand    *rand.Rand
	seq     int
}

func (c *probe) live(step func(*probe)) {
	for c.ctx.Err() == nil {
		step(c)
		c.rest(pace/2 + time.Duration(c.rand.Int64N(int64(pace))))
	}
}

// rest waits, or not when the probes stop.
func (c *probe) rest(d time.Duration) {
	select {
	case <-c.ctx.Done():
	case <-time.After(d):
	}
}

// node picks one that may be asked.
func (c *probe) node(carrier, subsystem string) topology.Process {
	all := c.topo.Select(carrier, subsystem)
	return all[c.rand.IntN(len(all))]
}

func (c *probe) key() string {
	c.seq++
	return fmt.Sprintf("drill-%d-%d-%d", c.begins.UnixNano(), c.id, c.seq)
}

// table is where two write into one tube and a third looks on.
type table struct {
	mu   sync.Mutex
	tube string
	size int
}

// place gives the next member of the open tube, or of a new one.
func (t *table) place(c *probe) (tube string, member int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tube == "" || t.size == tubeSize {
		t.tube, t.size = c.tube(), 0
	}
	t.size++
	return t.tube, t.size - 1
}

func (t *table) open() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tube
}

// memberOf is a member's person: the same function reads it back.
func (p *Probes) memberOf(tube string, n int) identity.Person {
	var code uint64
	for _, d := range tube {
		code = code*10 + uint64(d-'0')
	}
	return p.person(int(code%1e9)*64 + n + 1000)
}

// write registers one member, and now and then asks again with the same key.
func (c *probe) write(t *table) {
	tube, n := t.place(c)
	op := model.Op{Client: c.id, Kind: model.Register, Carrier: c.carrier, Tube: tube, Member: n, Key: c.key()}
	query := ""
	if n%3 == 0 {
		query = "?ack=replicated&wait=2s"
	}
	body := registration(tube, "10", c.memberOf(tube, n), time.Now())
	c.do(&op, request{"nucleic", http.MethodPost, "/v1/registrations" + query, body}, nil)
	if op.Outcome != model.OK {
		return
	}
	c.owe(tube)
	if n%2 == 0 {
		again := model.Op{Client: c.id, Kind: model.Repeat, Carrier: c.carrier, Key: op.Key}
		c.do(&again, request{"nucleic", http.MethodPost, "/v1/registrations", body}, nil)
	}
}

// look reads the tube that is open, at the table's carrier or at the other.
func (c *probe) look(t *table) {
	tube := t.open()
	if tube == "" {
		return
	}
	carrier := c.carrier
	if c.rand.IntN(3) == 0 {
		carrier = c.topo.Others(carrier)[0]
	}
	c.read(carrier, tube, false)
}

func (c *probe) read(carrier, tube string, final bool) model.Outcome {
	op := model.Op{Client: c.id, Kind: model.Read, Carrier: carrier, Tube: tube, Final: final}
	c.do(&op, request{"nucleic", http.MethodGet, "/v1/tubes/" + tube, nil}, func(raw []byte) error { return c.members(&op, raw) })
	return op.Outcome
}

// phone follows one person, who is tested every few seconds.
type phone struct {
	person int
	seen   string
	tested time.Time
}

const testEvery = 3 * time.Second

// follow looks at the person's code anywhere, and sends back what it has seen.
func (c *probe) follow(f *phone) {
	if time.Since(f.tested) > testEvery {
		f.tested = time.Now()
		c.test(f)
	}
	anywhere := c.topo.Carriers[c.rand.IntN(len(c.topo.Carriers))]
	op := model.Op{Client: c.id, Kind: model.Show, Carrier: anywhere, Person: f.person}
	c.do(&op, request{"display", http.MethodGet, codePath(c.person(f.person), f.seen), nil}, func(raw []byte) error {
		var err error
		op.View, f.seen, err = view(raw)
		return err
	})
}

// test registers a single swab and its result.
func (c *probe) test(f *phone) {
	tube, now := c.tube(), time.Now().Truncate(time.Millisecond)
	op := model.Op{Client: c.id, Kind: model.Register, Carrier: c.carrier, Person: f.person, Sampled: now.UnixMilli(), Key: c.key()}
	c.do(&op, request{"nucleic", http.MethodPost, "/v1/registrations", registration(tube, "1", c.person(f.person), now)}, nil)
	if op.Outcome != model.OK {
		return
	}
	op = model.Op{Client: c.id, Kind: model.Result, Carrier: c.carrier, Person: f.person, Sampled: now.UnixMilli(), Key: c.key()}
	c.do(&op, request{"nucleic", http.MethodPost, "/v1/results", result(tube, time.Now())}, nil)
}

// guard follows a person under a restriction.
type guard struct {
	person int
	seen   string
	stands bool
}

// guard imposes the restriction once, waits until every node shows it, and
// from then on looks for one that does not.
func (c *probe) guard(g *guard) {
	if !g.stands {
		g.stands = c.restrict(g)
		return
	}
	anywhere := c.topo.Carriers[c.rand.IntN(len(c.topo.Carriers))]
	op := model.Op{Client: c.id, Kind: model.Show, Carrier: anywhere, Person: g.person}
	c.do(&op, request{"display", http.MethodGet, codePath(c.person(g.person), g.seen), nil}, func(raw []byte) error {
		var err error
		op.View, g.seen, err = view(raw)
		return err
	})
}

func (c *probe) restrict(g *guard) bool {
	op := model.Op{Client: c.id, Kind: model.Restrict, Carrier: c.carrier, Person: g.person, Colour: "red", Key: c.key()}
	body := restriction(c.person(g.person))
	c.do(&op, request{"display", http.MethodPost, "/v1/restrictions?ack=replicated&wait=5s", body}, nil)
	for op.Outcome == model.OK && !c.shownByAll(g) {
		if c.ctx.Err() != nil {
			return false
		}
		c.rest(pace)
	}
	if op.Outcome != model.OK {
		return false
	}
	op.Start, op.End = c.h.Now(), c.h.Now() // from here on nobody may show another colour
	c.h.Add(op)
	return true
}

// shownByAll asks every node of both carriers once.
func (c *probe) shownByAll(g *guard) bool {
	for _, p := range c.topo.Select("", "display") {
		raw, err := c.ask(c.ctx, p, http.MethodGet, codePath(c.person(g.person), ""), nil, "")
		if err != nil {
			return false
		}
		if v, _, err := view(raw); err != nil || v.Colour != "red" {
			return false
		}
	}
	return true
}

// Final reads every tube of the tables at every carrier, after all is quiet.
func (p *Probes) Final(ctx context.Context) error {
	p.Close()
	p.ctx, p.stop = context.WithCancel(ctx)
	defer p.Close()
	c := &probe{Probes: p, id: 0, rand: rand.New(rand.NewPCG(p.seed, 0))}
	for _, tube := range p.used {
		for _, carrier := range p.topo.Carriers {
			for until := p.h.Now() + finalMax; c.read(carrier, tube, true) != model.OK; {
				if ctx.Err() != nil || p.h.Now() > until {
					return fmt.Errorf("tube %s could not be read at %s after the quiet period", tube, carrier)
				}
				c.rest(pace) // a refusal comes at once, and each try is remembered
			}
		}
	}
	return nil
}
