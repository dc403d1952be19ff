package registry_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"qianma/cluster/backbone"
	"qianma/cluster/leaktest"
	"qianma/cluster/problem"
	"qianma/cluster/registry"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
)

func TestMain(m *testing.M) {
	leaktest.Main(m, goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"))
}

// keeper is an etcd that can be taken away, brought back, and made to lose its
// store.
type keeper struct {
	t    *testing.T
	topo *topology.Topology
	dir  string
	b    *backbone.Backbone
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{t: t, dir: t.TempDir(), topo: seed()}
	addrs := topologytest.Addrs(t, 2)
	k.topo.Processes = append(k.topo.Processes, topology.Process{
		Name: "unicom-backbone-1", Carrier: "unicom", Subsystem: "backbone", Etcd: addrs[0], EtcdPeer: addrs[1],
	})
	k.start()
	t.Cleanup(func() { k.stop() })
	return k
}

func seed() *topology.Topology {
	return &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}, Processes: []topology.Process{
		{Name: "unicom-ledger-1", Carrier: "unicom", Subsystem: "ledger", Ordinal: 1, Node: "10.0.0.1:1"},
		{Name: "unicom-ledger-2", Carrier: "unicom", Subsystem: "ledger", Ordinal: 2, Node: "10.0.0.2:1"},
	}}
}

func (k *keeper) start() {
	k.t.Helper()
	b, err := backbone.Open(backbone.Config{Name: "unicom-backbone-1", Carrier: "unicom", Dir: k.dir, Province: k.topo, Insecure: true})
	if err != nil {
		k.t.Fatal(err)
	}
	k.b = b
}

func (k *keeper) stop() { k.b.Close() }

func (k *keeper) wipe() {
	k.stop()
	if err := os.RemoveAll(k.dir); err != nil {
		k.t.Fatal(err)
	}
	k.start()
}

// open opens the registry of one process.
func (k *keeper) open(name string, change func(*registry.Config)) *registry.Registry {
	k.t.Helper()
	b, _ := k.topo.Find("unicom-backbone-1")
	return open(k.t, k.topo, func(c *registry.Config) {
		c.Name, c.Endpoints = name, []string{b.Etcd}
		if change != nil {
			change(c)
		}
	})
}

func open(t *testing.T, topo *topology.Topology, change func(*registry.Config)) *registry.Registry {
	t.Helper()
	c := registry.Config{
		Carrier: "unicom", Topology: topo, TTL: 2 * time.Second, CallTimeout: 5 * time.Second,
		RelistEvery: 300 * time.Millisecond, RetryMax: 300 * time.Millisecond,
	}
	change(&c)
	r, err := registry.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	if !within(3*time.Minute, cond) {
		t.Fatalf("never happened: %s", what)
	}
}

func within(most time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(most); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func resolves(r *registry.Registry, name, addr string) func() bool {
	return func() bool {
		got, err := r.Resolve(name)
		return err == nil && got == addr
	}
}

func ledger(n string, addr string) topology.Process {
	return topology.Process{Name: "unicom-ledger-" + n, Carrier: "unicom", Subsystem: "ledger", Node: addr}
}

func TestNoEtcdAtAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "deep", "registry.json")
	withFile := func(c *registry.Config) { c.Name, c.File = "unicom-ledger-1", file }
	r := open(t, seed(), withFile)
	if !resolves(r, "unicom-ledger-2", "10.0.0.2:1")() || !r.Up() {
		t.Error("the seed does not resolve")
	}
	if _, err := r.Resolve("nobody"); !problem.Is(err, problem.NotFound) {
		t.Errorf("nobody: %v", err)
	}
	r.Register(ledger("1", "10.0.0.9:1"))
	if !resolves(r, "unicom-ledger-1", "10.0.0.9:1")() || !r.Live("unicom-ledger-1") {
		t.Error("what registered here is not known here")
	}
	if p, err := r.Put(bounded(t), "rules", []byte("v7"), 0); err != nil || p.Version != 1 {
		t.Errorf("put: %v %v", p, err)
	}
	if _, err := r.Put(bounded(t), "rules", []byte("v8"), 0); !problem.Is(err, problem.Conflict) {
		t.Errorf("a stale put: %v", err)
	}
	l, err := r.Lock(bounded(t), "drill", time.Second)
	if err != nil || l.Token != 1 {
		t.Fatal(l, err)
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.Lock(short, "drill", time.Second); !problem.Is(err, problem.Conflict) {
		t.Errorf("a held lock: %v", err)
	}
	l.Release()
	l.Release()
	r.Close()
	r.Close()
	again := open(t, seed(), withFile)
	if p, ok := again.Get("rules"); !ok || string(p.Value) != "v7" {
		t.Error("a pointer was forgotten")
	}
	if l, err := again.Lock(bounded(t), "drill", time.Second); err != nil || l.Token != 2 {
		t.Errorf("the fence went back: %v %v", l, err)
	}
}

