package middlestore_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qianma/cluster/identity"
	"qianma/cluster/machine"
	"qianma/cluster/node"
	"qianma/cluster/topology"
	middlestore "qianma/middle-store"
	"qianma/middle-store/middlestorepb"
	"qianma/nucleic/nucleicpb"
	"qianma/vaccine/vaccinepb"
)

// door is a subsystem's machine that lets everything in: what the facts mean
// is the middle store's business here.
type door struct{}

func (door) Decide(_ machine.Reader, _ int64, command []byte) machine.Decision {
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

func (door) Fold(tx machine.Tx, fact []byte) error {
	sum := sha256.Sum256(fact)
	tx.Set(sum[:], nil)
	return nil
}

func (door) Reset() {}

// province is nucleic and vaccine, one replica each, and middle stores at two
// carriers in one process, over real TCP, raft and files, without a broker.
type province struct {
	t      *testing.T
	dir    string
	top    *topology.Topology
	nodes  map[string]*node.Node
	stores map[string]*middlestore.Service
	client *http.Client
}

func newProvince(t *testing.T) *province {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	p := &province{t: t, dir: t.TempDir(), nodes: map[string]*node.Node{}, stores: map[string]*middlestore.Service{}, client: &http.Client{Transport: &http.Transport{}}}
	p.top = &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}
	for _, c := range p.top.Carriers {
		for _, sub := range []string{"nucleic", "vaccine", "middlestore", "middlestore"} {
			n := len(p.top.Select(c, sub)) + 1
			p.top.Processes = append(p.top.Processes, topology.Process{Name: fmt.Sprintf("%s-%s-%d", c, sub, n), Carrier: c, Subsystem: sub, Ordinal: n, Node: free(t), HTTP: free(t)})
		}
	}
	must(t, p.top.Save(filepath.Join(p.dir, "topology.json")))
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		for name := range maps.Clone(p.stores) {
			p.closeStore(name)
		}
		for name := range maps.Clone(p.nodes) {
			p.closeNode(name)
		}
	})
	return p
}

func (p *province) config(name string) node.Config {
	proc, _ := p.top.Find(name)
	return node.Config{Name: name, Carrier: proc.Carrier, Subsystem: proc.Subsystem, Dir: filepath.Join(p.dir, name), Listen: proc.Node, HTTP: proc.HTTP,
		Topology: filepath.Join(p.dir, "topology.json"), Insecure: true}
}

func (p *province) openNodes(names ...string) {
	p.t.Helper()
	for _, name := range names {
		n, err := node.Open(p.config(name), func(int) machine.Machine { return door{} })
		must(p.t, err)
		n.Serve()
		p.nodes[name] = n
	}
}

func (p *province) openStores(names ...string) {
	p.t.Helper()
	for _, name := range names {
		s, err := middlestore.Open(p.config(name))
		must(p.t, err)
		p.stores[name] = s
	}
}

func (p *province) closeStore(name string) {
	p.t.Helper()
	must(p.t, errors.Join(p.stores[name].Close(), p.stores[name].Close()))
	delete(p.stores, name)
}

func (p *province) closeNode(name string) {
	p.t.Helper()
	must(p.t, p.nodes[name].Close())
	delete(p.nodes, name)
}

var everyNode = []string{"unicom-nucleic-1", "unicom-vaccine-1", "mobile-nucleic-1", "mobile-vaccine-1"}

// commit has a node's group commit facts.
func (p *province) commit(name string, facts ...[]byte) {
	p.t.Helper()
	p.until(name+" commits", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := p.nodes[name].Replica.Propose(ctx, 0, machine.Proposal{Commands: facts})
		return err == nil
	})
}

