package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"qianma/chaos/model"
	"qianma/cluster/leaktest"
	"qianma/cluster/topology"
	"qianma/loadtest"
	"qianma/loadtest/drive"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// alone is one probe against one handler that plays every node.
func alone(t *testing.T, h http.HandlerFunc) *probe {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	topo := &topology.Topology{Carriers: []string{"unicom"}}
	for _, sub := range []string{"nucleic", "display"} {
		topo.Processes = append(topo.Processes, topology.Process{Name: "unicom-" + sub + "-1", Carrier: "unicom", Subsystem: sub, HTTP: strings.TrimPrefix(s.URL, "http://")})
	}
	p := &Probes{h: model.NewHistory(), topo: topo, seed: 1, begins: time.Now(), http: &http.Client{}}
	p.ctx = t.Context()
	t.Cleanup(p.http.CloseIdleConnections)
	return &probe{Probes: p, id: 1, carrier: "unicom", rand: rand.New(rand.NewPCG(1, 1))}
}

// TestOneOperationManyTries: however many tries it takes, a write is one
// operation with one key, from the first byte to the answer.
func TestOneOperationManyTries(t *testing.T) {
	var asked atomic.Int32
	keys := make(chan string, 8)
	c := alone(t, func(w http.ResponseWriter, r *http.Request) {
		keys <- r.Header.Get("Idempotency-Key")
		switch asked.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.WriteHeader(http.StatusGatewayTimeout)
		default:
			fmt.Fprint(w, `{"receipt":{"level":"committed","origin":"unicom/nucleic/0/1","first":7,"last":7}}`)
		}
	})
	op := model.Op{Kind: model.Register, Carrier: "unicom", Tube: "t", Key: "k"}
	c.do(&op, request{"nucleic", http.MethodPost, "/", []byte("{}")}, nil)
	if op.Outcome != model.OK || op.Receipt == nil || op.Receipt.First != 7 || len(c.h.Ops) != 1 {
		t.Errorf("%+v, %d operations", op, len(c.h.Ops))
	}
	for range 3 {
		if k := <-keys; k != "k" {
			t.Errorf("asked with the key %q", k)
		}
	}
}

// TestPerhapsDoneStaysUnknown: once one try may have been done, a later refusal
// does not make it undone.
func TestPerhapsDoneStaysUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		status []int
		want   model.Outcome
	}{
		"refused":             {[]int{429, 422}, model.Refused},
		"perhaps, then no":    {[]int{500, 422}, model.Unknown},
		"perhaps, then again": {[]int{504, 503, 422}, model.Unknown},
	} {
		n := -1
		p := alone(t, func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.WriteHeader(c.status[min(n, len(c.status)-1)])
		})
		op := model.Op{Kind: model.Register, Carrier: "unicom"}
		p.do(&op, request{"nucleic", http.MethodPost, "/", []byte("{}")}, nil)
		if op.Outcome != c.want {
			t.Errorf("%s: %s", name, op.Outcome)
		}
	}
}

func TestReadingATube(t *testing.T) {
	c := alone(t, func(http.ResponseWriter, *http.Request) {})
	const tube = "52010012345678"
	answer := func(live bool, persons ...string) []byte {
		var rows []string
		for _, p := range persons {
			rows = append(rows, fmt.Sprintf(`{"person":%q,"live":%v}`, p, live))
		}
		return []byte(`{"stale":false,"members":[` + strings.Join(rows, ",") + `]}`)
	}
	mine := func(n int) string { return c.memberOf(tube, n).String() }
	op := model.Op{Tube: tube}
	if err := c.members(&op, answer(true, mine(0), mine(3))); err != nil || op.Members != 0b1001 || op.Strange != 0 {
		t.Errorf("%v %+v", err, op)
	}
	if err := c.members(&op, answer(true, mine(1), "p_somebody")); err != nil || op.Members != 0b10 || op.Strange != 1 {
		t.Errorf("%v %+v", err, op)
	}
	if err := c.members(&op, answer(false, mine(1))); err != nil || op.Members != 0 {
		t.Errorf("void members: %v %+v", err, op)
	}
}

// still is a target whose operations end as they are told.
type still struct {
	drive.Target
	ends []drive.Outcome
	op   *drive.Op
}

func (s *still) Start(op *drive.Op) { s.op = op }

func (s *still) Poll(_ time.Duration, done func(*drive.Op)) error {
	s.op.Outcome, s.ends = s.ends[0], s.ends[1:]
	done(s.op)
	return nil
}

// TestTheTapTellsTriesFromEnds: every try is recorded, and which of them were
// followed by another.
func TestTheTapTellsTriesFromEnds(t *testing.T) {
	target := &still{ends: []drive.Outcome{drive.NotSent, drive.OK, drive.Unknown}}
	tap := &tap{Target: target, h: model.NewHistory(), began: map[*drive.Op]time.Duration{}, last: map[*drive.Op]int{}}
	op := new(drive.Op) // used again, as the driver does
	for _, try := range []int{1, 2, 1} {
		op.Tries = try
		tap.Start(op)
		if err := tap.Poll(0, func(*drive.Op) {}); err != nil {
			t.Fatal(err)
		}
	}
	if len(tap.tries) != 3 || !tap.tries[0].Again || tap.tries[1].Again || tap.tries[2].Again || !tap.tries[1].OK() {
		t.Errorf("%+v", tap.tries)
	}
}

func TestMetric(t *testing.T) {
	page := []byte("# HELP go_goroutines x\ngo_goroutines 42\ngo_goroutines_other 7\nprocess_resident_memory_bytes 1.5e+08\n")
	if g, m := metric(page, "go_goroutines"), metric(page, "process_resident_memory_bytes"); g != 42 || m != 1.5e8 {
		t.Errorf("%v, %v", g, m)
	}
}

// TestOnlyWhatWasAcknowledgedIsOwed: the last read wants every tube into which
// something was acknowledged, and none whose only swab never arrived.
func TestOnlyWhatWasAcknowledgedIsOwed(t *testing.T) {
	taken := false
	c := alone(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet:
			w.WriteHeader(http.StatusNotFound)
		case taken:
			fmt.Fprint(w, `{"receipt":{"level":"committed","origin":"unicom/nucleic/0/1","first":7,"last":7}}`)
		default:
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	final := func(within time.Duration) error {
		c.stop = func() {}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		defer func() { c.ctx = t.Context() }()
		return c.Final(ctx)
	}
	c.write(new(table))
	if err := final(time.Minute); err != nil {
		t.Errorf("a tube that nobody acknowledged is owed: %v", err)
	}
	taken = true
	c.write(new(table))
	if err := final(200 * time.Millisecond); err == nil {
		t.Error("a tube that was acknowledged and is not there passes")
	}
}

// Goal: a drill that asks for batches sends batches.
func TestBatchesAreSent(t *testing.T) {
	for batch, want := range map[int]string{0: "day", 100: "batch"} {
		o := Options{Shape: Shape{Tests: 1, Displays: 2, Batch: batch}}
		if s := o.settings(loadtest.System{}, nil).Settings; s.Profile != want || s.Batch != batch || s.Displays != 2 {
			t.Errorf("batches of %d: profile %s, batch %d, displays %g", batch, s.Profile, s.Batch, s.Displays)
		}
	}
}
