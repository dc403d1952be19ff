package backbone_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"qianma/cluster/backbone"
	"qianma/cluster/broker"
	"qianma/cluster/feed"
	"qianma/cluster/feed/feedtest"
	"qianma/cluster/leaktest"
	"qianma/cluster/pki"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
)

// Nothing of ours outlives Close. The embedded servers leave a few goroutines:
// idle connections between etcd members and a NATS stream that waits for an
// answer of the source end by themselves within a minute; the file of a NATS
// stream that was being made while its server shut down is never closed, and
// keeps the clock that files share.
//
// The tests wait for servers far more than they compute, so all of them run at
// once, however few the cores.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8")
	leaktest.Main(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*stream).trySetupSourceConsumer.func3"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

// province is the backbones of two carriers on this machine, joined by a line
// that can be cut.
type province struct {
	t     *testing.T
	dir   string
	topo  *topology.Topology
	auth  *pki.Authority
	line  *line
	tuned func(*backbone.Config)

	mu   sync.Mutex
	open map[string]*backbone.Backbone
}

func newProvince(t *testing.T, members int) *province {
	t.Helper()
	p := &province{t: t, dir: feedtest.Dir(t), open: map[string]*backbone.Backbone{}, tuned: func(*backbone.Config) {}}
	p.topo = &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}
	ports := topologytest.Addrs(t, 2*members*6)
	next := func() string { a := ports[0]; ports = ports[1:]; return a }
	for _, c := range p.topo.Carriers {
		for i := range members {
			p.topo.Processes = append(p.topo.Processes, topology.Process{
				Name: fmt.Sprintf("%s-backbone-%d", c, i+1), Carrier: c, Subsystem: "backbone", Ordinal: i + 1,
				HTTP: next(), NATS: next(), Leaf: next(), Cluster: next(), Etcd: next(), EtcdPeer: next(),
			})
		}
	}
	var err error
	if p.auth, err = pki.NewAuthority(filepath.Join(p.dir, "ca")); err != nil {
		t.Fatal(err)
	}
	p.line = newLine(t, p.topo.Select("unicom", "backbone")[0].Leaf)
	t.Cleanup(func() {
		for name := range p.open {
			p.kill(name)
		}
	})
	return p
}

func (p *province) config(name string) backbone.Config {
	proc, _ := p.topo.Find(name)
	f, err := p.auth.Issue(filepath.Join(p.dir, "pki"), name, "127.0.0.1")
	if err != nil {
		p.t.Fatal(err)
	}
	c := backbone.Config{
		Name: name, Carrier: proc.Carrier, Dir: filepath.Join(p.dir, name), HTTP: proc.HTTP, Province: p.topo,
		CA: f.CA, Cert: f.Cert, Key: f.Key, StoreMiB: 16, Logger: slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
		KeepEvery: 100 * time.Millisecond, BeatEvery: 200 * time.Millisecond, QuietMax: 2 * time.Second, ActAfter: 3 * time.Second, ReadyAfter: time.Minute,
	}
	if proc.Carrier == "mobile" {
		c.Via = map[string]string{"unicom-backbone-1": p.line.addr}
	}
	p.tuned(&c)
	return c
}

func (p *province) start(names ...string) {
	p.t.Helper()
	var wg sync.WaitGroup
	for _, name := range names {
		c := p.config(name)
		wg.Go(func() {
			b, err := backbone.Open(c)
			if err != nil {
				p.t.Errorf("%s: %v", name, err)
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.open[name] = b
		})
	}
	wg.Wait()
	if p.t.Failed() {
		p.t.FailNow()
	}
}

func (p *province) kill(name string) {
	p.mu.Lock()
	b := p.open[name]
	delete(p.open, name)
	p.mu.Unlock()
	if b != nil {
		b.Close()
	}
}

func (p *province) ready(name string) func() bool {
	return func() bool { return p.open[name].Ready(bounded(p.t)) == nil }
}

// connect is a daemon's connection to its carrier's NATS, over TCP and TLS.
func (p *province) connect(carrier string) *broker.JetStream {
	p.t.Helper()
	var urls []string
	for _, b := range p.topo.Select(carrier, "backbone") {
		urls = append(urls, "nats://"+b.NATS)
	}
	f, err := p.auth.Issue(filepath.Join(p.dir, "pki"), carrier+"-ledger-1", "127.0.0.1")
	if err != nil {
		p.t.Fatal(err)
	}
	conf, err := pki.Client(f)
	if err != nil {
		p.t.Fatal(err)
	}
	j, err := broker.Connect(broker.Config{Name: carrier + "-ledger-1", Carrier: carrier, Others: p.topo.Others(carrier), URLs: urls, TLS: conf, MaxBytes: 16 << 20})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { j.Close() })
	return j
}

