package display_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/leaktest"
	"qianma/cluster/mux"
	"qianma/cluster/node"
	"qianma/cluster/rpc"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
	"qianma/display"
	"qianma/display/api"
	"qianma/display/token"
	"qianma/display/vault"
	pb "qianma/middle-store/middlestorepb"
)

// patience is how long what must come may take. It costs nothing where it comes.
const patience = 2 * time.Minute

// province is display at two carriers in one process, over real TCP, raft and
// files, with a middle store played over real RPC; there is no broker, so
// facts are pulled.
type province struct {
	t        *testing.T
	dir      string
	top      *topology.Topology
	services map[string]*display.Service
	client   *http.Client
}

var nodes = map[string]int{"unicom": 3, "mobile": 1}

func newProvince(t *testing.T) *province {
	t.Helper()
	t.Cleanup(func() { leaktest.None(t) })
	p := &province{t: t, dir: t.TempDir(), services: map[string]*display.Service{}, client: &http.Client{Timeout: patience, Transport: &http.Transport{}}}
	p.top = &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}
	for carrier, n := range nodes {
		for i := 1; i <= n; i++ {
			p.add(fmt.Sprintf("%s-display-%d", carrier, i), carrier, "display", i)
		}
		p.add(carrier+"-middlestore-1", carrier, "middlestore", 1)
		must(t, token.GenerateKey(p.dir, carrier, time.Now().Add(-time.Hour), 24*time.Hour))
	}
	must(t, p.top.Save(filepath.Join(p.dir, "topology.json")))
	must(t, identity.NewKey(filepath.Join(p.dir, display.PersonKey)))
	must(t, identity.NewKey(filepath.Join(p.dir, vault.KeyFile)))
	t.Cleanup(p.close)
	return p
}

func (p *province) add(name, carrier, subsystem string, i int) {
	p.top.Processes = append(p.top.Processes, topology.Process{
		Name: name, Carrier: carrier, Subsystem: subsystem, Ordinal: i, Node: free(p.t), HTTP: free(p.t),
	})
}

func (p *province) close() {
	p.client.CloseIdleConnections()
	for name, s := range maps.Clone(p.services) {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			p.t.Errorf("closing %s: %v", name, err)
		}
	}
}

// open starts the display processes of a carrier.
func (p *province) open(carrier string) {
	p.t.Helper()
	for _, proc := range p.top.Select(carrier, "display") {
		s, err := display.Open(node.Config{
			Name: proc.Name, Carrier: proc.Carrier, Subsystem: "display", Dir: filepath.Join(p.dir, proc.Name), Listen: proc.Node, HTTP: proc.HTTP,
			Topology: filepath.Join(p.dir, "topology.json"), Secrets: p.dir, Insecure: true, LogLevel: "error",
		})
		must(p.t, err)
		p.services[proc.Name] = s
	}
}

