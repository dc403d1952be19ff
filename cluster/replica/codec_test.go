package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

func randomProposal(rng *rand.Rand) machine.Proposal {
	p := machine.Proposal{Commands: make([][]byte, rng.IntN(5))}
	if rng.IntN(2) == 0 {
		p.Key[rng.IntN(16)], p.Body[0] = 1, byte(rng.Uint32())
	}
	for i := range p.Commands {
		p.Commands[i] = make([]byte, rng.IntN(300))
		for j := range p.Commands[i] {
			p.Commands[i][j] = byte(rng.Uint32())
		}
	}
	return p
}

// Goal: what goes into an entry and a forwarded call comes out the same.
func TestProposalsRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var calls []*call
	for range 200 {
		p := randomProposal(rng)
		raw := appendProposal(nil, &p)
		if len(raw) > proposalSize(&p) {
			t.Fatalf("%d bytes, promised at most %d", len(raw), proposalSize(&p))
		}
		got, rest, err := nextProposal(append(raw, 7))
		if err != nil || len(rest) != 1 {
			t.Fatalf("%v, rest %d", err, len(rest))
		}
		if q := got.proposal(); fmt.Sprint(q) != fmt.Sprint(p) {
			t.Fatalf("%v became %v", p, q)
		}
		calls = append(calls, &call{proposal: p, size: proposalSize(&p)})
	}
	shard, out, err := decodeForward(encodeForward(3, calls))
	if err != nil || shard != 3 || len(out) != len(calls) {
		t.Fatalf("shard %d, %d proposals, %v", shard, len(out), err)
	}
	for i := range out {
		if fmt.Sprint(out[i]) != fmt.Sprint(calls[i].proposal) {
			t.Fatalf("proposal %d changed on the way", i)
		}
	}
}

// Goal: receipts survive their compact form, stored and sent.
func TestReceiptsRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	var sent []verdict
	for i := range 100 {
		rows := make([]machine.Row, rng.IntN(20))
		for j := range rows {
			rows[j] = machine.Row{Status: machine.Status(1 + rng.IntN(2))}
			if rng.IntN(5) == 0 {
				rows[j] = machine.Row{Status: machine.Rejected, Code: "tube_full"}
			}
		}
		s := stored{body: [16]byte{byte(i)}, origin: uint32(i), first: rng.Uint64() >> 1, rows: rows}
		s.last = s.first + uint64(rng.IntN(9))
		got, err := decodeStored(s.append(nil))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(s) {
			t.Fatalf("%+v became %+v, %v", s, got, err)
		}
		sent = append(sent, verdict{receipt: machine.Receipt{Origin: "unicom/toy/0/1", First: s.first, Last: s.last, Level: machine.Committed, Replayed: i%2 == 0, Rows: rows}})
		sent = append(sent, verdict{err: problem.New(problem.KeyReused, "m", "f").After(time.Second)})
	}
	got, err := decodeVerdicts(encodeVerdicts(sent))
	if err != nil || len(got) != len(sent) {
		t.Fatalf("%d verdicts, %v", len(got), err)
	}
	for i := range got {
		if fmt.Sprint(got[i].receipt) != fmt.Sprint(sent[i].receipt) || !reflect.DeepEqual(got[i].err, sent[i].err) {
			t.Fatalf("verdict %d: %+v became %+v", i, sent[i], got[i])
		}
	}
}

func TestHelloRoundTrip(t *testing.T) {
	h := hello{life: "x", formed: true, leader: "a", leads: true, term: 3, applied: 4, last: 5, members: []Member{{Name: "a", Life: "1", Voter: true}, {Name: "b", Life: "2", Voter: false}}}
	got, err := decodeHello(append(h.encode(), 1, 2, 3)) // a newer peer may say more
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Fatalf("%+v became %+v, %v", h, got, err)
	}
	if _, err := decodeHello([]byte{wireVersion + 1, 0}); err == nil {
		t.Fatal("a version that is not known was read")
	}
}