// What was remembered of a process gives way when the topology file says
// something new of it; a file that cannot be read is no reason not to start.
func TestRememberedGivesWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registry.json")
	withFile := func(c *registry.Config) { c.Name, c.File = "unicom-ledger-1", file }
	r := open(t, seed(), withFile)
	r.Register(ledger("1", "10.0.0.9:1"))
	r.Register(ledger("2", "10.0.0.8:1"))
	r.Close()
	moved := seed()
	moved.Processes[0].Node = "10.0.0.77:1"
	r = open(t, moved, withFile)
	if !resolves(r, "unicom-ledger-1", "10.0.0.77:1")() {
		t.Error("an old memory hides what the operator wrote")
	}
	if !resolves(r, "unicom-ledger-2", "10.0.0.8:1")() {
		t.Error("a memory that still fits was dropped")
	}
	r.Close()
	if err := os.WriteFile(file, []byte(`{"entries":{"x":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r = open(t, seed(), withFile); !resolves(r, "unicom-ledger-1", "10.0.0.1:1")() {
		t.Error("no start with a torn file")
	}
}

func TestProcessesFindOneAnother(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	reg := prometheus.NewRegistry()
	a := k.open("unicom-ledger-1", func(c *registry.Config) { c.Metrics = reg })
	long := func(c *registry.Config) { c.TTL = time.Hour } // its lease says nothing in this test
	b := k.open("unicom-ledger-2", long)
	a.Register(ledger("1", "10.1.0.1:1"))
	b.Register(ledger("3", "10.1.0.3:1")) // not in the seed
	eventually(t, "an address that moved is seen", resolves(b, "unicom-ledger-1", "10.1.0.1:1"))
	eventually(t, "a new process is seen", resolves(a, "unicom-ledger-3", "10.1.0.3:1"))
	if topo := a.Topology(); len(topo.Select("unicom", "ledger")) != 3 || len(k.topo.Select("unicom", "ledger")) != 2 {
		t.Error("the overlay is not laid over a copy of the seed")
	}
	b.Close()
	gone := func() bool { return !a.Live("unicom-ledger-3") }
	for range 20 { // its word has a moment, in which a busy machine may not let it through: then it comes and goes again
		if within(5*time.Second, gone) {
			break
		}
		again := k.open("unicom-ledger-2", long)
		again.Register(ledger("3", "10.1.0.4:1"))
		eventually(t, "it is back", resolves(a, "unicom-ledger-3", "10.1.0.4:1"))
		again.Close()
	}
	if !gone() {
		t.Error("one that leaves is waited for")
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

// etcd goes away and comes back with its store: names resolve all the time,
// and everybody is registered again afterwards.
func TestEtcdOutage(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	a, b := k.open("unicom-ledger-1", nil), k.open("unicom-ledger-2", nil)
	a.Register(ledger("1", "10.1.0.1:1"))
	eventually(t, "seen", resolves(b, "unicom-ledger-1", "10.1.0.1:1"))
	if _, err := a.Put(bounded(t), "rules", []byte("v1"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pointer is seen", func() bool { p, _ := b.Get("rules"); return p.Version == 1 })
	k.stop()
	eventually(t, "the outage is noticed", func() bool { return !b.Up() })
	if !resolves(b, "unicom-ledger-1", "10.1.0.1:1")() || !b.Live("unicom-ledger-1") {
		t.Error("an outage of etcd took a process away")
	}
	if p, _ := b.Get("rules"); string(p.Value) != "v1" {
		t.Error("an outage of etcd took a pointer away")
	}
	if _, err := b.Put(bounded(t), "rules", []byte("v2"), 1); !problem.Is(err, problem.Unavailable) {
		t.Errorf("a put without etcd: %v", err)
	}
	k.start()
	eventually(t, "etcd is back", b.Up)
	eventually(t, "puts work again", func() bool { _, err := b.Put(bounded(t), "rules", []byte("v2"), 1); return err == nil })
	eventually(t, "registered again", func() bool { return b.Live("unicom-ledger-1") })
}

// etcd comes back without its store: everybody registers again, and versions
// and tokens do not go back.
func TestEtcdLosesItsStore(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	a, b := k.open("unicom-ledger-1", nil), k.open("unicom-ledger-2", nil)
	a.Register(ledger("1", "10.1.0.1:1"))
	for range 3 {
		if _, err := a.Put(bounded(t), "rules", []byte("v3"), registry.Newest); err != nil {
			t.Fatal(err)
		}
	}
	l, err := a.Lock(bounded(t), "drill", 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	eventually(t, "seen by both", func() bool { p, _ := b.Get("rules"); _, ok := b.Get("fence.drill"); return p.Version == 3 && ok })
	k.wipe()
	fresh := k.open("unicom-ledger-2", nil)
	eventually(t, "registered again", func() bool { return fresh.Live("unicom-ledger-1") })
	eventually(t, "the pointers are written back", func() bool {
		p, _ := fresh.Get("rules")
		_, fence := fresh.Get("fence.drill")
		return p.Version == 3 && fence
	})
	l, err = fresh.Lock(bounded(t), "drill", 2*time.Second)
	if err != nil || l.Token != 2 {
		t.Fatalf("token after the loss: %+v %v", l, err)
	}
	l.Release()
}

func TestPointers(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	a, b := k.open("unicom-ledger-1", nil), k.open("unicom-ledger-2", nil)
	seen := b.Watch(bounded(t), "rules")
	if p, err := a.Put(bounded(t), "rules", []byte("one"), 0); err != nil || p.Version != 1 {
		t.Fatal(p, err)
	}
	if p := <-seen; p.Version != 1 || string(p.Value) != "one" || p.By != "unicom-ledger-1" {
		t.Errorf("saw %+v", p)
	}
	if _, err := b.Put(bounded(t), "rules", []byte("two"), 0); !problem.Is(err, problem.Conflict) {
		t.Errorf("a stale put: %v", err)
	}
	if p, err := b.Put(bounded(t), "rules", []byte("two"), 1); err != nil || p.Version != 2 {
		t.Fatal(p, err)
	}
	if p := <-seen; p.Version != 2 {
		t.Errorf("saw %+v", p)
	}
	if _, err := a.Put(bounded(t), "rules", make([]byte, 1<<20), registry.Newest); !problem.Is(err, problem.TooLarge) {
		t.Errorf("a pointer that is no pointer: %v", err)
	}
}

func TestLockHasOneHolderAndGrowingTokens(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	a, b := k.open("unicom-ledger-1", nil), k.open("unicom-ledger-2", nil)
	const ttl = time.Minute // so that a busy machine, which does not renew it in time, loses it to nobody
	first, err := a.Lock(bounded(t), "drill", ttl)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := b.Lock(short, "drill", ttl); err == nil {
		t.Fatal("two holders")
	}
	first.Release()
	second, err := b.Lock(bounded(t), "drill", ttl)
	if err != nil || second.Token <= first.Token {
		t.Fatalf("%+v after %+v: %v", second, first, err)
	}
	b.Close()
	select {
	case <-second.Done():
	default:
		t.Error("a lock outlives its registry")
	}
	if l, err := a.Lock(bounded(t), "drill", ttl); err != nil || l.Token <= second.Token {
		t.Fatal(l, err)
	}
}

// An outage of etcd wedges nobody: the holder learns in time that it may have
// lost the lock, releasing and asking return at once, and afterwards the lock
// is free.
func TestOutageDoesNotWedgeTheLock(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	a, b := k.open("unicom-ledger-1", nil), k.open("unicom-ledger-2", nil)
	l, err := a.Lock(bounded(t), "drill", 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	k.stop()
	if _, err := b.Lock(bounded(t), "drill", 2*time.Second); !problem.Is(err, problem.Unavailable) {
		t.Errorf("asked without etcd: %v", err)
	}
	select {
	case <-l.Done():
	case <-bounded(t).Done():
		t.Fatal("the holder was never told")
	}
	l.Release()
	k.start()
	var next *registry.Lock
	eventually(t, "the lock is free again", func() bool {
		var err error
		next, err = b.Lock(bounded(t), "drill", 2*time.Second)
		return err == nil
	})
	if next.Token <= l.Token {
		t.Errorf("token %d after %d", next.Token, l.Token)
	}
	next.Release()
}

func TestConfigSaysWhatIsMissing(t *testing.T) {
	if _, err := registry.Open(registry.Config{}); err == nil {
		t.Error("opened without a topology")
	}
}