func (p *province) etcd(names ...string) *clientv3.Client {
	p.t.Helper()
	var endpoints []string
	for _, name := range names {
		proc, _ := p.topo.Find(name)
		endpoints = append(endpoints, "https://"+proc.Etcd)
	}
	f, err := p.auth.Issue(filepath.Join(p.dir, "pki"), "etcd-client", "127.0.0.1")
	if err != nil {
		p.t.Fatal(err)
	}
	conf, err := pki.Client(f)
	if err != nil {
		p.t.Fatal(err)
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, TLS: conf, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cli.Close() })
	return cli
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// line is a TCP proxy: the line between the carriers.
type line struct {
	addr, to string
	l        net.Listener
	mu       sync.Mutex
	cut      bool
	frozen   chan struct{} // not nil: bytes wait until it is closed
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

func newLine(t *testing.T, to string) *line {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &line{addr: l.Addr().String(), to: to, l: l, conns: map[net.Conn]bool{}}
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		p.set(true)
		p.wg.Wait()
	})
	return p
}

func (p *line) serve() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to)
		if err != nil {
			in.Close()
			continue
		}
		if !p.add(in, out) {
			continue
		}
		p.wg.Go(func() { p.pump(in, out) })
		p.wg.Go(func() { p.pump(out, in) })
	}
}

func (p *line) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.cut {
			c.Close()
			continue
		}
		p.conns[c] = true
	}
	return !p.cut
}

func (p *line) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		frozen := p.frozen
		p.mu.Unlock()
		if frozen != nil {
			<-frozen
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// freeze makes the line swallow everything while connections stand.
func (p *line) freeze() (thaw func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	frozen := make(chan struct{})
	p.frozen = frozen
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.frozen = nil
		close(frozen)
	}
}

// set cuts the line (every connection breaks, new ones break at once) or
// heals it.
func (p *line) set(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.conns {
			c.Close()
		}
		clear(p.conns)
	}
}

func TestBackboneServesNATSAndEtcd(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 1)
	p.start("unicom-backbone-1")
	feedtest.Eventually(t, "ready", p.ready("unicom-backbone-1"))
	feedtest.RunBroker(t, func(t *testing.T) feedtest.Harness {
		j := p.connect("unicom")
		feedtest.Eventually(t, "there is a fresh stream", func() bool {
			return j.Connected() && j.Remake(bounded(t), broker.Out("unicom")) == nil
		})
		const name = "unicom-backbone-1"
		start := func() { p.start(name) }
		stop := func() { p.kill(name) }
		return feedtest.Harness{Publisher: j, Follower: j, Carrier: "unicom", Stop: stop, Start: start, Wipe: func() {
			stop()
			feedtest.Remove(t, filepath.Join(p.dir, name, "nats"))
			start()
		}}
	})
	cli := p.etcd("unicom-backbone-1")
	if _, err := cli.Put(bounded(t), "k", "v"); err != nil {
		t.Fatal(err)
	}
	feedtest.Eventually(t, "ready after all that", p.ready("unicom-backbone-1"))
	checkHTTP(t, p)
}

