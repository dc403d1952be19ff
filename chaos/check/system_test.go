package check

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/chaos/model"
	"qianma/chaos/traffic"
	"qianma/cluster/topology"
)

// event is something that was said to the toy.
type event struct {
	n       int // of its kind
	kind    model.Kind
	carrier string
	tube    string
	person  string
	sampled time.Time
	asked   int // how many requests had been answered before
}

// toy is a province of two carriers in one table, honest but for its plants: it
// speaks what nucleic and display speak, and every node of it answers for
// itself. The probes of real drills drive it.
type toy struct {
	// Plants; nil: honest. Their time is counted in requests: a busy machine makes
	// the probes slow, and they must find as much in what they do all the same.
	hides   func(node string, e event, age int) bool     // this node does not show it
	receipt func(n int, replayed bool, r *model.Receipt) // what is said of the n-th registration
	loses   func(e event, age, asked int) bool           // forgotten by all, from now on

	mu     sync.Mutex // protects the fields below
	events []event
	keys   map[string]model.Receipt
	count  map[model.Kind]int
	asked  int
	enough chan struct{} // closed after so many requests
}

// requests is how many a run of the toy answers before it is judged.
const requests = 300

func (s *toy) serve(t *testing.T) *topology.Topology {
	t.Helper()
	s.keys, s.count, s.enough = map[string]model.Receipt{}, map[model.Kind]int{}, make(chan struct{})
	topo := &topology.Topology{Carriers: []string{"unicom", "mobile"}}
	for _, carrier := range topo.Carriers {
		for _, subsystem := range []string{"nucleic", "display"} {
			for i := 1; i <= 2; i++ {
				p := topology.Process{Name: fmt.Sprintf("%s-%s-%d", carrier, subsystem, i), Carrier: carrier, Subsystem: subsystem, Ordinal: i}
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, p) }))
				t.Cleanup(server.Close)
				p.HTTP = strings.TrimPrefix(server.URL, "http://")
				topo.Processes = append(topo.Processes, p)
			}
		}
	}
	return topo
}

func (s *toy) answer(w http.ResponseWriter, r *http.Request, node topology.Process) {
	raw, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.asked == requests {
		close(s.enough)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if s.loses != nil {
		for i := 0; i < len(s.events); i++ {
			if s.loses(s.events[i], s.age(s.events[i]), s.asked) {
				s.events = append(s.events[:i], s.events[i+1:]...)
				i--
			}
		}
	}
	switch {
	case r.Method == http.MethodPost:
		s.take(w, r, node, raw)
	case strings.HasPrefix(r.URL.Path, "/v1/tubes/"):
		s.tube(w, node.Name, strings.TrimPrefix(r.URL.Path, "/v1/tubes/"))
	default:
		s.code(w, node.Name, r.URL.Query().Get("person"))
	}
}

// take notes what is said and gives a receipt for it.
func (s *toy) take(w http.ResponseWriter, r *http.Request, node topology.Process, raw []byte) {
	var in struct {
		Tube, Person string
		Sampled      time.Time `json:"sampled_at"`
	}
	_ = json.Unmarshal(raw, &in)
	key := node.Carrier + r.Header.Get("Idempotency-Key")
	rcpt, replayed := s.keys[key]
	if !replayed {
		e := event{carrier: node.Carrier, tube: in.Tube, person: in.Person, sampled: in.Sampled, asked: s.asked}
		switch r.URL.Path {
		case "/v1/registrations":
			e.kind = model.Register
		case "/v1/results":
			e.kind = model.Result
			for _, o := range s.events {
				if o.kind == model.Register && o.tube == in.Tube {
					e.person, e.sampled = o.person, o.sampled
				}
			}
		default:
			e.kind = model.Restrict
		}
		s.count[e.kind]++
		e.n = s.count[e.kind]
		s.events = append(s.events, e)
		seq := uint64(len(s.keys) + 1)
		rcpt = model.Receipt{Level: model.Replicated, Origin: node.Carrier + "/" + node.Subsystem + "/0/1", First: seq, Last: seq}
		s.keys[key] = rcpt
	}
	rcpt.Replayed = replayed
	if s.receipt != nil {
		s.receipt(s.count[model.Register], replayed, &rcpt)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"receipt": rcpt})
}

// age is how many requests ago something was said.
func (s *toy) age(e event) int { return s.asked - e.asked }

// shown calls fn with what a node shows, in order.
func (s *toy) shown(node string, fn func(e event)) {
	for _, e := range s.events {
		if s.hides == nil || !s.hides(node, e, s.age(e)) {
			fn(e)
		}
	}
}

func (s *toy) tube(w http.ResponseWriter, node, tube string) {
	members := []map[string]any{}
	s.shown(node, func(e event) {
		if e.kind == model.Register && e.tube == tube {
			members = append(members, map[string]any{"person": e.person, "live": true})
		}
	})
	_ = json.NewEncoder(w).Encode(map[string]any{"stale": false, "members": members})
}

