package nucleic_test

import (
	"crypto/sha256"
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
	"qianma/cluster/node"
	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
	"qianma/nucleic"
)

// patience is how long what must come may take. It costs nothing where it comes.
const patience = 2 * time.Minute

// province is the subsystem at two carriers in one process, over real TCP,
// raft and files; there is no broker, so facts are pulled.
type province struct {
	t        *testing.T
	top      *topology.Topology
	services map[string]*nucleic.Service
	client   *http.Client
}

func newProvince(t *testing.T) *province {
	t.Helper()
	t.Cleanup(func() { leaktest.None(t) })
	p := &province{t: t, services: map[string]*nucleic.Service{}, client: &http.Client{Timeout: patience, Transport: &http.Transport{}}}
	p.top = &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}
	for carrier, nodes := range map[string]int{"unicom": 3, "mobile": 1} {
		for i := 1; i <= nodes; i++ {
			p.top.Processes = append(p.top.Processes, topology.Process{
				Name: fmt.Sprintf("%s-nucleic-%d", carrier, i), Carrier: carrier, Subsystem: "nucleic", Ordinal: i, Node: free(t), HTTP: free(t),
			})
		}
	}
	dir := t.TempDir()
	must(t, p.top.Save(filepath.Join(dir, "topology.json")))
	must(t, identity.NewKey(filepath.Join(dir, nucleic.PersonKey)))
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		for name, s := range maps.Clone(p.services) {
			if err := s.Close(); err != nil {
				t.Errorf("closing %s: %v", name, err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("closing %s twice: %v", name, err)
			}
		}
	})
	for _, proc := range p.top.Processes {
		cfg := node.Config{
			Name: proc.Name, Carrier: proc.Carrier, Subsystem: "nucleic", Dir: filepath.Join(dir, proc.Name), Listen: proc.Node, HTTP: proc.HTTP,
			Topology: filepath.Join(dir, "topology.json"), Secrets: dir, Insecure: true, LogLevel: "error",
		}
		s, err := nucleic.Open(cfg)
		must(t, err)
		p.services[proc.Name] = s
	}
	return p
}

// notYet tells an answer that will be another one in a moment, from a group that
// has no leader yet or a process that has too little of a busy machine.
func notYet(status int) bool { return status >= 500 || status == http.StatusTooManyRequests }

// ask sends a request until it is answered by something other than "not yet":
// a group that has just been born has no leader for a moment.
func (p *province) ask(process, method, path, body string) (int, string) {
	p.t.Helper()
	proc, _ := p.top.Find(process)
	deadline := time.Now().Add(patience)
	for {
		r, err := http.NewRequest(method, "http://"+proc.HTTP+path, strings.NewReader(body))
		must(p.t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", fmt.Sprintf("%x", sha256.Sum256([]byte(method+path+body))))
		answer, err := p.client.Do(r)
		must(p.t, err)
		raw, err := io.ReadAll(answer.Body)
		must(p.t, err)
		must(p.t, answer.Body.Close())
		if !notYet(answer.StatusCode) || time.Now().After(deadline) {
			return answer.StatusCode, string(raw)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (p *province) ok(process, method, path, body string) string {
	p.t.Helper()
	status, raw := p.ask(process, method, path, body)
	if status != http.StatusOK {
		p.t.Fatalf("%s: %s %s: %d %s", process, method, path, status, raw)
	}
	return raw
}

// replicate writes, and asks again under the same key, until the other carrier
// has it too.
func (p *province) replicate(process, path, body string) string {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		raw := p.ok(process, "POST", path+"?ack=replicated&wait=30s", body)
		if !strings.Contains(raw, `"level":"committed"`) || time.Now().After(deadline) {
			return raw
		}
	}
}

// fresh reads until the answer does not call itself stale: a node that cannot
// hear its leader in time shows what it holds, and says so.
func (p *province) fresh(process, path string) (raw string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		raw = p.ok(process, "GET", path, "")
		if strings.Contains(raw, `"stale":false`) || time.Now().After(deadline) {
			return raw
		}
		<-time.After(50 * time.Millisecond)
	}
}

// Registrations through one carrier and results through the other, each at a
// node that need not lead, end in the same tube at both.
func TestRegistrationsAtOneCarrierResultsAtTheOther(t *testing.T) {
	p := newProvince(t)
	now := time.Now().UTC()
	at := func(d time.Duration) string { return now.Add(d).Format(time.RFC3339) }
	for i := 1; i <= 3; i++ {
		raw := p.replicate(fmt.Sprintf("unicom-nucleic-%d", i), "/v1/registrations", fmt.Sprintf(
			`{"tube":"52010012345678","pool":"5","site":"GY-1","sampled_at":%q,"document":{"kind":"passport","number":"P000000%d","country":"GBR"}}`, at(-3*time.Hour), i))
		if !strings.Contains(raw, `"level":"replicated"`) {
			t.Fatalf("%s", raw)
		}
	}
	raw := p.replicate("mobile-nucleic-1", "/v1/results", fmt.Sprintf(
		`{"tube":"52010012345678","lab":"lab-1","outcome":"negative","tested_at":%q,"reported_at":%q}`, at(-2*time.Hour), at(-time.Hour)))
	if !strings.Contains(raw, `"level":"replicated"`) {
		t.Fatalf("%s", raw)
	}
	var first string
	for _, process := range []string{"unicom-nucleic-1", "unicom-nucleic-2", "unicom-nucleic-3", "mobile-nucleic-1"} {
		tube := map[string]any{}
		must(t, json.Unmarshal([]byte(p.fresh(process, "/v1/tubes/52010012345678")), &tube))
		delete(tube, "as_of") // each carrier's own time
		got, err := json.Marshal(tube)
		must(t, err)
		if first == "" {
			first = string(got)
		}
		if string(got) != first || tube["outcome"] != "negative" || len(tube["members"].([]any)) != 3 {
			t.Errorf("%s holds\n%s\nwant\n%s", process, got, first)
		}
	}
}

func TestOpenNeedsTheProvincesSecret(t *testing.T) {
	_, err := nucleic.Open(node.Config{Name: "unicom-nucleic-1", Secrets: t.TempDir()})
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("opened without a key: %v", err)
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
