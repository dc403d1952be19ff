// Package worldtest is a province made of nothing, for tests: a data directory
// with a supervisor's socket behind which processes are only rows in a table.
package worldtest

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/chaos/link"
	"qianma/chaos/wire"
	"qianma/chaos/world"
	"qianma/cluster/mishap"
	"qianma/cluster/topology"
)

// Province is the table. Its methods are safe for concurrent use.
type Province struct {
	Data string

	wire *wire.Carrier

	mu        sync.Mutex
	processes []world.Process
	holds     []world.Hold
	rules     []link.Rule
	log       []string
	refuse    map[string]bool // verb+" "+process that fails
	refused   chan string
	leader    string
	electing  int // questions that are still answered by nobody's name
}

// refusedMax is how many refusals wait to be read; more are only logged.
const refusedMax = 64

// Start makes a province of two carriers and serves it until the test ends.
func Start(t *testing.T) *Province {
	t.Helper()
	p := &Province{Data: t.TempDir(), refuse: map[string]bool{}, refused: make(chan string, refusedMax)}
	public := p.servePublic(t, "")
	topo := &topology.Topology{Province: "test", Carriers: []string{"unicom", "mobile"}}
	for _, carrier := range topo.Carriers {
		for _, s := range []struct {
			name string
			n    int
		}{{"nucleic", 3}, {"vaccine", 3}, {"display", 3}, {"middlestore", 2}, {"backbone", 1}} {
			for i := 1; i <= s.n; i++ {
				name := carrier + "-" + s.name + "-" + string(rune('0'+i))
				dir := filepath.Join(p.Data, carrier, name)
				public := p.servePublic(t, dir)
				topo.Processes = append(topo.Processes, topology.Process{Name: name, Carrier: carrier, Subsystem: s.name, Ordinal: i, HTTP: public})
				if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
					t.Fatal(err)
				}
				p.processes = append(p.processes, world.Process{Name: name, Carrier: carrier, Subsystem: s.name, PID: 1 << 22, State: world.Ready, Dir: dir, HTTP: public})
			}
		}
	}
	if err := topo.Save(filepath.Join(p.Data, "topology.json")); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(link.Config{HTTP: public})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Data, "links.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	p.serveControl(t)
	p.serveWire(t)
	return p
}

func (p *Province) serveControl(t *testing.T) {
	dir, err := os.Open(p.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := net.Listen("unix", filepath.Join("/proc/self/fd", itoa(int(dir.Fd())), "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /processes", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("name")
		rep := p.Report()
		rep.Processes = slices.DeleteFunc(rep.Processes, func(x world.Process) bool { return name != "" && x.Name != name })
		answer(w, rep)
	})
	mux.HandleFunc("POST /processes/{name}/{verb}", func(w http.ResponseWriter, r *http.Request) {
		if !p.do(r.PathValue("name"), r.PathValue("verb")) {
			http.Error(w, "it fails", http.StatusInternalServerError)
			return
		}
		answer(w, struct{}{})
	})
	mux.HandleFunc("POST /hold", func(w http.ResponseWriter, r *http.Request) {
		var req struct{ Name, For string }
		_ = json.NewDecoder(r.Body).Decode(&req)
		d, _ := time.ParseDuration(req.For)
		p.mu.Lock()
		p.log = append(p.log, "hold "+req.Name)
		p.holds = append(p.holds, world.Hold{Selector: world.Selector{Name: req.Name}, Until: time.Now().Add(d)})
		p.mu.Unlock()
		answer(w, p.Report())
	})
	mux.HandleFunc("POST /release", func(w http.ResponseWriter, r *http.Request) {
		var sel world.Selector
		_ = json.NewDecoder(r.Body).Decode(&sel)
		p.release(sel)
		answer(w, p.Report())
	})
	serve(t, l, mux)
}

// serveWire lays a line between two namespaces that are not there: nothing
// passes it, and its rules are real.
func (p *Province) serveWire(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := wire.Plan(1, [2]string{"unicom", "mobile"}, p.Data, l.Addr().String())
	cfg.Kind = wire.Own
	raw, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Data, "wire.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	p.wire = wire.Carry(cfg, a, b)
	t.Cleanup(func() { p.wire.Close() })
	serve(t, l, p.wire.Handler())
}

func serve(t *testing.T, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close(); <-done })
}