// code shows the newest result, and red to who is restricted.
func (s *toy) code(w http.ResponseWriter, node, person string) {
	colour, nucleic := "green", map[string]any{"status": "none"}
	var newest time.Time
	s.shown(node, func(e event) {
		switch {
		case e.person != person:
		case e.kind == model.Restrict:
			colour = "red"
		case e.kind == model.Result && e.sampled.After(newest):
			newest = e.sampled
			nucleic = map[string]any{"status": "negative", "sampled_at": newest}
		}
	})
	asOf := map[string]any{"as_of": time.Now()}
	_ = json.NewEncoder(w).Encode(map[string]any{"colour": colour, "nucleic": nucleic, "seen": "x",
		"data": map[string]any{"source": "middle_store", "carriers": map[string]any{"unicom": asOf, "mobile": asOf}}})
}

// judged drives the toy with real probes and returns what the checks find.
func (s *toy) judged(t *testing.T) map[string]Finding {
	t.Helper()
	h := model.NewHistory()
	p := traffic.Begin(s.serve(t), h, 1)
	defer p.Close()
	select {
	case <-s.enough:
	case <-time.After(5 * time.Minute):
		t.Fatal("the probes are silent")
	}
	if err := p.Final(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := map[string]Finding{}
	for _, f := range History(h, model.Committed) {
		out[f.Name] = f
	}
	return out
}

// late is longer than a few looks of every probe, and short of half a run.
const late = requests / 5

// plantings is how often a plant is tried that the probes did not come by.
const plantings = 5

// TestPlantsInASystem: what is wrong in a system, not in a history of one, is
// seen by the probes and found by the check that is there for it; the same
// system without a plant breaks no check.
func TestPlantsInASystem(t *testing.T) {
	for _, plant := range []*struct {
		name, check string
		toy         toy
	}{
		{"honest", "", toy{}},
		{"a replica drops one fact in ten", Lost, toy{hides: func(node string, e event, _ int) bool {
			return node == "unicom-nucleic-2" && e.kind == model.Register && e.n%10 == 0
		}}},
		{"an acknowledgement before it is durable, and a power cut", Lost, toy{loses: func(e event, age, asked int) bool {
			return asked == requests/2 && e.kind == model.Register && age < late
		}}},
		{"a feed that skips", Lost, toy{hides: func(node string, e event, _ int) bool {
			return strings.HasPrefix(node, "mobile-nucleic") && e.kind == model.Register && e.carrier == "unicom" && e.n%7 == 0
		}}},
		{"a replica that serves old state", Linearizable, toy{hides: func(node string, e event, age int) bool {
			return node == "unicom-nucleic-2" && age < late
		}}},
		{"receipts that claim more than was reached", Receipts, toy{hides: func(node string, e event, age int) bool {
			return strings.HasPrefix(node, "mobile-nucleic") && e.carrier == "unicom" && age < 2*late
		}}},
		{"an address that is given twice", Receipts, toy{receipt: func(n int, replayed bool, r *model.Receipt) {
			if !replayed && n%5 == 0 {
				r.First, r.Last = r.First-1, r.Last-1
			}
		}}},
		{"a key that is given a second receipt", Repeats, toy{receipt: func(_ int, replayed bool, r *model.Receipt) {
			if replayed {
				r.First, r.Last = r.First+1000, r.Last+1000
			}
		}}},
		{"a display node that forgets a restriction", StaleGreen, toy{hides: func(node string, e event, age int) bool {
			return node == "mobile-display-2" && e.kind == model.Restrict && age > 2*late
		}}},
		{"a display node that is behind and says that it is not", StaleGreen, toy{hides: func(node string, e event, age int) bool {
			return node == "mobile-display-1" && e.kind == model.Result && age < 3*late
		}}},
		{"a phone that is taken back", Monotonic, toy{hides: func(node string, e event, age int) bool {
			return strings.HasPrefix(node, "mobile-display") && e.kind == model.Result && age < 3*late
		}}},
	} {
		t.Run(plant.name, func(t *testing.T) {
			t.Parallel()
			found := plant.toy.judged(t)
			for n := 1; n < plantings && plant.check != "" && found[plant.check].Broken == 0; n++ {
				again := toy{hides: plant.toy.hides, receipt: plant.toy.receipt, loses: plant.toy.loses}
				found = again.judged(t)
			}
			for name, f := range found {
				switch {
				case f.Unsure != "" || plant.check == "" && (f.Broken > 0 || f.Looked == 0):
					t.Errorf("%s: %+v", name, f)
				case name == plant.check && f.Broken == 0:
					t.Errorf("%s looked at %d and found nothing", name, f.Looked)
				}
			}
		})
	}
}
