package backbone_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/cluster/broker"
	"qianma/cluster/feed/feedtest"
	"qianma/cluster/pki"
	"qianma/cluster/registry"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
)

// Goal: nothing in broker, feed and registry depends on the servers being our
// embedded ones. Method: build nats-server and etcd from the modules we
// depend on anyway, run them as processes configured by hand as an operator
// would (two carriers, mutual TLS, a leaf link), and put the same code over
// them.
func TestServersOfOthers(t *testing.T) {
	t.Parallel()
	o := newOutside(t)
	for _, carrier := range o.topo.Carriers {
		o.nats(carrier)
	}
	o.etcd("unicom")

	t.Run("feed", func(t *testing.T) {
		feedtest.RunBroker(t, func(t *testing.T) feedtest.Harness {
			j := o.connect(t, "unicom")
			feedtest.Eventually(t, "the streams are made by whoever needs them", func() bool {
				return j.Connected() && j.Remake(bounded(t), broker.Out("unicom")) == nil
			})
			start := func() { o.nats("unicom") }
			stop := func() { o.kill("unicom-nats") }
			return feedtest.Harness{Publisher: j, Follower: j, Carrier: "unicom", Stop: stop, Start: start, Wipe: func() {
				stop()
				feedtest.Remove(t, filepath.Join(o.dir, "unicom-nats"))
				start()
			}}
		})
	})
	t.Run("feed across the line, a server killed", o.acrossTheLine)
	t.Run("registry, etcd killed", o.registry)
}

// outside is two carriers' servers as processes.
type outside struct {
	t         *testing.T
	dir       string
	bin       map[string]string
	topo      *topology.Topology
	auth      *pki.Authority
	processes map[string]*exec.Cmd
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{t: t, dir: feedtest.Dir(t), processes: map[string]*exec.Cmd{}, topo: &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}}
	o.bin = map[string]string{
		"nats-server": build(t, o.dir, "nats-server", "github.com/nats-io/nats-server/v2"),
		"etcd":        build(t, o.dir, "etcd", "go.etcd.io/etcd/server/v3"),
	}
	ports := topologytest.Addrs(t, 8)
	for i, c := range o.topo.Carriers {
		o.topo.Processes = append(o.topo.Processes, topology.Process{
			Name: c + "-servers", Carrier: c, Subsystem: "servers", NATS: ports[4*i], Leaf: ports[4*i+1], Etcd: ports[4*i+2], EtcdPeer: ports[4*i+3],
		})
	}
	var err error
	if o.auth, err = pki.NewAuthority(filepath.Join(o.dir, "ca")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for name := range o.processes {
			o.kill(name)
		}
	})
	return o
}

// build builds a server's own main package at the version we depend on. A
// copy of go.mod takes up what only that main package needs, so that ours does
// not have to. Only where this cannot be done may the test be left out, and
// never where everything must be tested.
func build(t *testing.T, dir, name, pkg string) string {
	t.Helper()
	path, out, err := filepath.Join(dir, name), []byte(nil), error(nil)
	for _, file := range []string{"go.mod", "go.sum"} {
		raw, readErr := os.ReadFile(filepath.Join("..", "..", file))
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(dir, file), raw, 0o600))
	}
	if err == nil {
		out, err = exec.Command("go", "build", "-mod=mod", "-modfile="+filepath.Join(dir, "go.mod"), "-o", path, pkg).CombinedOutput()
	}
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("%s cannot be built here: %v\n%s", name, err, out)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return path
}

func (o *outside) process(carrier string) topology.Process {
	p, _ := o.topo.Find(carrier + "-servers")
	return p
}

func (o *outside) files(name string) pki.Files {
	o.t.Helper()
	f, err := o.auth.Issue(filepath.Join(o.dir, "pki"), name, "127.0.0.1")
	if err != nil {
		o.t.Fatal(err)
	}
	return f
}