// servePublic is a process's HTTP server, and the links'. The process of a
// directory is under the orders that lie there.
func (p *Province) servePublic(t *testing.T, dir string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/marks", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.marks()) })
	mux.HandleFunc("GET /v1/mishaps", func(w http.ResponseWriter, _ *http.Request) {
		orders, _ := mishap.Read(mishap.Dir(dir))
		answer(w, map[string]any{"orders": orders})
	})
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.Rules()) })
	mux.HandleFunc("POST /rules", func(w http.ResponseWriter, r *http.Request) {
		var req link.Request
		_ = json.NewDecoder(r.Body).Decode(&req)
		p.mu.Lock()
		p.log = append(p.log, "rule "+req.ID)
		p.rules = append(p.rules, req.Rule)
		p.mu.Unlock()
		answer(w, p.Rules())
	})
	mux.HandleFunc("DELETE /rules/{id}", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.rules = slices.DeleteFunc(p.rules, func(x link.Rule) bool { return x.ID == r.PathValue("id") })
		p.mu.Unlock()
		answer(w, p.Rules())
	})
	serve(t, l, mux)
	return l.Addr().String()
}

func (p *Province) marks() (m world.Marks) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.electing--; p.electing < 0 && p.leader != "" {
		m.Shards = append(m.Shards, world.Shard{Leader: p.leader})
	}
	return m
}

// Elects lets a process lead its cluster after so many questions about it.
func (p *Province) Elects(leader string, after int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leader, p.electing = leader, after
}

func (p *Province) do(name, verb string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, verb+" "+name)
	i := slices.IndexFunc(p.processes, func(x world.Process) bool { return x.Name == name })
	if i < 0 || p.refuse[verb+" "+name] {
		select {
		case p.refused <- verb + " " + name:
		default:
		}
		return false
	}
	switch verb {
	case "kill", "stop":
		p.processes[i].State = world.Ready
		if slices.ContainsFunc(p.holds, func(h world.Hold) bool { return h.Name == name }) {
			p.processes[i].State = "held"
		}
	case "pause":
		p.processes[i].State = "paused"
	default:
		p.processes[i].State = world.Ready
	}
	return true
}

func (p *Province) release(sel world.Selector) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, "release "+sel.Name)
	p.holds = slices.DeleteFunc(p.holds, func(h world.Hold) bool { return sel.Name == "" || h.Name == sel.Name })
	for i := range p.processes {
		if p.processes[i].State == "held" && (sel.Name == "" || p.processes[i].Name == sel.Name) {
			p.processes[i].State = world.Ready
		}
	}
}

// Refuse makes a verb on a process fail from now on.
func (p *Province) Refuse(verb, name string, refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse[verb+" "+name] = refuse
}

// Refused tells of each verb that failed, as it fails.
func (p *Province) Refused() <-chan string { return p.refused }

// Runs makes a process that does run the one of that name.
func (p *Province) Runs(name string, pid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.processes {
		if p.processes[i].Name == name {
			p.processes[i].PID = pid
		}
	}
}

// Report is the table as the supervisor would show it.
func (p *Province) Report() world.Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return world.Report{Holds: slices.Clone(p.holds), Processes: slices.Clone(p.processes)}
}

// Rules are those on links.
func (p *Province) Rules() []link.Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]link.Rule{}, p.rules...)
}

// Log is everything that was done, in order.
func (p *Province) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// Touched lists what is not as it was in the beginning.
func (p *Province) Touched() (out []string) {
	r := p.Report()
	for _, x := range r.Processes {
		if x.State != world.Ready {
			out = append(out, x.Name+" is "+x.State)
		}
		if orders, _ := mishap.Read(mishap.Dir(x.Dir)); len(orders) > 0 {
			out = append(out, x.Name+" is under orders")
		}
	}
	for _, h := range r.Holds {
		out = append(out, h.Name+" is held")
	}
	for _, x := range p.Rules() {
		out = append(out, "rule "+x.ID)
	}
	for _, x := range p.wire.Rules() {
		out = append(out, "rule on packets "+x.ID)
	}
	return out
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func itoa(n int) string {
	raw, _ := json.Marshal(n)
	return string(raw)
}