func checkHTTP(t *testing.T, p *province) {
	t.Helper()
	proc, _ := p.topo.Find("unicom-backbone-1")
	get := func(path string) string {
		r, err := http.Get("http://" + proc.HTTP + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v %s", path, r.StatusCode, err, body)
		}
		return string(body)
	}
	get("/livez")
	if text := get("/readyz?verbose"); !strings.Contains(text, "nats") || !strings.Contains(text, "etcd") {
		t.Errorf("readyz: %s", text)
	}
	if text := get("/metrics"); !strings.Contains(text, `qianma_backbone_ready{part="etcd"} 1`) {
		t.Error("no metrics of readiness")
	}
	var s backbone.Status
	if err := json.Unmarshal([]byte(get("/v1/status")), &s); err != nil || s.Carrier != "unicom" || !s.NATS.Running || !s.Etcd.Ready {
		t.Errorf("status: %+v %v", s, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

// A client without a certificate of the province gets nowhere.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 1)
	p.start("unicom-backbone-1")
	proc, _ := p.topo.Find("unicom-backbone-1")
	j, err := broker.Connect(broker.Config{Carrier: "unicom", URLs: []string{"nats://" + proc.NATS}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + proc.Etcd}, DialTimeout: time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := cli.Get(ctx, "k"); err == nil {
		t.Error("etcd served a stranger")
	}
	if j.Connected() {
		t.Error("NATS served a stranger")
	}
}

// ledger is a feed across the line: the leader of unicom's ledger publishes,
// and mobile's ledger takes its facts in.
func ledger(t *testing.T, from, to feed.Broker) (source, sink *feedtest.Store, f *feed.Follower) {
	t.Helper()
	source, sink = feedtest.NewStore(), feedtest.NewStore()
	pub, err := feed.OpenPublisher(feed.PublisherConfig{Outbox: source, Broker: from, CallTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pub.Close() })
	// A topic of its own: what a suite left in the streams is not the source's.
	o := feedtest.Origin("unicom", 2, 1)
	f, err = feed.OpenFollower(feed.FollowerConfig{
		Topics: []feed.Topic{feed.TopicOf(o)}, Broker: to, Sink: sink,
		Sources: []feed.Peer{{Name: "unicom-ledger-1", Carrier: "unicom", Source: source}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	source.Lead(o, true)
	return source, sink, f
}

// lively waits until new facts arrive by the broker, not by pulling.
func lively(t *testing.T, source, sink *feedtest.Store, f *feed.Follower) {
	t.Helper()
	o, _ := source.Own()
	before := f.Status().FactsLive
	feedtest.Eventually(t, "facts arrive by the broker", func() bool {
		source.Grow(o, 5, 100)
		return f.Status().FactsLive > before
	})
	feedtest.Level(t, source, sink)
}

func TestTwoCarriers(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 1)
	p.start("unicom-backbone-1", "mobile-backbone-1")
	source, sink, f := ledger(t, p.connect("unicom"), p.connect("mobile"))
	lively(t, source, sink, f)
	o, _ := source.Own()
	grow := func() {
		for range 100 {
			source.Grow(o, 5, 100)
		}
		feedtest.Level(t, source, sink)
	}
	t.Run("the line is cut and heals", func(t *testing.T) {
		p.line.set(true)
		grow()
		p.line.set(false)
		lively(t, source, sink, f)
	})
	t.Run("the line swallows everything", func(t *testing.T) {
		before := p.open["mobile-backbone-1"].Status(bounded(t)).NATS.Restarts
		thaw := p.line.freeze()
		grow()
		quiet := func() bool { return p.open["mobile-backbone-1"].Status(bounded(t)).Links[0].QuietMS > 4000 }
		feedtest.Eventually(t, "the link is known to be quiet", quiet)
		if after := p.open["mobile-backbone-1"].Status(bounded(t)).NATS.Restarts; after != before {
			t.Error("a server was restarted for a line that was down")
		}
		thaw()
		lively(t, source, sink, f)
	})
	t.Run("the reader's backbone dies", func(t *testing.T) {
		p.kill("mobile-backbone-1")
		grow()
		p.start("mobile-backbone-1")
		lively(t, source, sink, f)
	})
	t.Run("the writer's backbone dies", func(t *testing.T) {
		p.kill("unicom-backbone-1")
		grow()
		p.start("unicom-backbone-1")
		lively(t, source, sink, f)
	})
	t.Run("a JetStream store is deleted under traffic", func(t *testing.T) {
		for _, name := range []string{"unicom-backbone-1", "mobile-backbone-1"} {
			grow()
			before := p.open[name].Status(bounded(t)).NATS.Restarts
			// At one stroke: the server shares this process, and one that makes a
			// stream while its directory is being emptied panics.
			gone := filepath.Join(feedtest.Dir(t), "gone")
			if err := os.Rename(filepath.Join(p.dir, name, "nats"), gone); err != nil {
				t.Fatal(err)
			}
			grow()
			feedtest.Eventually(t, "the server was started anew", func() bool { return p.open[name].Status(bounded(t)).NATS.Restarts > before })
			lively(t, source, sink, f)
		}
	})
	t.Run("a backbone comes back without its directory", func(t *testing.T) {
		p.kill("mobile-backbone-1")
		feedtest.Remove(t, filepath.Join(p.dir, "mobile-backbone-1"))
		p.start("mobile-backbone-1")
		feedtest.Eventually(t, "ready", p.ready("mobile-backbone-1"))
		lively(t, source, sink, f)
	})
	if n := f.Status().Divergences; n != 0 {
		t.Errorf("%d divergences", n)
	}
}

// The store of an etcd member is deleted while it runs: it comes back empty,
// and whoever registers there registers again.
func TestEtcdStoreIsDeleted(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 1)
	p.start("unicom-backbone-1")
	cli := p.etcd("unicom-backbone-1")
	if _, err := cli.Put(bounded(t), "before", "v"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "unicom-backbone-1", "etcd")); err != nil {
		t.Log(err)
	}
	feedtest.Eventually(t, "etcd is back and empty", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r, err := cli.Get(ctx, "before")
		return err == nil && r.Count == 0
	})
	if _, err := cli.Put(bounded(t), "after", "v"); err != nil {
		t.Fatal(err)
	}
}

// An etcd that cannot start yet does not keep NATS from serving, and is tried
// again until it can.
func TestEtcdThatCannotStartYet(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 1)
	const name = "unicom-backbone-1"
	inTheWay := filepath.Join(p.dir, name, "etcd")
	if err := os.MkdirAll(filepath.Dir(inTheWay), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start(name)
	j := p.connect("unicom")
	feedtest.Eventually(t, "NATS serves", j.Connected)
	if s := p.open[name].Status(bounded(t)); s.Etcd.Ready || s.Faults["etcd"] == "" {
		t.Errorf("status hides that etcd is away: %+v", s)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	feedtest.Eventually(t, "ready once nothing is in the way", p.ready(name))
}

// A rotated authority is taken up without an operator: clients of the new one
// are served by NATS at once and by etcd after it was started anew.
func TestRotatedAuthorityIsTakenUp(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 1)
	p.start("unicom-backbone-1")
	if err := p.auth.Rotate(); err != nil {
		t.Fatal(err)
	}
	p.config("unicom-backbone-1") // issues its certificate anew
	j, cli := p.connect("unicom"), p.etcd("unicom-backbone-1")
	feedtest.Eventually(t, "NATS serves clients of the new authority", j.Connected)
	feedtest.Eventually(t, "etcd serves clients of the new authority", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := cli.Put(ctx, "k", "v")
		return err == nil
	})
}

// Three backbones at each carrier: any one may die, and one that lost its
// directory joins again as a new member.
func TestThreeMembers(t *testing.T) {
	t.Parallel()
	p := newProvince(t, 3)
	// A cluster heals itself given time; the watchdog must not be in its way.
	p.tuned = func(c *backbone.Config) { c.QuietMax, c.ActAfter = 15*time.Second, 20*time.Second }
	var unicom []string
	for _, proc := range p.topo.Select("unicom", "") {
		unicom = append(unicom, proc.Name)
	}
	p.start(unicom...)
	for _, name := range unicom {
		feedtest.Eventually(t, name+" is ready", p.ready(name))
	}
	p.start("mobile-backbone-1", "mobile-backbone-2", "mobile-backbone-3")
	cli := p.etcd(unicom...)
	put := func(key string) bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := cli.Put(ctx, key, "v")
		return err == nil
	}
	feedtest.Eventually(t, "etcd takes writes", func() bool { return put("a") })
	source, sink, f := ledger(t, p.connect("unicom"), p.connect("mobile"))
	lively(t, source, sink, f)
	for i, name := range unicom[1:] {
		p.kill(name)
		feedtest.Eventually(t, "etcd takes writes without "+name, func() bool { return put("b") })
		lively(t, source, sink, f)
		if i == 0 {
			feedtest.Remove(t, filepath.Join(p.dir, name))
		}
		p.start(name)
		feedtest.Eventually(t, name+" is back and level", func() bool { return p.ready(name)() && whole(p.open[name].Status(bounded(t))) })
	}
	if r, err := cli.MemberList(bounded(t)); err != nil || len(r.Members) != 3 {
		t.Errorf("members: %v %v", r, err)
	}
}

// whole says whether every stream has all its copies up to date.
func whole(s backbone.Status) bool {
	for _, one := range s.NATS.Streams {
		if one.Current < one.Copies {
			return false
		}
	}
	return len(s.NATS.Streams) == 2
}