// middleStore plays a middle store over real RPC until it is stopped.
func (p *province) middleStore(name string) (stop func()) {
	p.t.Helper()
	proc, _ := p.top.Find(name)
	m, err := mux.Listen(proc.Node, nil)
	must(p.t, err)
	server := rpc.NewServer(rpc.ServerConfig{})
	server.Handle(pb.MethodLookup, func(_ context.Context, raw []byte) ([]byte, error) {
		var req pb.LookupRequest
		if err := req.Decode(raw); err != nil {
			return nil, err
		}
		now := time.Now().UnixMilli()
		resp := pb.LookupResponse{Marks: pb.Marks{{Origin: 1, Seq: 1}}, AnsweredAt: now, ServedBy: name}
		for carrier := range nodes {
			resp.Freshness = append(resp.Freshness, pb.Freshness{Carrier: carrier, Subsystem: "nucleic", AsOf: now})
		}
		for range req.Persons {
			resp.Persons = append(resp.Persons, pb.Person{Tubes: []pb.Tube{{Pool: 1, SampledAt: now - 3600_000, Outcome: pb.OutcomeNegative}}})
		}
		return resp.Append(nil), nil
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(m.RPC()) }()
	return func() {
		if err := errors.Join(server.Close(), m.Close()); err != nil {
			p.t.Error(err)
		}
		<-served
	}
}

// ask sends a request until it is answered by something other than "not yet".
func (p *province) ask(process, method, path, body string) string {
	p.t.Helper()
	proc, _ := p.top.Find(process)
	for deadline := time.Now().Add(patience); ; {
		r, err := http.NewRequest(method, "http://"+proc.HTTP+path, strings.NewReader(body))
		must(p.t, err)
		r.Header.Set("Content-Type", "application/json")
		answer, err := p.client.Do(r)
		must(p.t, err)
		raw, err := io.ReadAll(answer.Body)
		must(p.t, errors.Join(err, answer.Body.Close()))
		switch {
		case answer.StatusCode == http.StatusOK:
			return string(raw)
		case answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests || time.Now().After(deadline):
			p.t.Fatalf("%s: %s %s: %d %s", process, method, path, answer.StatusCode, raw)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// show reads a code until it satisfies, or gives up and returns the last.
func (p *province) show(process string, person identity.Person, ok func(api.Answer) bool) (a api.Answer) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		a = api.Answer{}
		must(p.t, json.Unmarshal([]byte(p.ask(process, "GET", "/v1/code?person="+person.String(), "")), &a))
		if ok(a) || time.Now().After(deadline) {
			return a
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A restriction imposed at one carrier shows at both; tokens of either verify
// at the other; and when every middle store and every other display process is
// gone, the last one still shows the code, and says so.
func TestCodeFromBothCarriersDownToTheLastProcess(t *testing.T) {
	p := newProvince(t)
	stopUnicom, stopMobile := p.middleStore("unicom-middlestore-1"), p.middleStore("mobile-middlestore-1")
	p.open("unicom")
	p.open("mobile")
	person := identity.Person{1, 2, 3}
	green := func(a api.Answer) bool {
		return a.Colour == "green" && a.Data.Source == "middle_store" && !a.Data.Stale
	}
	for name := range p.services {
		if a := p.show(name, person, green); !green(a) {
			t.Fatalf("%s: %+v", name, a)
		}
	}
	p.ask("unicom-display-2", "POST", "/v1/restrictions?ack=replicated&wait=30s", fmt.Sprintf(
		`{"person":%q,"reason":"close_contact","evidence":"case 17","operator":"n17","approver":"n18","source":"520103"}`, person))
	red := func(a api.Answer) bool { return a.Colour == "red" }
	for name := range p.services {
		a := p.show(name, person, red)
		if !red(a) || a.Reasons[0].Code != "close_contact" {
			t.Fatalf("%s: %+v", name, a)
		}
		other := "mobile-display-1"
		if strings.HasPrefix(name, "mobile") {
			other = "unicom-display-3"
		}
		if raw := p.ask(other, "POST", "/v1/verify", fmt.Sprintf(`{"token":%q}`, a.Token)); !strings.Contains(raw, `"valid":true`) {
			t.Fatalf("%s about a token of %s: %s", other, name, raw)
		}
	}
	stopUnicom()
	if a := p.show("unicom-display-1", person, func(a api.Answer) bool { return a.Data.Source == "other_carrier" }); a.Data.Source != "other_carrier" {
		t.Fatalf("%+v", a.Data)
	}
	stopMobile()
	for _, name := range []string{"mobile-display-1", "unicom-display-2", "unicom-display-3"} {
		must(t, p.services[name].Close())
	}
	a := p.show("unicom-display-1", person, func(a api.Answer) bool { return a.Data.Source == "last_known" })
	if a.Colour != "red" || a.Data.Source != "last_known" || a.Token == "" {
		t.Fatalf("%+v", a)
	}
}

func TestOpenNeedsTheProvincesSecrets(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{display.PersonKey, vault.KeyFile} {
		if _, err := display.Open(node.Config{Name: "unicom-display-1", Carrier: "unicom", Secrets: dir}); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("opened without %s: %v", name, err)
		}
		must(t, identity.NewKey(filepath.Join(dir, name)))
	}
	if _, err := display.Open(node.Config{Name: "unicom-display-1", Carrier: "unicom", Secrets: dir}); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("opened without token keys: %v", err)
	}
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