func (p *province) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			for name := range p.stores {
				_, raw := p.get(name, "/v1/status")
				p.t.Logf("%s: %s", name, raw)
			}
			p.t.Fatalf("never: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (p *province) get(name, path string) (int, []byte) {
	p.t.Helper()
	proc, _ := p.top.Find(name)
	r, err := p.client.Get("http://" + proc.HTTP + path)
	must(p.t, err)
	raw, err := io.ReadAll(r.Body)
	must(p.t, errors.Join(err, r.Body.Close()))
	return r.StatusCode, raw
}

// answer is what a store says of a person; Status is "" while it does not
// answer.
type answer struct {
	Status    string
	Doses     int
	Freshness []struct {
		Carrier, Subsystem string
		AsOf               time.Time `json:"as_of"`
		Behind             uint64
	}
}

func (p *province) ask(name string, who byte) (out answer) {
	p.t.Helper()
	code, raw := p.get(name, "/v1/persons/"+identity.Person(person(who)).String())
	if code != http.StatusOK {
		return out
	}
	var got struct {
		answer
		Persons []struct {
			Status string
			Doses  struct{ Count int }
		}
	}
	must(p.t, json.Unmarshal(raw, &got))
	out = got.answer
	out.Status, out.Doses = got.Persons[0].Status, got.Persons[0].Doses.Count
	return out
}

func (p *province) marks(name string) string {
	p.t.Helper()
	_, raw := p.get(name, "/v1/marks")
	var got node.MarksAnswer
	must(p.t, json.Unmarshal(raw, &got))
	return fmt.Sprint(got.Origins)
}

func person(n byte) middlestorepb.PersonID { return middlestorepb.PersonID{n, 1} }

func registered(who byte, tube string) []byte {
	p := person(who)
	return (&nucleicpb.Registered{Tube: []byte(tube), Person: p[:], Pool: nucleicpb.PoolTen, SampledAt: time.Now().UnixMilli()}).AppendFact(nil)
}

func negative(tube string) []byte {
	return (&nucleicpb.Resulted{Tube: []byte(tube), Lab: []byte("L1"), Revision: 1, Outcome: nucleicpb.OutcomeNegative, ReportedAt: time.Now().UnixMilli()}).AppendFact(nil)
}

func dose(who byte) []byte {
	return vaccinepb.AppendDoseGiven(nil, &vaccinepb.DoseGiven{Person: vaccinepb.Person(person(who)), Dose: 1, Day: 18997, Product: "A", Batch: "B", Site: "S"})
}

// TestFactsOfBothCarriersMeet: a registration at one carrier, its result at the
// other, a dose: every middle store joins them, and says of all four groups
// how old they are. Then everything it follows goes away, and it goes on
// answering, growing older in words.
func TestFactsOfBothCarriersMeet(t *testing.T) {
	p := newProvince(t)
	p.openStores("unicom-middlestore-1", "mobile-middlestore-1")
	if got := p.ask("unicom-middlestore-1", 1); got.Status != "" {
		t.Fatalf("a store that never held anything answers %q", got.Status)
	}
	if code, _ := p.get("unicom-middlestore-1", "/readyz"); code != http.StatusServiceUnavailable {
		t.Fatalf("and is ready: %d", code)
	}
	p.openNodes(everyNode...)
	p.commit("unicom-nucleic-1", registered(1, "T1"))
	p.commit("mobile-nucleic-1", negative("T1"))
	p.commit("mobile-vaccine-1", dose(1))
	for name := range p.stores {
		p.until(name+" joins them", func() bool { got := p.ask(name, 1); return got.Status == "negative" && got.Doses == 1 })
		p.until(name+" knows how old all of it is", func() bool {
			young := 0
			for _, f := range p.ask(name, 1).Freshness {
				if time.Since(f.AsOf) < 5*time.Second && f.Behind == 0 {
					young++
				}
			}
			return young == 4
		})
		if code, raw := p.get(name, "/readyz?verbose"); code != http.StatusOK {
			t.Fatalf("%s is not ready: %s", name, raw)
		}
	}
	if a, b := p.marks("unicom-middlestore-1"), p.marks("mobile-middlestore-1"); a != b {
		t.Fatalf("marks differ:\n%s\n%s", a, b)
	}
	for _, name := range everyNode {
		p.closeNode(name)
	}
	p.closeStore("unicom-middlestore-1")
	p.openStores("unicom-middlestore-1")
	p.until("a store restarted alone answers", func() bool { return p.ask("unicom-middlestore-1", 1).Status == "negative" })
	before := p.ask("unicom-middlestore-1", 1)
	for _, f := range before.Freshness {
		if f.Carrier == "unicom" && f.Subsystem == "nucleic" && (f.AsOf.IsZero() || time.Since(f.AsOf) > time.Minute) {
			t.Fatalf("the age of what it holds is lost: %+v", f)
		}
		if f.Carrier == "unicom" && f.Subsystem == "vaccine" && !f.AsOf.IsZero() {
			t.Fatalf("nobody has told of this since the start, and yet it looks young: %+v", f)
		}
	}
}

