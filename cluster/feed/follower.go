package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
)

// Peer is a Source with a name for people and the carrier it stands at.
type Peer struct {
	Name    string // "unicom-nucleic-2"
	Carrier string // a source at an origin's own carrier can tell that nothing newer exists; empty: at every carrier
	Source  Source
}

// Divergence says that a source contradicts what the sink holds: two stores
// that should be equal are not. It needs a person.
type Divergence struct {
	Origin fact.Origin
	Held   fact.Mark // what the sink holds
	Told   fact.Mark // what the source told: of the same sequence number, or of the block that does not fit
	Source string    // the peer's name, or "sink" when the sink itself refused a block
}

// String is the divergence as a log shows it.
func (d Divergence) String() string {
	return fmt.Sprintf("%s: held %d (%s), but %s tells of %d (%s)", d.Origin, d.Held.Seq, d.Held.Digest, d.Source, d.Told.Seq, d.Told.Digest)
}

// FollowerConfig is what a follower is made of. Sink and at least one of
// Broker and Sources are needed.
type FollowerConfig struct {
	Name    string  // label of the metrics and logs: "nucleic/0"
	Topics  []Topic // what to listen to on the broker
	Broker  Broker  // nil: poll the sources
	Sources []Peer  // asked in this order
	Sink    Sink
	// Want picks the origins to follow out of what sources and broker tell of;
	// nil: those of Topics. It must refuse origins that the sink writes itself.
	Want func(fact.Origin) bool
	// OnDivergence is called, once for each, from the follower's goroutine; it
	// must not block. nil: only logged and counted.
	OnDivergence func(Divergence)

	Clock   clock.Clock           // nil: the machine's
	Logger  *slog.Logger          // nil: silent
	Metrics prometheus.Registerer // nil: none

	WatchInterval time.Duration // how often sources are asked how far they are; 0: 1 s
	PollInterval  time.Duration // the same while the broker does not deliver; 0: 150 ms
	GapDelay      time.Duration // how long a hole may wait for the broker before it is pulled; 0: 20 ms
	StallDelay    time.Duration // how long the broker may lag behind what a source told; 0: 300 ms
	CallTimeout   time.Duration // longest wait for a source; 0: 5 s
	RetryMin      time.Duration // first rest of a source or sink that failed; 0: 100 ms
	RetryMax      time.Duration // longest such rest; 0: 3 s
	BarDelay      time.Duration // how long a source that diverged is not asked for that origin; 0: 15 s

	// Gather is the least time between two calls of Fold: what arrives in
	// between is folded together. 0: none.
	Gather time.Duration

	FoldBytes   int // most bytes of one Fold; 0: 4 MiB
	PullBytes   int // about how much one Pull asks for; 0: 2 MiB
	BufferBytes int // most bytes waiting for the sink, and as many behind holes; 0: 16 MiB
	PullsMax    int // pulls under way at once; 0: 4
}

func (c *FollowerConfig) fill() error {
	if c.Sink == nil || (c.Broker == nil && len(c.Sources) == 0) {
		return errors.New("feed: a follower needs a sink, and a broker or sources")
	}
	if c.Want == nil {
		c.Want = func(o fact.Origin) bool { return slices.Contains(c.Topics, TopicOf(o)) }
	}
	if c.OnDivergence == nil {
		c.OnDivergence = func(Divergence) {}
	}
	def(&c.Clock, clock.Real)
	def(&c.Logger, slog.New(slog.DiscardHandler))
	def(&c.WatchInterval, time.Second)
	def(&c.PollInterval, 150*time.Millisecond)
	def(&c.GapDelay, 20*time.Millisecond)
	def(&c.StallDelay, 300*time.Millisecond)
	def(&c.CallTimeout, 5*time.Second)
	def(&c.RetryMin, 100*time.Millisecond)
	def(&c.RetryMax, 3*time.Second)
	def(&c.BarDelay, 15*time.Second)
	def(&c.FoldBytes, 4<<20)
	def(&c.PullBytes, 2<<20)
	def(&c.BufferBytes, 16<<20)
	def(&c.PullsMax, 4)
	return nil
}