func (o *outside) run(name, bin string, args ...string) {
	o.t.Helper()
	cmd := exec.Command(o.bin[bin], args...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.processes[name] = cmd
	o.t.Cleanup(func() {
		if o.t.Failed() {
			o.t.Logf("%s:\n%s", name, log.String())
		}
	})
}

func (o *outside) kill(name string) {
	cmd := o.processes[name]
	delete(o.processes, name)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

const natsConf = `server_name: %[1]s
listen: %[2]q
jetstream { store_dir: %[3]q, domain: %[4]s, max_file_store: 256MB, max_memory_store: 32MB, sync_interval: always }
max_payload: 2MB
ping_interval: 5s
tls { %[5]s }
leafnodes { %[6]s }
`

// nats runs a carrier's nats-server. unicom takes leaf connections and mobile
// dials, as our own backbones do.
func (o *outside) nats(carrier string) {
	p, f := o.process(carrier), o.files(carrier+"-nats")
	tls := fmt.Sprintf("cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 5", f.Cert, f.Key, f.CA)
	leaf := fmt.Sprintf("listen: %q, tls { %s }", p.Leaf, tls)
	if carrier == "mobile" {
		leaf = fmt.Sprintf("reconnect: 1s, remotes: [ { url: %q, tls { %s } } ]", "tls://"+o.process("unicom").Leaf, tls)
	}
	conf := filepath.Join(o.dir, carrier+".conf")
	text := fmt.Sprintf(natsConf, p.Name, p.NATS, filepath.Join(o.dir, carrier+"-nats"), carrier, tls, leaf)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	o.run(carrier+"-nats", "nats-server", "-c", conf)
}

func (o *outside) etcd(carrier string) {
	p, f := o.process(carrier), o.files(carrier+"-etcd")
	o.run(carrier+"-etcd", "etcd", "--name", p.Name, "--data-dir", filepath.Join(o.dir, carrier+"-etcd"),
		"--listen-client-urls", "https://"+p.Etcd, "--advertise-client-urls", "https://"+p.Etcd,
		"--listen-peer-urls", "https://"+p.EtcdPeer, "--initial-advertise-peer-urls", "https://"+p.EtcdPeer,
		"--initial-cluster", p.Name+"=https://"+p.EtcdPeer,
		"--cert-file", f.Cert, "--key-file", f.Key, "--trusted-ca-file", f.CA, "--client-cert-auth",
		"--peer-cert-file", f.Cert, "--peer-key-file", f.Key, "--peer-trusted-ca-file", f.CA, "--peer-client-cert-auth",
		"--log-level", "warn")
}

func (o *outside) connect(t *testing.T, carrier string) *broker.JetStream {
	t.Helper()
	conf, err := pki.Client(o.files(carrier + "-ledger-1"))
	if err != nil {
		t.Fatal(err)
	}
	j, err := broker.Connect(broker.Config{
		Name: carrier + "-ledger-1", Carrier: carrier, Others: o.topo.Others(carrier),
		URLs: []string{"tls://" + o.process(carrier).NATS}, TLS: conf, MaxBytes: 32 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	tended(t, j)
	return j
}

// tended keeps the road as a node does that has no backbone of ours.
func tended(t *testing.T, j *broker.JetStream) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	k := j.Keeper(broker.KeeperConfig{QuietMax: 4 * time.Second, ActAfter: 5 * time.Second})
	wg.Go(func() {
		for tick := time.Tick(time.Second); ctx.Err() == nil; {
			_ = k.Keep(ctx) // what it cannot do now it does next time
			select {
			case <-tick:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func (o *outside) acrossTheLine(t *testing.T) {
	source, sink, f := ledger(t, o.connect(t, "unicom"), o.connect(t, "mobile"))
	lively(t, source, sink, f)
	for _, carrier := range o.topo.Carriers {
		o.kill(carrier + "-nats")
		origin, _ := source.Own()
		source.Grow(origin, 5, 100)
		feedtest.Level(t, source, sink)
		o.nats(carrier)
		lively(t, source, sink, f)
	}
}

func (o *outside) registry(t *testing.T) {
	open := func(name string) *registry.Registry {
		conf, err := pki.Client(o.files(name))
		if err != nil {
			t.Fatal(err)
		}
		r, err := registry.Open(registry.Config{
			Carrier: "unicom", Name: name, Topology: o.topo, Endpoints: []string{"https://" + o.process("unicom").Etcd}, TLS: conf,
			TTL: 2 * time.Second, CallTimeout: 5 * time.Second, RetryMax: 300 * time.Millisecond, RelistEvery: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	a, b := open("unicom-ledger-1"), open("unicom-ledger-2")
	a.Register(topology.Process{Name: "unicom-ledger-1", Carrier: "unicom", Subsystem: "ledger", Node: "10.1.0.1:1"})
	seen := func() bool { addr, err := b.Resolve("unicom-ledger-1"); return err == nil && addr == "10.1.0.1:1" }
	feedtest.Eventually(t, "the other is seen", seen)
	l, err := a.Lock(bounded(t), "drill", 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	o.kill("unicom-etcd")
	feedtest.Eventually(t, "the outage is noticed", func() bool { return !b.Up() })
	if !seen() {
		t.Error("an outage of etcd took a process away")
	}
	o.etcd("unicom")
	feedtest.Eventually(t, "registered again", func() bool { return b.Up() && b.Live("unicom-ledger-1") })
	feedtest.Eventually(t, "pointers can be put", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := b.Put(ctx, "rules", []byte("v1"), registry.Newest)
		return err == nil
	})
}
