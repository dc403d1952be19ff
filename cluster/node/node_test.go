package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/leaktest"
	"qianma/cluster/machine"
	"qianma/cluster/pki"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
)

// words is the smallest set of facts: each fact is a key that is held once.
type words struct{}

func (words) Decide(r machine.Reader, _ int64, command []byte) machine.Decision {
	if _, held := r.Get(command); held {
		return machine.Decision{Status: machine.Duplicate}
	}
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

func (words) Fold(tx machine.Tx, fact []byte) error { tx.Set(fact, []byte{1}); return nil }
func (words) Reset()                                {}

// pair is two carriers of three nodes each, in one process, over real TCP with
// mutual TLS, real raft and real fsync. There is no broker: facts are pulled.
type pair struct {
	t     *testing.T
	top   *topology.Topology
	dir   string
	nodes map[string]*Node

	drills bool // nodes obey orders
	puts   int
}

func newPair(t *testing.T) *pair {
	t.Helper()
	// A client of raft's own keeps a goroutine until its dead peer times out.
	t.Cleanup(func() { leaktest.None(t) })
	p := &pair{t: t, dir: t.TempDir(), nodes: map[string]*Node{}}
	p.top = &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}
	for _, c := range p.top.Carriers {
		for i := 1; i <= 3; i++ {
			p.top.Processes = append(p.top.Processes, topology.Process{
				Name: fmt.Sprintf("%s-words-%d", c, i), Carrier: c, Subsystem: "words", Ordinal: i, Node: free(t), HTTP: free(t),
			})
		}
	}
	must(t, p.top.Save(filepath.Join(p.dir, "topology.json")))
	_, err := pki.NewAuthority(filepath.Join(p.dir, "ca"))
	must(t, err)
	t.Cleanup(func() {
		for name := range maps.Clone(p.nodes) {
			p.close(name)
		}
	})
	return p
}

func (p *pair) open(carrier string) {
	p.t.Helper()
	for _, proc := range p.top.Select(carrier, "") {
		p.openOne(proc)
	}
}

func (p *pair) openOne(proc topology.Process) {
	p.t.Helper()
	ca, err := pki.LoadAuthority(filepath.Join(p.dir, "ca"))
	must(p.t, err)
	dir := filepath.Join(p.dir, proc.Carrier, proc.Name)
	must(p.t, os.MkdirAll(dir, 0o700))
	files, err := ca.Issue(dir, proc.Name, "127.0.0.1")
	must(p.t, err)
	n, err := Open(Config{
		Name: proc.Name, Carrier: proc.Carrier, Subsystem: proc.Subsystem, Dir: dir, Listen: proc.Node, HTTP: proc.HTTP,
		Topology: filepath.Join(p.dir, "topology.json"), CA: files.CA, Cert: files.Cert, Key: files.Key, LogLevel: "error", Drills: p.drills,
	}, func(int) machine.Machine { return words{} })
	must(p.t, err)
	n.Serve()
	p.nodes[proc.Name] = n
}

func (p *pair) close(name string) {
	if n := p.nodes[name]; n != nil {
		delete(p.nodes, name)
		if err := n.Close(); err != nil {
			p.t.Errorf("closing %s: %v", name, err)
		}
	}
}

// burn ends a carrier and destroys its disks.
func (p *pair) burn(carrier string) {
	p.t.Helper()
	for _, proc := range p.top.Select(carrier, "") {
		p.close(proc.Name)
	}
	must(p.t, os.RemoveAll(filepath.Join(p.dir, carrier)))
}

// patience is for what comes about by itself, on however busy a machine.
const patience = 3 * time.Minute

// put proposes words at a node and returns the receipt. Under a key: what an
// election interrupts is sent again.
func (p *pair) put(node string, words ...string) machine.Receipt {
	p.t.Helper()
	var commands [][]byte
	for _, w := range words {
		commands = append(commands, []byte(w))
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	p.puts++
	key := [16]byte{byte(p.puts)}
	var r machine.Receipt
	p.until("somebody leads "+node, func() bool {
		var err error
		r, err = p.nodes[node].Replica.Propose(ctx, 0, machine.Proposal{Key: key, Commands: commands})
		if !problem.Is(err, problem.Unavailable) && !problem.Is(err, problem.Unknown) {
			must(p.t, err)
		}
		return err == nil
	})
	return r
}

func (p *pair) await(node string, r machine.Receipt) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if got := p.nodes[node].Replica.Await(ctx, r, machine.Replicated); got != machine.Replicated {
		p.t.Fatalf("%s: the receipt is %v after %s, want replicated", node, got, patience)
	}
}

