package middlestore_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/leaktest"
	"qianma/cluster/machine"
	"qianma/cluster/node"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
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
	t.Cleanup(func() { leaktest.None(t) })
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
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := p.nodes[name].Replica.Propose(ctx, 0, machine.Proposal{Commands: facts})
		return err == nil
	})
}

func (p *province) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); {
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
	Freshness []age
}

// age is how old what a store holds of a group is.
type age struct {
	Carrier, Subsystem string
	AsOf               time.Time `json:"as_of"`
	Behind             uint64
}

// heard reports whether it says of what a group holds how old it is.
func (a answer) heard(carrier, subsystem string) bool {
	return slices.ContainsFunc(a.Freshness, func(f age) bool { return f.Carrier == carrier && f.Subsystem == subsystem && !f.AsOf.IsZero() })
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

// level waits until two stores hold the same: a commit that was tried again may
// have become two facts, of which the second comes later.
func (p *province) level(a, b string) {
	p.t.Helper()
	p.until(a+" and "+b+" hold the same", func() bool { return p.marks(a) == p.marks(b) })
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
				if time.Since(f.AsOf) < time.Minute && f.Behind == 0 {
					young++
				}
			}
			return young == 4
		})
		p.until(name+" is ready", func() bool { code, _ := p.get(name, "/readyz?verbose"); return code == http.StatusOK })
	}
	p.level("unicom-middlestore-1", "mobile-middlestore-1")
	for _, name := range everyNode {
		p.closeNode(name)
	}
	p.closeStore("unicom-middlestore-1")
	p.openStores("unicom-middlestore-1")
	p.until("a store restarted alone answers", func() bool { return p.ask("unicom-middlestore-1", 1).Status == "negative" })
	before := p.ask("unicom-middlestore-1", 1)
	for _, f := range before.Freshness {
		if f.Carrier == "unicom" && f.Subsystem == "nucleic" && (f.AsOf.IsZero() || time.Since(f.AsOf) > time.Hour) {
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
		p.level(name, "mobile-middlestore-1")
	}
}

// TestWhatOnlyAMiddleStoreTookComesToItsCarrier: a middle store took facts of
// the other carrier, which burned before nucleic here had asked it for them. They
// are nowhere else, so nucleic takes them from the middle store; the other one
// here, which came too late as well, takes them from nucleic.
func TestWhatOnlyAMiddleStoreTookComesToItsCarrier(t *testing.T) {
	p := newProvince(t)
	p.openNodes(everyNode...)
	p.openStores("unicom-middlestore-1", "unicom-middlestore-2")
	p.commit("mobile-nucleic-1", registered(1, "T1"))
	p.until("nucleic and both stores of unicom hold it", func() bool {
		return strings.Contains(p.marks("unicom-nucleic-1"), "mobile/nucleic") &&
			p.ask("unicom-middlestore-1", 1).Status == "pending" && p.ask("unicom-middlestore-2", 1).Status == "pending"
	})
	p.closeNode("unicom-nucleic-1")
	p.closeStore("unicom-middlestore-2")
	p.commit("mobile-nucleic-1", negative("T1"))
	p.until("the store that is left has taken it", func() bool { return p.ask("unicom-middlestore-1", 1).Status == "negative" })
	p.closeNode("mobile-nucleic-1")
	must(t, os.RemoveAll(filepath.Join(p.dir, "mobile-nucleic-1")))
	p.openNodes("unicom-nucleic-1")
	p.openStores("unicom-middlestore-2")
	p.until("the other store has it too", func() bool { return p.ask("unicom-middlestore-2", 1).Status == "negative" })
	p.level("unicom-middlestore-1", "unicom-middlestore-2")
}

// TestEmptyReplicaReplays has no peer to copy.
func TestEmptyReplicaReplays(t *testing.T) {
	p := newProvince(t)
	p.openNodes(everyNode...)
	for i := range byte(50) {
		p.commit("unicom-nucleic-1", registered(i, "T1"), registered(i, "T2"))
	}
	p.commit("mobile-nucleic-1", negative("T1"))
	const name = "mobile-middlestore-2"
	for {
		p.openStores(name)
		var got answer
		p.until("it answers", func() bool { got = p.ask(name, 7); return got.Status != "" })
		if got.Status == "negative" {
			return
		}
		if got.heard("mobile", "nucleic") {
			t.Fatalf("it answered before it held everything: %+v", got)
		}
		// A carrier that says nothing for long is not waited for, and a machine
		// that is busy enough has let that happen: once more, from nothing.
		p.closeStore(name)
		must(t, os.RemoveAll(filepath.Join(p.dir, name)))
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