// Follower keeps a sink level with its sources. One goroutine owns all
// decisions and calls the sink; calls to sources run beside it, so that a
// source that hangs holds up nothing that another way can bring.
type Follower struct {
	cfg    FollowerConfig
	cancel context.CancelFunc
	wg     sync.WaitGroup
	unhook func()

	live    chan []fact.Block // from the broker; a full channel makes it wait
	results chan func(now time.Duration)

	mu      sync.Mutex // held by the loop while it changes what follows
	tracks  map[fact.Origin]*track
	order   []*track // tracks in a fixed order, so that folding is fair
	lines   map[Topic]*line
	sources []*source
	count   counts
	watchAt time.Duration // deadlines are of what has elapsed: the time may be put back
	single  bool          // fold one origin at a time, until a failure is pinned down
	turn    int           // whose turn it is to be first in a fold
	rounds  int           // rounds of watch, so that each asks another source
	quiet   int           // rounds since a pull brought something
	pulls   int           // under way
}

// counts are totals since the start.
type counts struct {
	FactsLive   uint64 `json:"facts_live"`   // folded, brought by the broker
	FactsPulled uint64 `json:"facts_pulled"` // folded, pulled from a source
	Folds       uint64 `json:"folds"`
	Repeats     uint64 `json:"repeats"`  // blocks that were held already
	Overflow    uint64 `json:"overflow"` // blocks dropped for want of room, to be pulled later
	Pulls       uint64 `json:"pulls"`
	Faults      uint64 `json:"faults"` // calls to sources or the sink that failed
	Divergences uint64 `json:"divergences"`
}

// OpenFollower starts a follower. A broker or sources that are away are no
// error: the follower goes on trying.
func OpenFollower(cfg FollowerConfig) (*Follower, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &Follower{
		cfg: cfg, cancel: cancel,
		live:    make(chan []fact.Block, 16),
		results: make(chan func(time.Duration), 16),
		tracks:  map[fact.Origin]*track{},
		lines:   map[Topic]*line{},
	}
	for _, p := range cfg.Sources {
		f.sources = append(f.sources, &source{Peer: p, told: map[fact.Origin]uint64{}})
	}
	unhook, err := hook(cfg.Metrics, cfg.Name, &followerCollector{f})
	if err != nil {
		cancel()
		return nil, err
	}
	f.unhook = unhook
	for _, t := range cfg.Topics {
		l := &line{topic: t}
		f.lines[t] = l
		if cfg.Broker != nil {
			f.wg.Go(func() { f.listen(ctx, l) })
		}
	}
	f.wg.Go(func() { f.run(ctx) })
	return f, nil
}

// Close stops the follower and waits until nothing of it touches broker,
// sources or sink any more. It is safe to call twice.
func (f *Follower) Close() error {
	f.cancel()
	f.wg.Wait()
	f.unhook()
	return nil
}

// listen keeps one subscription open until the end.
func (f *Follower) listen(ctx context.Context, l *line) {
	hand := func(blocks []fact.Block) {
		select {
		case f.live <- blocks:
		case <-ctx.Done():
		}
	}
	wait := f.cfg.RetryMin
	for ctx.Err() == nil {
		stop, err := f.cfg.Broker.Subscribe(ctx, l.topic.Carrier, l.topic.Subsystem, l.topic.Shard, hand)
		if err == nil {
			defer stop()
			f.mu.Lock()
			l.subscribed = true
			f.mu.Unlock()
			<-ctx.Done()
			return
		}
		select {
		case <-ctx.Done():
		case <-f.cfg.Clock.After(wait):
		}
		wait = min(2*wait, f.cfg.RetryMax)
	}
}

// run is the loop that owns all decisions.
func (f *Follower) run(ctx context.Context) {
	f.mu.Lock()
	f.look()
	f.mu.Unlock()
	for ctx.Err() == nil {
		f.mu.Lock()
		now := f.cfg.Clock.Elapsed()
		f.watch(ctx, now)
		f.pull(ctx, now)
		p := f.gather(now)
		live, wait := f.openDoor(), f.idle(now)
		f.mu.Unlock()
		if len(p.blocks) > 0 {
			f.fold(ctx, p)
			f.rest(ctx, p)
			f.drain(false)
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = f.cfg.Clock.After(wait)
		}
		select {
		case <-ctx.Done():
		case blocks := <-live:
			f.take(blocks)
			f.drain(true)
		case apply := <-f.results:
			f.apply(apply)
			f.drain(true)
		case <-timer:
		}
	}
}

// drain takes in what has already arrived, so that the next fold carries it
// all; more also takes live blocks.
func (f *Follower) drain(more bool) {
	for range cap(f.results) + cap(f.live) {
		f.mu.Lock()
		live := f.openDoor()
		f.mu.Unlock()
		if !more {
			live = nil
		}
		select {
		case blocks := <-live:
			f.take(blocks)
		case apply := <-f.results:
			f.apply(apply)
		default:
			return
		}
	}
}