// level waits until every node holds the same marks, and returns the facts.
func (p *pair) level() (facts uint64) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var first map[fact.Origin]fact.Mark
		same := true
		for _, n := range p.nodes {
			m := n.Replica.Marks(0)
			if first == nil {
				first = m
			}
			same = same && maps.Equal(first, m)
		}
		if same && len(first) > 0 {
			for _, m := range first {
				facts += m.Seq
			}
			return facts
		}
		if time.Now().After(deadline) {
			for name, n := range p.nodes {
				p.t.Logf("%s holds %v", name, n.Replica.Marks(0))
			}
			p.t.Fatal("the nodes do not come level")
		}
		<-time.After(20 * time.Millisecond)
	}
}

// What one carrier commits is held by every replica of both, and the receipt
// says so only then; the same word put at both carriers is one word.
func TestFactsReachTheOtherCarrier(t *testing.T) {
	p := newPair(t)
	p.open("unicom")
	p.open("mobile")
	r := p.put("unicom-words-2", "a", "b", "c")
	p.await("unicom-words-2", r)
	p.await("mobile-words-3", p.put("mobile-words-3", "d"))
	if again := p.put("mobile-words-1", "a"); again.Rows[0].Status != machine.Duplicate {
		t.Errorf("the word put at the other carrier is %v, want duplicate", again.Rows[0].Status)
	}
	if facts := p.level(); facts != 4 {
		t.Errorf("%d facts, want 4", facts)
	}
}

// A carrier that burned comes back empty, as a new incarnation, and gets its
// old facts from the other.
func TestBurnedCarrierComesBack(t *testing.T) {
	p := newPair(t)
	p.open("unicom")
	p.open("mobile")
	r := p.put("unicom-words-1", "before")
	p.await("unicom-words-1", r)
	p.burn("unicom")
	p.put("mobile-words-1", "during")
	held := p.nodes["mobile-words-1"].Replica.Marks(0)
	p.open("unicom")
	back := p.nodes["unicom-words-1"]
	level := back.WatchLevel()
	door := back.Proposer(level)
	if v, err := door.View(t.Context(), 0, true); err == nil { // level already: it must hold everything
		must(t, v.Close())
	} else if !problem.Is(err, problem.Unavailable) {
		t.Errorf("a view before the carrier is level: %v", err)
	}
	p.until("level", func() bool { // not only shown as old, because nobody has answered for long
		at, _ := level.AsOf(0)
		return !at.IsZero() && time.Since(at) < levelDoubt/2
	})
	for o, m := range held {
		if back.Replica.Marks(0)[o].Seq < m.Seq {
			t.Errorf("said to be level with the other carrier, and lacks facts of %s", o)
		}
	}
	p.await("unicom-words-1", p.put("unicom-words-1", "after"))
	if facts := p.level(); facts != 3 {
		t.Errorf("%d facts, want 3", facts)
	}
	own, _ := p.nodes["unicom-words-1"].Replica.Own(0)
	if own.String() == r.Origin {
		t.Error("the carrier that lost its disks writes under its old incarnation")
	}
}

// A follower that cannot be opened is tried again even where nothing is ever
// committed: what would be committed is what it would bring.
func TestFollowerIsTriedAgain(t *testing.T) {
	p := newPair(t)
	p.open("unicom")
	var lines []*line
	for _, n := range p.nodes { // whoever comes to lead
		l := &line{node: n, topic: "again"}
		tries := 0
		l.open = func() (*feed.Follower, error) {
			if tries++; tries < 3 {
				return nil, errors.New("not now")
			}
			return l.follow()
		}
		n.wg.Go(l.lead)
		lines = append(lines, l)
	}
	p.until("the follower is opened", func() bool {
		return slices.ContainsFunc(lines, func(l *line) bool { return l.follower.Load() != nil })
	})
}

// free is an address below the ports that outgoing connections take, so that
// what runs beside the test does not take it first.
func free(t *testing.T) string {
	t.Helper()
	return topologytest.Addrs(t, 1)[0]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
