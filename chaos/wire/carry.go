package wire

import (
	"container/heap"
	"errors"
	"io"
	"sync"
	"time"
)

// waitMax is how many packets wait on one way of the line; more are lost, as on
// a line whose buffer is full.
const waitMax = 4096

// way carries packets from one end to the other. Packets that are due leave in
// the order of their times; those of one time in the order they came.
type way struct {
	shape *shape
	in    io.Reader
	out   io.Writer

	mu     sync.Mutex // protects the fields below
	queue  parcels
	closed bool
	more   chan struct{} // capacity 1: the head of the queue has changed
}

func newWay(s *shape, in io.Reader, out io.Writer) *way {
	return &way{shape: s, in: in, out: out, more: make(chan struct{}, 1)}
}

// packetMax bounds a packet: what a device can have as its MTU, and room.
const packetMax = 64 << 10

// read takes packets in until the device closes.
func (w *way) read() error {
	defer w.end()
	buf := make([]byte, packetMax)
	for {
		n, err := w.in.Read(buf)
		if err != nil {
			return err
		}
		for _, p := range w.shape.pass(append([]byte(nil), buf[:n]...)) {
			w.put(p)
		}
	}
}

func (w *way) end() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.ring()
}

func (w *way) ring() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *way) put(p parcel) {
	w.mu.Lock()
	full := len(w.queue.list) >= waitMax
	if !full {
		heap.Push(&w.queue, p)
	}
	w.mu.Unlock()
	if full {
		w.shape.overflowed()
		return
	}
	w.ring()
}

// send hands packets over when they are due, until read has ended.
func (w *way) send() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p, wait, more := w.next()
		switch {
		case !more:
			return
		case p != nil:
			// A device that is down or full loses the packet, as any line does.
			_, _ = w.out.Write(p)
			continue
		case wait > 0:
			timer.Reset(wait)
		}
		select {
		case <-w.more:
		case <-timer.C:
		}
	}
}

// next is the packet that is due, or how long until one is (0: none waits).
func (w *way) next() (packet []byte, wait time.Duration, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, 0, false
	}
	if len(w.queue.list) == 0 {
		return nil, 0, true
	}
	if wait = w.queue.list[0].at.Sub(w.shape.clock()); wait > 0 {
		return nil, wait, true
	}
	return heap.Pop(&w.queue).(waiting).packet, 0, true
}

// parcels is a heap by time, then by arrival.
type parcels struct {
	list []waiting
	n    uint64
}

type waiting struct {
	parcel
	n uint64
}

func (p *parcels) Len() int { return len(p.list) }
func (p *parcels) Less(i, j int) bool {
	a, b := p.list[i], p.list[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.n < b.n
}
func (p *parcels) Swap(i, j int) { p.list[i], p.list[j] = p.list[j], p.list[i] }
func (p *parcels) Push(x any) {
	p.n++
	p.list = append(p.list, waiting{x.(parcel), p.n})
}
func (p *parcels) Pop() any {
	last := p.list[len(p.list)-1]
	p.list = p.list[:len(p.list)-1]
	return last
}

// Carrier carries our own line between two devices. It is safe for concurrent
// use.
type Carrier struct {
	cfg    *Config
	ends   [2]io.ReadWriteCloser
	shapes [2]*shape
	wg     sync.WaitGroup
	once   sync.Once
}

// Carry begins to carry packets between two ends until Close. It owns them.
func Carry(cfg *Config, a, b io.ReadWriteCloser) *Carrier {
	c := &Carrier{cfg: cfg, ends: [2]io.ReadWriteCloser{a, b}}
	for i := range c.ends {
		c.shapes[i] = newShape(cfg.Ends[i].Carrier, time.Now)
		w := newWay(c.shapes[i], c.ends[i], c.ends[1-i])
		c.wg.Go(func() { _ = w.read() })
		c.wg.Go(w.send)
	}
	return c
}

// Close takes the line away. It is safe to call twice.
func (c *Carrier) Close() error {
	var err error
	c.once.Do(func() {
		err = errors.Join(c.ends[0].Close(), c.ends[1].Close())
		c.wg.Wait()
	})
	return err
}

// Set puts a rule in force, in place of one of the same id. Another one that is
// in force on that way is an error.
func (c *Carrier) Set(r Rule) error {
	if err := r.Validate(); err != nil {
		return err
	}
	i := c.cfg.end(r.From)
	if i < 0 {
		return errors.New("no carrier is called " + r.From)
	}
	if now := c.shapes[i].now(); now != nil && now.ID != r.ID {
		return errors.New("the packets of " + r.From + " bear a rule already: " + now.ID)
	}
	c.shapes[i].set(&r)
	return nil
}

// Remove takes the rule of that id off; no id means all.
func (c *Carrier) Remove(id string) {
	for _, s := range c.shapes {
		if r := s.now(); r != nil && (id == "" || r.ID == id) {
			s.set(nil)
		}
	}
}

// Rules are those in force.
func (c *Carrier) Rules() []Rule {
	out := []Rule{}
	for _, s := range c.shapes {
		if r := s.now(); r != nil {
			out = append(out, *r)
		}
	}
	return out
}

// Harm is what has been done to packets so far.
func (c *Carrier) Harm() []Harm { return []Harm{c.shapes[0].counts(), c.shapes[1].counts()} }