func (f *Follower) apply(fn func(time.Duration)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f.cfg.Clock.Elapsed())
}

// openDoor is the broker's channel, or nil while enough waits for the sink:
// then the broker has to wait too.
func (f *Follower) openDoor() chan []fact.Block {
	ready, _ := f.waiting()
	if ready >= f.cfg.BufferBytes {
		return nil
	}
	return f.live
}

func (f *Follower) waiting() (ready, ahead int) {
	for _, t := range f.order {
		ready += t.readyBytes
		ahead += t.aheadBytes
	}
	return ready, ahead
}

// rest lets blocks collect behind a small parcel: to take in a parcel costs
// the sink about the same whether it holds one block or many. What arrives
// meanwhile waits in the bounded door.
func (f *Follower) rest(ctx context.Context, p parcel) {
	if f.cfg.Gather <= 0 || SizeOf(p.blocks) >= f.cfg.FoldBytes/4 {
		return
	}
	select {
	case <-f.cfg.Clock.After(f.cfg.Gather):
	case <-ctx.Done():
	}
}

// idle is how long nothing will be due.
func (f *Follower) idle(now time.Duration) time.Duration {
	next := f.watchAt
	sooner := func(at time.Duration) {
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	for _, t := range f.order {
		if !t.pulling {
			sooner(t.due)
		}
		if len(t.ready) > 0 {
			sooner(t.foldAt)
		}
	}
	return max(next-now, time.Millisecond)
}

// take takes in blocks that the broker brought.
func (f *Follower) take(blocks []fact.Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Clock.Elapsed()
	for _, b := range blocks {
		t := f.tracks[b.Origin]
		if t == nil {
			if !f.cfg.Want(b.Origin) {
				continue
			}
			f.look()
			t = f.track(b.Origin)
		}
		f.takeOne(t, item{b, true}, now)
	}
}

func (f *Follower) takeOne(t *track, it item, now time.Duration) {
	_, ahead := f.waiting()
	switch t.offer(it, f.cfg.BufferBytes-ahead) {
	case taken:
		f.lively(t)
		if len(t.ahead) == 0 && t.tail.Seq >= t.want {
			t.due = 0
		}
	case repeated:
		f.count.Repeats++
		if it.block.Last() == t.tail.Seq {
			f.lively(t)
		}
	case kept:
		t.arm(now + f.cfg.GapDelay)
	case dropped:
		f.count.Overflow++
		t.arm(now + f.cfg.GapDelay)
	case refused:
		// The broker is not believed: go back to what the sink holds and let
		// a source say what follows.
		t.reset(t.held)
		t.want = max(t.want, it.block.Last())
		t.arm(now)
	}
}

// lively notes that the broker keeps up with what is known.
func (f *Follower) lively(t *track) {
	if t.line != nil {
		t.line.stalled = false
	}
}

// look reads the sink's marks and moves every track to where the sink is.
func (f *Follower) look() {
	marks := f.cfg.Sink.Marks()
	for o := range marks {
		if f.cfg.Want(o) {
			f.track(o)
		}
	}
	for _, t := range f.order {
		t.follow(marks[t.origin])
	}
}

// track finds or makes the track of an origin.
func (f *Follower) track(o fact.Origin) *track {
	t := f.tracks[o]
	if t == nil {
		t = &track{origin: o, line: f.lines[TopicOf(o)]}
		f.tracks[o] = t
		f.order = append(f.order, t)
	}
	return t
}

// parcel is one call to the sink: how many ready blocks of which tracks.
type parcel struct {
	blocks []fact.Block
	parts  []part
}

type part struct {
	t *track
	n int
}

// gather picks what the sink gets next: everything that waits, up to a bound,
// so that a sink that was busy catches up in few calls. Each time another
// track is first.
func (f *Follower) gather(now time.Duration) parcel {
	var p parcel
	bytes := 0
	for i := range f.order {
		t := f.order[(i+f.turn)%len(f.order)]
		if len(t.ready) == 0 || now < t.foldAt {
			continue
		}
		n := 0
		for n < len(t.ready) && (bytes == 0 || bytes+sizeOf(&t.ready[n].block) <= f.cfg.FoldBytes) {
			bytes += sizeOf(&t.ready[n].block)
			p.blocks = append(p.blocks, t.ready[n].block)
			n++
		}
		if n > 0 {
			p.parts = append(p.parts, part{t, n})
		}
		if f.single || bytes >= f.cfg.FoldBytes {
			break
		}
	}
	f.turn++
	return p
}

// fold hands a parcel to the sink.
func (f *Follower) fold(ctx context.Context, p parcel) {
	err := f.cfg.Sink.Fold(ctx, p.blocks)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count.Folds++
	if err == nil {
		f.folded(p)
		return
	}
	if ctx.Err() != nil {
		return
	}
	f.foldFailed(p, err, f.cfg.Clock.Elapsed())
}

func (f *Follower) folded(p parcel) {
	for _, part := range p.parts {
		for _, it := range part.t.ready[:part.n] {
			if it.live {
				f.count.FactsLive += uint64(it.block.Count)
			} else {
				f.count.FactsPulled += uint64(it.block.Count)
			}
		}
		part.t.folded(part.n)
		delete(part.t.barred, nil)
	}
	f.single = slices.ContainsFunc(f.order, func(t *track) bool { return t.foldDelay > 0 })
}

// foldFailed lets the tracks of a failed parcel rest and asks the sink again
// where it stands. A parcel of several origins is repeated one origin at a
// time, so that one bad origin cannot hold up the others.
func (f *Follower) foldFailed(p parcel, err error, now time.Duration) {
	f.count.Faults++
	f.cfg.Logger.Warn("the sink did not take blocks; will repeat", "feed", f.cfg.Name, "origins", len(p.parts), "err", err)
	f.single = true
	for _, part := range p.parts {
		t := part.t
		t.foldDelay = min(max(2*t.foldDelay, f.cfg.RetryMin), f.cfg.RetryMax)
		if len(p.parts) == 1 {
			t.foldAt = now + t.foldDelay
		}
		if len(p.parts) == 1 && errors.Is(err, fact.ErrDivergent) {
			t.foldAt = now + f.cfg.BarDelay
			f.diverged(t, nil, p.blocks[0].Mark(), now)
		}
	}
	f.look()
}

// Lag is how far a follower is with one origin.
type Lag struct {
	Origin    fact.Origin
	Held      uint64    // last fact the sink holds
	Known     uint64    // last fact anyone told of
	Stamp     time.Time // when the newest folded block was proposed; zero: none since the start
	Confirmed time.Time // for which the origin's carrier last vouched that there was nothing newer; zero: not yet
	Diverged  bool
}

// AsOf is the latest time at which the sink is known to have held all there
// was; zero: not known.
func (l Lag) AsOf() time.Time {
	if l.Confirmed.After(l.Stamp) {
		return l.Confirmed
	}
	return l.Stamp
}

// MarshalJSON shows the origin as people write it, and no times that are not
// known.
func (l Lag) MarshalJSON() ([]byte, error) {
	show := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	return json.Marshal(struct {
		Origin   string `json:"origin"`
		Held     uint64 `json:"held"`
		Known    uint64 `json:"known"`
		AsOf     string `json:"as_of,omitempty"`
		Diverged bool   `json:"diverged"`
	}{l.Origin.String(), l.Held, max(l.Known, l.Held), show(l.AsOf()), l.Diverged})
}

// Status is how a follower is doing.
type Status struct {
	counts
	Polling bool  `json:"polling"` // the broker is not delivering everything; sources are polled
	Origins []Lag `json:"origins"`
}

// Of is the lag of one origin; zero when the follower has not heard of it.
func (s Status) Of(o fact.Origin) Lag {
	for _, l := range s.Origins {
		if l.Origin == o {
			return l
		}
	}
	return Lag{Origin: o}
}

// Behind is how many facts are known of but not yet held.
func (s Status) Behind() uint64 {
	n := uint64(0)
	for _, l := range s.Origins {
		n += l.Known - min(l.Known, l.Held)
	}
	return n
}

// Status reports how the follower is doing, origins in order of their names.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{counts: f.count, Polling: f.polling()}
	for _, t := range f.order {
		l := Lag{Origin: t.origin, Held: t.held.Seq, Known: max(t.known, t.held.Seq), Confirmed: t.confirmed, Diverged: len(t.barred) > 0}
		if t.newest > 0 {
			l.Stamp = time.Unix(0, t.newest)
		}
		s.Origins = append(s.Origins, l)
	}
	slices.SortFunc(s.Origins, func(a, b Lag) int { return strings.Compare(a.Origin.String(), b.Origin.String()) })
	return s
}
