package province

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/cluster/pki"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
	"qianma/display/token"
)

func nothingRuns(map[string]string) (map[string]bool, error) { return nil, nil }

func open(t *testing.T, dir string, w Wish) *Home {
	t.Helper()
	h, err := OpenHome(dir, w, nothingRuns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// files reads everything under dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		m[path] = string(raw)
		return err
	}))
	return m
}

// turns is how often a test that gives ports up for a moment is tried: a province
// that is brought up beside it may take them meanwhile.
const turns = 10

func TestOpeningAgainChangesNothing(t *testing.T) {
	for range turns {
		dir := t.TempDir()
		h := open(t, dir, Wish{})
		for _, p := range h.Topology.Processes {
			must(t, h.Prepare(p))
		}
		before := files(t, dir)
		must(t, h.Close())
		must(t, h.Close())
		if h = open(t, dir, Wish{}); h.Moved {
			continue
		}
		for _, p := range h.Topology.Processes {
			must(t, h.Prepare(p))
		}
		for path, now := range files(t, dir) {
			if before[path] != now {
				t.Errorf("%s changed", path)
			}
		}
		return
	}
	t.Error("moved although nobody took the ports")
}

func TestOnlyOneHasAHomeOpen(t *testing.T) {
	h := open(t, t.TempDir(), Wish{})
	_, err := OpenHome(string(h.Layout), Wish{}, nothingRuns)
	if !problem.Is(err, AlreadyRuns) || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("second opening: %v", err)
	}
}

// A process is known by the name of its configuration: another way to the same
// directory must lead to the same name.
func TestASymlinkLeadsToTheSameHome(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, other))
	one, err := At(dir)
	must(t, err)
	if h := open(t, other, Wish{}); h.Layout != one {
		t.Errorf("through a link the home is %s, else %s", h.Layout, one)
	}
}

func TestAPlanIsFixed(t *testing.T) {
	dir := t.TempDir()
	must(t, open(t, dir, Wish{Shards: map[string]int{"nucleic": 2}}).Close())
	for name, w := range map[string]Wish{
		"shards":   {Shards: map[string]int{"nucleic": 1}},
		"backbone": {Backbone: 3},
		"insecure": {Insecure: true},
		"links":    {Links: Proxied},
		"name":     {Name: "yunnan"},
		"nats":     {NATS: map[string][]string{"unicom": {"nats://h:1"}}},
	} {
		if h, err := OpenHome(dir, w, nothingRuns); !problem.Is(err, problem.Invalid) {
			t.Errorf("another %s was taken: %v", name, err)
			if h != nil {
				h.Close()
			}
		}
	}
	must(t, open(t, dir, Wish{Shards: map[string]int{"nucleic": 2, "vaccine": 1}}).Close())
}

func TestEveryProcessHasItsOwnPorts(t *testing.T) {
	for _, w := range []Wish{{}, {Backbone: 3}, {Backbone: 3, Links: Proxied}, {Links: Proxied}} {
		h := open(t, t.TempDir(), w)
		seen := map[string]string{}
		take := func(name, addr string) {
			if seen[addr] != "" {
				t.Errorf("%s and %s share %s", name, seen[addr], addr)
			}
			seen[addr] = name
			var port int
			_, p, _ := net.SplitHostPort(addr)
			fmt.Sscan(p, &port)
			if port < h.block.First || port >= h.block.First+blockSize {
				t.Errorf("%s: %s lies outside the block", name, addr)
			}
		}
		for _, p := range h.Topology.Processes {
			for _, addr := range addresses(p) {
				take(p.Name, addr)
			}
		}
		if h.links != nil {
			for _, l := range h.links.Links {
				take("link to "+l.To, l.Listen)
			}
		}
		must(t, h.Close())
	}
}

func TestAClaimedBlockIsLeftAlone(t *testing.T) {
	one := open(t, t.TempDir(), Wish{})
	if _, err := claim(one.block.First); !errors.Is(err, errClaimed) {
		t.Errorf("a claimed block was claimed again: %v", err)
	}
	var b *Block
	var err error
	for range turns {
		must(t, one.Close())
		if b, err = claim(one.block.First); err == nil {
			break
		}
		one = open(t, t.TempDir(), Wish{})
	}
	if err != nil {
		t.Fatalf("a block given up cannot be claimed: %v", err)
	}
	defer b.Close()
	// Somebody has the block now: the province moves, and says so.
	again := open(t, string(one.Layout), Wish{})
	if !again.Moved || again.block.First == b.First {
		t.Error("did not move off a claimed block")
	}
}

// A port taken by a stranger while other parts still run cannot be moved away
// from: those that run would not find the rest.
func TestAStrangerAmongRunningProcessesIsRefused(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir, Wish{})
	must(t, h.Close())
	if l, err := net.Listen("tcp", h.Topology.Processes[3].HTTP); err == nil { // else somebody has it, and is the stranger
		defer l.Close()
	}
	one := func(map[string]string) (map[string]bool, error) {
		return map[string]bool{h.Topology.Processes[0].Name: true}, nil
	}
	if _, err := OpenHome(dir, Wish{}, one); !problem.Is(err, problem.Unavailable) {
		t.Errorf("got %v", err)
	}
	all := func(configs map[string]string) (map[string]bool, error) {
		m := map[string]bool{}
		for _, name := range configs {
			m[name] = true
		}
		return m, nil
	}
	// The same port, held by our own process, is no stranger.
	again, err := OpenHome(dir, Wish{}, all)
	must(t, err)
	defer again.Close()
	if again.Moved {
		t.Error("moved away from its own processes")
	}
}