// TestEmptyReplicaCopiesAPeer destroys a replica's disks while nucleic and
// vaccine are gone: what it needs can only come from a peer, here of the other
// carrier, because its own carrier's is as empty.
func TestEmptyReplicaCopiesAPeer(t *testing.T) {
	p := newProvince(t)
	p.openNodes(everyNode...)
	p.openStores("mobile-middlestore-1")
	p.commit("unicom-nucleic-1", registered(1, "T1"), negative("T1"))
	p.until("it is folded", func() bool { return p.ask("mobile-middlestore-1", 1).Status == "negative" })
	for _, name := range everyNode {
		p.closeNode(name)
	}
	p.openStores("unicom-middlestore-1", "unicom-middlestore-2")
	for _, name := range []string{"unicom-middlestore-1", "unicom-middlestore-2"} {
		p.until(name+" answers from the copy", func() bool { return p.ask(name, 1).Status == "negative" })
		if a, b := p.marks(name), p.marks("mobile-middlestore-1"); a != b {
			t.Fatalf("marks differ:\n%s\n%s", a, b)
		}
	}
}

// TestEmptyReplicaReplays has no peer to copy, and a carrier that is away.
func TestEmptyReplicaReplays(t *testing.T) {
	p := newProvince(t)
	p.openNodes(everyNode...)
	for i := range byte(50) {
		p.commit("unicom-nucleic-1", registered(i, "T1"), registered(i, "T2"))
	}
	p.commit("mobile-nucleic-1", negative("T1"))
	p.openStores("mobile-middlestore-2")
	p.until("it answers", func() bool { return p.ask("mobile-middlestore-2", 7).Status != "" })
	if got := p.ask("mobile-middlestore-2", 7); got.Status != "negative" {
		t.Fatalf("it answered before it held everything: %+v", got)
	}
}

func TestDisksLostAndReturned(t *testing.T) {
	p := newProvince(t)
	p.openNodes(everyNode...)
	p.openStores("unicom-middlestore-1", "unicom-middlestore-2")
	p.commit("unicom-nucleic-1", registered(1, "T1"))
	p.until("both have it", func() bool {
		return p.ask("unicom-middlestore-1", 1).Status == "pending" && p.ask("unicom-middlestore-2", 1).Status == "pending"
	})
	p.closeStore("unicom-middlestore-1")
	must(t, os.RemoveAll(filepath.Join(p.dir, "unicom-middlestore-1")))
	p.commit("unicom-nucleic-1", negative("T1"))
	p.openStores("unicom-middlestore-1")
	p.until("it is level again", func() bool {
		return p.ask("unicom-middlestore-1", 1).Status == "negative" && p.marks("unicom-middlestore-1") == p.marks("unicom-middlestore-2")
	})
}

// free is an address nobody listens at. It is below the range that the kernel
// hands to outgoing connections, so that none takes it in between.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if l, err := net.Listen("tcp", addr); err == nil {
			must(t, l.Close())
			return addr
		}
	}
	t.Fatal("no address is free")
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
