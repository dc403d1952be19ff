package vaccine_test

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
	"qianma/vaccine"
)

// patience is how long what must come may take. It costs nothing where it comes.
const patience = 2 * time.Minute

// province is the subsystem at two carriers in one process, over real TCP,
// raft and files; there is no broker, so facts are pulled.
type province struct {
	t        *testing.T
	top      *topology.Topology
	services map[string]*vaccine.Service
	client   *http.Client
}

func newProvince(t *testing.T, shards int) *province {
	t.Helper()
	t.Cleanup(func() { leaktest.None(t) })
	p := &province{t: t, services: map[string]*vaccine.Service{}, client: &http.Client{Timeout: patience, Transport: &http.Transport{}}}
	p.top = &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}, Shards: map[string]int{"vaccine": shards}}
	for carrier, nodes := range map[string]int{"unicom": 3, "mobile": 1} {
		for i := 1; i <= nodes; i++ {
			p.top.Processes = append(p.top.Processes, topology.Process{
				Name: fmt.Sprintf("%s-vaccine-%d", carrier, i), Carrier: carrier, Subsystem: "vaccine", Ordinal: i, Node: free(t), HTTP: free(t),
			})
		}
	}
	dir := t.TempDir()
	must(t, p.top.Save(filepath.Join(dir, "topology.json")))
	must(t, identity.NewKey(filepath.Join(dir, vaccine.PersonKey)))
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		for name, s := range maps.Clone(p.services) {
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Errorf("closing %s: %v", name, err)
			}
		}
	})
	for _, proc := range p.top.Processes {
		s, err := vaccine.Open(node.Config{
			Name: proc.Name, Carrier: proc.Carrier, Subsystem: "vaccine", Dir: filepath.Join(dir, proc.Name), Listen: proc.Node, HTTP: proc.HTTP,
			Topology: filepath.Join(dir, "topology.json"), Secrets: dir, Insecure: true,
		})
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
	for deadline := time.Now().Add(patience); ; {
		r, err := http.NewRequest(method, "http://"+proc.HTTP+path, strings.NewReader(body))
		must(p.t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", fmt.Sprintf("%x", sha256.Sum256([]byte(method+path+body))))
		answer, err := p.client.Do(r)
		must(p.t, err)
		raw, err := io.ReadAll(answer.Body)
		must(p.t, errors.Join(err, answer.Body.Close()))
		if !notYet(answer.StatusCode) || time.Now().After(deadline) {
			return answer.StatusCode, string(raw)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// replicate writes, and asks again under the same key, until the other carrier
// has it too.
func (p *province) replicate(process, path, body string) (status int, raw string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		status, raw = p.ask(process, "POST", path+"?ack=replicated&wait=30s", body)
		if !strings.Contains(raw, `"level":"committed"`) || time.Now().After(deadline) {
			return status, raw
		}
	}
}

// fresh reads until the answer does not call itself stale: a process that has
// just started says so until it has heard what the other carrier holds.
func (p *province) fresh(process, path string) (status int, raw string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		status, raw = p.ask(process, "GET", path, "")
		if strings.Contains(raw, `"stale":false`) || time.Now().After(deadline) {
			return status, raw
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestDosesThroughBothCarriers: the first dose goes through one carrier, a
// contradicting one through the other. Both carriers show both, alike.
func TestDosesThroughBothCarriers(t *testing.T) {
	p := newProvince(t, 2)
	dose := func(day string) string {
		return fmt.Sprintf(`{"document":{"kind":"passport","number":"P0000001","country":"GBR"},"product":"BBIBP-CorV","batch":"202108B2715","dose":1,"site":"GY-1","day":%q}`, day)
	}
	for process, day := range map[string]string{"unicom-vaccine-2": "2022-01-05", "mobile-vaccine-1": "2022-01-06"} {
		status, raw := p.replicate(process, "/v1/doses", dose(day))
		if !strings.Contains(raw, `"level":"replicated"`) || status != http.StatusOK && status != http.StatusConflict {
			t.Fatalf("%s: %d %s", process, status, raw)
		}
	}
	person := p.personOf()
	var first string
	for process := range p.services {
		status, raw := p.fresh(process, "/v1/persons/"+person+"/doses")
		got := map[string]any{}
		must(t, json.Unmarshal([]byte(raw), &got))
		delete(got, "as_of") // each carrier's own time
		seen, err := json.Marshal(got)
		must(t, err)
		if first == "" {
			first = string(seen)
		}
		if status != http.StatusOK || string(seen) != first || got["conflict"] != true || len(got["doses"].([]any)) != 2 {
			t.Errorf("%s shows\n%s\nwant\n%s", process, seen, first)
		}
	}
}

// personOf works the pseudonym out as whoever holds the secret can.
func (p *province) personOf() string {
	p.t.Helper()
	h, err := identity.LoadHasher(filepath.Join(p.services["unicom-vaccine-1"].Config.Secrets, vaccine.PersonKey))
	must(p.t, err)
	doc, _, err := (identity.Document{Kind: identity.Passport, Number: "P0000001", Country: "GBR"}).Normalize()
	must(p.t, err)
	return h.Person(doc).String()
}

func TestOpenNeedsTheProvincesSecret(t *testing.T) {
	_, err := vaccine.Open(node.Config{Name: "unicom-vaccine-1", Secrets: t.TempDir()})
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