// Goal: a directory arrives as it was sent, with the size that was announced,
// and a stream that was cut or changed anywhere is refused.
func TestArchive(t *testing.T) {
	fs := vfs.NewMem()
	rng := rand.New(rand.NewPCG(3, 1))
	want := map[string][]byte{}
	fs.MkdirAll("from", 0o755)
	for i := range 6 {
		data := make([]byte, rng.IntN(5000)*(i%3))
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		name := fmt.Sprintf("%06d.sst", i)
		f, _ := fs.Create("from/"+name, vfs.WriteCategoryUnspecified)
		f.Write(bytes.Clone(data)) // the memory file system may scribble over what it was given
		f.Close()
		want[name] = data
	}
	r, size, err := pack(fs, "from")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil || int64(len(raw)) != size {
		t.Fatalf("%d bytes, announced %d, %v", len(raw), size, err)
	}
	r.Close()
	if err := unpack(fs, "to", bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	for name, data := range want {
		f, err := fs.Open("to/" + name)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(f)
		f.Close()
		if !bytes.Equal(got, data) {
			t.Fatalf("%s changed on the way", name)
		}
	}
	for i := range 200 {
		bad := bytes.Clone(raw)
		if i%2 == 0 {
			bad = bad[:rng.IntN(len(bad))]
		} else {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		}
		if err := unpack(fs, fmt.Sprint("bad", i), bytes.NewReader(bad)); !errors.Is(err, errArchive) {
			t.Fatalf("a damaged stream: %v", err)
		}
	}
	if err := unpack(fs, "long", bytes.NewReader(append(bytes.Clone(raw), 0))); !errors.Is(err, errArchive) {
		t.Fatalf("a stream that goes on: %v", err)
	}
}

// Goal: a replica that applied the same entries and holds other facts than the
// leader stops; the others go on.
// Method: rules that judge differently on one node.
func TestDivergenceStops(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	w.leader().put(t, toyCommand(1, "x"))
	w.equal()
	odd := w.follower()
	odd.shut()
	w.tune = func(c *Config) {
		if c.Name == odd.name {
			c.Machine = func(int) machine.Machine { return liar{&toy{}} }
			c.Tuning.Heartbeat = time.Hour // it never stands: the others would contradict it, and stop
		}
	}
	odd = w.start(odd.name)
	odd.doomed = true
	i := uint64(10)
	until(t, "the odd one to stop", func() bool {
		w.leader().put(t, toyCommand(i, "x"))
		i++
		return odd.fatal.Load() != nil
	})
	if err := *odd.fatal.Load(); !errors.Is(err, fact.ErrDivergent) {
		t.Fatalf("stopped because: %v", err)
	}
	odd.shut()
	w.leader().put(t, toyCommand(99, "y"))
	w.equal()
}

type liar struct{ *toy }

func (l liar) Decide(r machine.Reader, at int64, command []byte) machine.Decision {
	d := l.toy.Decide(r, at, command)
	if len(d.Fact) > 0 && d.Fact[len(d.Fact)-1] == 'x' {
		d.Fact = append(bytes.Clone(d.Fact), '~')
	}
	return d
}

// Goal: a view outlives the state it was opened on.
func TestViewOutlivesInstall(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 10 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	w.equal()
	out := w.follower()
	v, err := out.View(ctxFor(t), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	before := toyDump(v)
	rest := w.besides(out)
	w.split([]string{out.name}, rest)
	for i := range 20 {
		w.leaderOf(rest...).put(t, toyCommand(uint64(i), "y"))
	}
	one, other := w.node(rest[0]), w.node(rest[1])
	until(t, "the rest to hold the same", func() bool { return one.group0().applied() == other.group0().applied() })
	snapshotNow(t, one)
	snapshotNow(t, other)
	w.heal()
	w.leader().put(t, toyCommand(50, "y"))
	w.equal()
	if out.group0().store.snapshot() == nil {
		t.Fatal("no snapshot was installed")
	}
	if got := toyDump(v); got != before {
		t.Fatal("an open view changed when the state was replaced")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// Goal: keys are forgotten no earlier than a generation after the one they
// were used in, and then they are.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	lead := w.leader()
	p := machine.Proposal{Key: [16]byte{1}, Body: [16]byte{1}, Commands: [][]byte{toyCommand(1, "x")}}
	replayed := func() bool {
		t.Helper()
		r, err := lead.Propose(ctxFor(t), 0, p)
		if err != nil {
			t.Fatal(err)
		}
		return r.Replayed
	}
	replayed()
	rotate := func(gen byte) {
		t.Helper()
		until(t, "a rotation", func() bool { // by whoever leads by then
			_, err := w.leader().group0().apply(kindRotate, []byte{0, 0, 0, gen})
			return err == nil
		})
	}
	rotate(1)
	if !replayed() {
		t.Fatal("a key was forgotten after one rotation")
	}
	rotate(1) // a late proposal of a former leader
	if !replayed() {
		t.Fatal("one rotation counted twice")
	}
	rotate(2)
	if replayed() {
		t.Fatal("a key outlived two rotations")
	}
	w.equal()
}

// wrong is a clock that is ahead.
type wrong struct{ by atomic.Int64 }

func (c *wrong) Now() time.Time                         { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *wrong) Elapsed() time.Duration                 { return clock.Real.Elapsed() }
func (c *wrong) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Goal: clocks that disagree do not forget keys. Method: a leader whose clock
// is a day ahead begins a generation; one with the right clock, which has run
// for long, leads after it and must not take the generation for an old one.
func TestKeysSurviveAWrongClock(t *testing.T) {
	t.Parallel()
	clocks := map[string]*wrong{}
	for _, name := range abc {
		clocks[name] = new(wrong)
	}
	w := three(t, func(c *Config) { c.Clock = clocks[c.Name] })
	lead := w.leader()
	p := machine.Proposal{Key: [16]byte{1}, Body: [16]byte{1}, Commands: [][]byte{toyCommand(1, "x")}}
	if _, err := lead.Propose(ctxFor(t), 0, p); err != nil {
		t.Fatal(err)
	}
	generation := func(n *node) uint32 {
		g := n.group0()
		g.fsm.mu.RLock()
		defer g.fsm.mu.RUnlock()
		return g.fsm.shown.generation
	}
	until(t, "the wrong clock to begin a generation", func() bool {
		clocks[lead.name].by.Store(0)
		lead = w.leader() // of whom it is that the clock is wrong
		clocks[lead.name].by.Store(int64(25 * time.Hour))
		return generation(lead) == 2
	})
	w.equal()
	lead.shut()
	lead = w.leader()
	g := lead.group0()
	g.mu.Lock()
	g.rotating = time.Now().Add(-2 * minRotation)
	g.mu.Unlock()
	g.rotate()
	until(t, "what it began to be done", func() bool { return !g.snapping.Load() })
	if n := generation(lead); n != 2 {
		t.Errorf("the right clock began generation %d at once", n)
	}
	if r, err := lead.Propose(ctxFor(t), 0, p); err != nil || !r.Replayed {
		t.Errorf("the key of an hour ago: %+v, %v", r, err)
	}
}

// Goal: Close may be called twice, and nothing works or hangs after it.
func TestClosed(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	n := w.leader()
	n.put(t, toyCommand(1, "x"))
	n.shut()
	if err := n.Replica.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Propose(context.Background(), 0, machine.Proposal{}); !problem.Is(err, problem.Unavailable) {
		t.Fatalf("propose: %v", err)
	}
	for _, linearizable := range []bool{false, true} {
		if _, err := n.View(ctxFor(t), 0, linearizable); !problem.Is(err, problem.Unavailable) {
			t.Fatalf("view: %v", err)
		}
	}
	if _, _, err := n.Peek(0, []byte("v")); !problem.Is(err, problem.Unavailable) {
		t.Fatalf("peek: %v", err)
	}
	if _, err := n.Blocks(0, fact.Origin{}, 0, 1); err != nil {
		t.Fatalf("blocks of an unknown origin: %v", err)
	}
}

func FuzzEntry(f *testing.F) {
	p := randomProposal(rand.New(rand.NewPCG(1, 1)))
	h := header{kind: kindPropose, stamp: 1, nonce: 2}
	f.Add(appendProposal(h.append(nil), &p))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, payload, err := decodeHeader(raw)
		for err == nil && len(payload) > 0 {
			var one proposal
			if one, payload, err = nextProposal(payload); err == nil {
				q := one.proposal()
				if again, _, err := nextProposal(appendProposal(nil, &q)); err != nil || again.count != one.count {
					t.Fatalf("%v does not round-trip: %v", q, err)
				}
			}
		}
	})
}

func FuzzWire(f *testing.F) {
	f.Add((&hello{members: []Member{{Name: "a", Life: "1", Voter: true}}}).encode())
	f.Add(encodeVerdicts([]verdict{{receipt: machine.Receipt{Origin: "o", Rows: []machine.Row{{Status: 1}}}}, {err: errNotLeader}}))
	f.Add(encodeForward(1, []*call{{proposal: machine.Proposal{Commands: [][]byte{{1}}}}}))
	f.Add((&stored{rows: []machine.Row{{Status: 2, Code: "c"}}}).append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = decodeHello(raw)
		_, _ = decodeVerdicts(raw)
		_, _, _ = decodeForward(raw)
		_ = newDec(raw).marks()
		_ = newDec(raw).catalog()
		_, _ = decodeChain(0, raw)
		_ = new(meta).decode(raw)
		if s, err := decodeStored(raw); err == nil {
			if again, err := decodeStored(s.append(nil)); err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
				t.Fatalf("%+v does not round-trip", s)
			}
		}
	})
}

func FuzzArchive(f *testing.F) {
	f.Add(archiveHead([]archiveFile{{"x", 0}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<16 {
			return
		}
		if err := unpack(vfs.NewMem(), "to", bytes.NewReader(raw)); err == nil && len(raw) < len(archiveMagic)+32 {
			t.Fatal("a stream too short to have a checksum was accepted")
		}
	})
}