func TestADeletedProcessKeepsItsAuthority(t *testing.T) {
	h := open(t, t.TempDir(), Wish{})
	p := h.Topology.Processes[0]
	must(t, h.Prepare(p))
	before := files(t, h.Process(p))
	must(t, os.RemoveAll(filepath.Dir(h.Process(p))))
	must(t, h.Prepare(p))
	after := files(t, h.Process(p))
	if after[h.Config(p)] != before[h.Config(p)] {
		t.Error("the configuration changed")
	}
	cert := pki.Files{CA: filepath.Join(h.CA(), "ca.pem"), Cert: filepath.Join(h.Process(p), "tls", p.Name+".pem"), Key: filepath.Join(h.Process(p), "tls", p.Name+".key")}
	if !serves(cert, "127.0.0.1") {
		t.Error("the new certificate is not the province's")
	}
	if serves(cert, "10.1.2.3") {
		t.Error("the certificate counts for any host")
	}
}

func TestACertificateNearItsEndIsReplaced(t *testing.T) {
	h := open(t, t.TempDir(), Wish{})
	h.authority.Life = renewBefore - time.Hour
	p := h.Topology.Processes[0]
	must(t, h.Prepare(p))
	path := filepath.Join(h.Process(p), "tls", p.Name+".pem")
	old, err := os.ReadFile(path)
	must(t, err)
	h.authority.Life = 0
	must(t, h.Prepare(p))
	if now, _ := os.ReadFile(path); string(now) == string(old) {
		t.Error("a certificate about to end was kept")
	}
}

func TestSecretsOutliveCarriersAndAreSecret(t *testing.T) {
	h := open(t, t.TempDir(), Wish{})
	for _, name := range []string{"person.key", "contact.key", token.PrivateFile("unicom"), token.PrivateFile("mobile")} {
		info, err := os.Stat(filepath.Join(h.Secrets(), name))
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	info, err := os.Stat(h.Secrets())
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("secrets have mode %v", info.Mode())
	}
}

func TestExternalServersReplaceBackbones(t *testing.T) {
	both := func(s string) map[string][]string {
		return map[string][]string{"unicom": {s + "://u:1"}, "mobile": {s + "://m:1"}}
	}
	h := open(t, t.TempDir(), Wish{NATS: both("nats"), Etcd: both("http")})
	if n := len(h.Topology.Select("", "backbone")); n != 0 {
		t.Errorf("%d backbones beside somebody else's servers", n)
	}
	p := h.Topology.Select("mobile", "nucleic")[0]
	must(t, h.Prepare(p))
	c := read(t, h, p)
	if !slices.Equal(c.NATS, []string{"nats://m:1"}) || !slices.Equal(c.Etcd, []string{"http://m:1"}) {
		t.Errorf("configuration %+v", c)
	}
}

func read(t *testing.T, h *Home, p topology.Process) config {
	t.Helper()
	raw, err := os.ReadFile(h.Config(p))
	must(t, err)
	var c config
	must(t, json.Unmarshal(raw, &c))
	return c
}

func TestProxiedLinksStandBetweenAllProcesses(t *testing.T) {
	h := open(t, t.TempDir(), Wish{Links: Proxied})
	targets := map[string]bool{}
	for _, p := range h.Topology.Processes {
		targets[p.Node], targets[p.NATS], targets[p.Leaf], targets[p.Etcd] = true, true, true, true
	}
	callers := map[string]bool{}
	for _, p := range h.Topology.Processes {
		must(t, h.Prepare(p))
		c := read(t, h, p)
		for name, addr := range c.Via {
			if targets[addr] {
				t.Errorf("%s reaches %s directly", p.Name, name)
			}
		}
		if len(c.Via) != len(h.Topology.Processes)-1 || callers[c.DialFrom] || c.DialFrom == "" {
			t.Errorf("%s: %d links, dials from %q", p.Name, len(c.Via), c.DialFrom)
		}
		callers[c.DialFrom] = true
		for _, url := range append(c.NATS, c.Etcd...) {
			if _, addr, _ := strings.Cut(url, "://"); targets[addr] {
				t.Errorf("%s reaches %s directly", p.Name, url)
			}
		}
	}
}

func TestFind(t *testing.T) {
	h := open(t, t.TempDir(), Wish{})
	ctx := context.Background()
	byDir, err := Flags{Data: string(h.Layout)}.Find(ctx)
	must(t, err)
	byFile, err := Flags{Data: "/nowhere", Endpoints: h.Endpoints()}.Find(ctx)
	must(t, err)
	for _, p := range []*Province{byDir, byFile} {
		if p.Name != "guizhou" || len(p.URLs("mobile", "display")) != 3 || len(p.URLs("", "middlestore")) != 4 {
			t.Errorf("found %+v", p)
		}
		if !slices.Equal(p.Names(), Carriers) {
			t.Errorf("carriers %v", p.Names())
		}
	}
	if _, err := Find(t.TempDir()); !problem.Is(err, problem.NotFound) {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestFindByURL(t *testing.T) {
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"process":"mobile-display-2","origins":{}}`)
	}))
	defer daemon.Close()
	p, err := Flags{Endpoint: []string{"unicom/nucleic=http://h:1/", daemon.URL}}.Find(context.Background())
	must(t, err)
	if got := p.URLs("unicom", "nucleic"); !slices.Equal(got, []string{"http://h:1"}) {
		t.Errorf("named endpoint: %v", got)
	}
	if got := p.URLs("mobile", "display"); !slices.Equal(got, []string{daemon.URL}) {
		t.Errorf("asked endpoint: %v", got)
	}
	for _, bad := range []string{"nowhere/nothing=http://h:1", "http://127.0.0.1:1"} {
		if _, err := (Flags{Endpoint: []string{bad}}).Find(context.Background()); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
