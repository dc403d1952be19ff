package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/legacy"

	"qianma/cluster/clock"
	"qianma/cluster/fact"
	"qianma/cluster/identity"
	"qianma/cluster/leaktest"
	"qianma/cluster/mux"
	"qianma/cluster/problem"
	"qianma/cluster/rpc"
	"qianma/cluster/web"
	"qianma/middle-store/middlestorepb"
	"qianma/middle-store/serve"
	"qianma/middle-store/store"
	"qianma/nucleic/nucleicpb"
	"qianma/vaccine/vaccinepb"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var ctx = context.Background()

const noon = int64(1646107200000)

// calm is the clock of the door: it stands, so that a busy machine is not taken
// for a process that has more to do than it can, which would turn requests away.
var calm = clock.NewManual(time.UnixMilli(noon))

// house is a middle store behind its real RPC port.
type house struct {
	store  *store.Store
	server *serve.Server
	pool   *rpc.Pool
	addr   string
	marks  map[fact.Origin]fact.Mark
	fresh  func() []middlestorepb.Freshness
}

func newHouse(t *testing.T, clk clock.Clock) *house {
	t.Helper()
	st, err := store.Open(store.Config{Dir: "middle", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{store: st, marks: map[fact.Origin]fact.Mark{}}
	h.server = serve.New(serve.Config{Name: "unicom-middlestore-1", Clock: clk, Freshness: func() []middlestorepb.Freshness {
		if h.fresh == nil {
			return nil
		}
		return h.fresh()
	}})
	h.server.Use(st)
	m, err := mux.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.addr = m.Addr().String()
	s := rpc.NewServer(rpc.ServerConfig{})
	h.server.Register(s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(m.RPC()) })
	h.pool = rpc.NewPool(&mux.Dialer{Resolve: func(string) (string, error) { return h.addr, nil }}, rpc.PoolConfig{})
	t.Cleanup(func() {
		_ = h.pool.Close()
		_ = s.Close()
		_ = m.Close()
		serving.Wait()
		_ = st.Close()
	})
	return h
}

// fold commits facts of an origin, as a feed would bring them.
func (h *house) fold(t *testing.T, carrier, subsystem string, facts ...[]byte) {
	t.Helper()
	o := fact.Origin{Carrier: carrier, Subsystem: subsystem, Incarnation: 1}
	m := h.marks[o]
	b := fact.Block{Origin: o, First: m.Seq + 1, Count: uint32(len(facts)), Stamp: noon * 1e6, Prev: m.Digest}
	for _, f := range facts {
		b.Body = fact.AppendFact(b.Body, f)
	}
	if err := h.store.Fold(ctx, []fact.Block{b}); err != nil {
		t.Fatal(err)
	}
	h.marks[o] = b.Mark()
}

func (h *house) lookup(t *testing.T, req middlestorepb.LookupRequest) (*middlestorepb.LookupResponse, error) {
	t.Helper()
	raw, err := h.pool.Call(ctx, "unicom-middlestore-1", middlestorepb.MethodLookup, req.Append(nil))
	if err != nil {
		return nil, err
	}
	out := new(middlestorepb.LookupResponse)
	if err := out.Decode(raw); err != nil {
		t.Fatal(err)
	}
	return out, nil
}

func person(n byte) middlestorepb.PersonID { return middlestorepb.PersonID{n, 1} }

func registered(who byte, tube string) []byte {
	p := person(who)
	return (&nucleicpb.Registered{Tube: []byte(tube), Person: p[:], Pool: nucleicpb.PoolTen, SampledAt: noon}).AppendFact(nil)
}

func negative(tube string) []byte {
	return (&nucleicpb.Resulted{Tube: []byte(tube), Lab: []byte("L1"), Revision: 1, Outcome: nucleicpb.OutcomeNegative, TestedAt: noon + 1, ReportedAt: noon + 2}).AppendFact(nil)
}

func dose(who byte) []byte {
	return vaccinepb.AppendDoseGiven(nil, &vaccinepb.DoseGiven{Person: vaccinepb.Person(person(who)), Dose: 1, Day: 18997, Product: "A", Batch: "B", Site: "S"})
}

func TestLookupOverTheWire(t *testing.T) {
	h := newHouse(t, clock.NewManual(time.UnixMilli(noon)))
	h.fresh = func() []middlestorepb.Freshness {
		return []middlestorepb.Freshness{{Carrier: "mobile", Subsystem: "nucleic", AsOf: 7}}
	}
	h.fold(t, "unicom", "nucleic", registered(1, "T1"), negative("T1"))
	h.fold(t, "mobile", "vaccine", dose(1))
	got, err := h.lookup(t, middlestorepb.LookupRequest{Persons: []middlestorepb.PersonID{person(2), person(1)}})
	if err != nil {
		t.Fatal(err)
	}
	p := got.Persons[1]
	if len(got.Persons) != 2 || got.Persons[0].Status != middlestorepb.StatusNone || p.Status != middlestorepb.StatusNegative || p.Tubes[0].Tube != "T1" || p.Doses.Count != 1 {
		t.Fatalf("got %+v", got.Persons)
	}
	if got.ServedBy != "unicom-middlestore-1" || got.AnsweredAt != noon || len(got.Marks) != 2 || len(got.Freshness) != 1 || got.Freshness[0].AsOf != 7 {
		t.Fatalf("got %+v", got)
	}
}

// TestChangesOverTheWire: whoever keeps an answer is told what it rests on, and
// then whether that has changed.
func TestChangesOverTheWire(t *testing.T) {
	h := newHouse(t, calm)
	h.fresh = func() []middlestorepb.Freshness {
		return []middlestorepb.Freshness{{Carrier: "mobile", Subsystem: "nucleic", AsOf: 7}}
	}
	h.fold(t, "unicom", "nucleic", registered(1, "T1"))
	ask := middlestorepb.LookupRequest{Persons: []middlestorepb.PersonID{person(1)}}
	if plain, err := h.lookup(t, ask); err != nil || plain.Persons[0].Subjects != nil {
		t.Fatalf("subjects that nobody asked for: %+v, %v", plain, err)
	}
	ask.Subjects = true
	got, err := h.lookup(t, ask)
	if err != nil || len(got.Persons[0].Subjects) != 2 || got.Epoch == 0 {
		t.Fatalf("got %+v, %v", got, err)
	}
	h.fold(t, "unicom", "nucleic", negative("T1"))
	req := middlestorepb.ChangesRequest{Epoch: got.Epoch, After: got.Position}
	raw, err := h.pool.Call(ctx, "unicom-middlestore-1", middlestorepb.MethodChanges, req.Append(nil))
	var since middlestorepb.ChangesResponse
	if err != nil || since.Decode(raw) != nil {
		t.Fatalf("got %x, %v", raw, err)
	}
	if len(since.Changed) != 1 || since.Changed[0] != got.Persons[0].Subjects[1] || since.All(req) {
		t.Fatalf("the tube has a result; got %+v of an answer that rests on %v", since, got.Persons[0].Subjects)
	}
	if h := since.Head; h.Epoch != got.Epoch || h.Position != got.Position+1 || h.ServedBy != "unicom-middlestore-1" || h.AnsweredAt != noon || len(h.Marks) != 1 || len(h.Freshness) != 1 {
		t.Fatalf("head %+v", h)
	}
}

// TestReaderNeverSeesThePast: a replica that is behind what a reader has seen
// says so, instead of answering, unless the reader takes an older answer.
func TestReaderNeverSeesThePast(t *testing.T) {
	ahead, late := newHouse(t, nil), newHouse(t, nil)
	for _, h := range []*house{ahead, late} {
		h.fold(t, "unicom", "nucleic", registered(1, "T1"))
	}
	ahead.fold(t, "unicom", "nucleic", negative("T1"))
	ask := middlestorepb.LookupRequest{Persons: []middlestorepb.PersonID{person(1)}}
	seen, err := ahead.lookup(t, ask)
	if err != nil || seen.Persons[0].Status != middlestorepb.StatusNegative {
		t.Fatalf("got %+v, %v", seen, err)
	}
	ask.Seen = seen.Marks
	if got, err := late.lookup(t, ask); !problem.Is(err, middlestorepb.CodeBehind) || problem.From(err).RetryAfter == 0 {
		t.Fatalf("got %+v, %v", got, err)
	}
	ask.StaleOK = true
	if got, err := late.lookup(t, ask); err != nil || !got.Behind || got.Persons[0].Status != middlestorepb.StatusPending {
		t.Fatalf("got %+v, %v", got, err)
	}
	late.fold(t, "unicom", "nucleic", negative("T1"))
	ask.StaleOK = false
	if got, err := late.lookup(t, ask); err != nil || got.Behind || got.Persons[0].Status != middlestorepb.StatusNegative {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestWithoutAStore(t *testing.T) {
	h := newHouse(t, nil)
	h.server.Use(nil)
	for _, method := range []string{middlestorepb.MethodLookup, middlestorepb.MethodChanges, middlestorepb.MethodCheckpointOpen, middlestorepb.MethodCheckpointRead} {
		if _, err := h.pool.Call(ctx, "x", method, nil); !problem.Is(err, problem.Unavailable) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestRequestsOutsideTheirBounds(t *testing.T) {
	h := newHouse(t, nil)
	if _, err := h.lookup(t, middlestorepb.LookupRequest{Persons: make([]middlestorepb.PersonID, middlestorepb.MaxPersons+1)}); !problem.Is(err, problem.TooLarge) {
		t.Errorf("too many persons: %v", err)
	}
	if _, err := h.lookup(t, middlestorepb.LookupRequest{Tubes: middlestorepb.MaxTubes + 1}); !problem.Is(err, problem.TooLarge) {
		t.Errorf("too many tubes: %v", err)
	}
	for _, method := range []string{middlestorepb.MethodLookup, middlestorepb.MethodChanges, middlestorepb.MethodCheckpointOpen, middlestorepb.MethodCheckpointRead, middlestorepb.MethodCheckpointClose} {
		if _, err := h.pool.Call(ctx, "x", method, []byte{0xff}); !problem.Is(err, problem.Malformed) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestCopyOverTheWire takes a copy through the real RPC port.
func TestCopyOverTheWire(t *testing.T) {
	h := newHouse(t, nil)
	fs := vfs.NewMem()
	peer := serve.Peer{Calls: h.pool, Name: "unicom-middlestore-1", By: "unicom-middlestore-2"}
	if _, err := store.Take(ctx, store.Config{Dir: "middle", FS: fs}, peer); err == nil {
		t.Fatal("an empty store was copied")
	}
	h.fold(t, "unicom", "nucleic", registered(1, "T1"), negative("T1"))
	if err := h.store.SetComplete(); err != nil {
		t.Fatal(err)
	}
	facts, err := store.Take(ctx, store.Config{Dir: "middle", FS: fs}, peer)
	if err != nil || facts != 2 {
		t.Fatalf("%d facts, %v", facts, err)
	}
	st, err := store.Open(store.Config{Dir: "middle", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if got, want := fmt.Sprint(st.Marks()), fmt.Sprint(h.store.Marks()); got != want {
		t.Fatalf("marks %s, want %s", got, want)
	}
	if n := h.store.Status().Copies; n != 0 {
		t.Fatalf("%d copies are still held", n)
	}
}

// TestFreshnessIsAskedSeldom: the account costs locks, a lookup must not.
func TestFreshnessIsAskedSeldom(t *testing.T) {
	clk := clock.NewManual(time.UnixMilli(noon))
	h := newHouse(t, clk)
	asked := 0
	h.fresh = func() []middlestorepb.Freshness {
		asked++
		return []middlestorepb.Freshness{{Carrier: "unicom", Behind: uint64(asked)}}
	}
	req := middlestorepb.LookupRequest{}
	for range 5 {
		if _, err := h.server.Answer(&req, nil); err != nil {
			t.Fatal(err)
		}
	}
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	clk.Set(clk.Now().Add(-2 * time.Hour)) // its peers have outvoted it: the account is no younger
	clk.Advance(time.Second)
	if got, err := h.lookup(t, req); err != nil || asked != 2 || got.Freshness[0].Behind != 2 {
		t.Fatalf("asked %d times, got %+v, %v", asked, got, err)
	}
}

// TestHTTPIsAsDescribed asks every endpoint and holds the answers against
// openapi.yaml.
func TestHTTPIsAsDescribed(t *testing.T) {
	h := newHouse(t, nil)
	h.fresh = func() []middlestorepb.Freshness {
		return []middlestorepb.Freshness{{Carrier: "unicom", Subsystem: "nucleic", AsOf: noon, Newest: noon - 1}, {Carrier: "mobile", Subsystem: "nucleic", Behind: 3}}
	}
	h.fold(t, "unicom", "nucleic", registered(1, "T1"), negative("T1"), registered(1, "T2"))
	h.fold(t, "unicom", "vaccine", dose(1))
	base := serveHTTP(t, h.server)
	one, two := identity.Person(person(1)).String(), identity.Person(person(2)).String()

	raw := ask(t, base, "GET", "/v1/persons/"+one, "", http.StatusOK)
	var got struct {
		Persons []struct {
			Person, Status string
			DecidedBy      string `json:"decided_by"`
			Tubes          []struct{ Tube, Outcome, Pool string }
			Doses          *struct{ Count int }
		}
		Freshness []struct {
			AsOf string `json:"as_of"`
		}
		Seen string
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	p := got.Persons[0]
	if p.Person != one || p.Status != "negative" || p.DecidedBy != "T1" || len(p.Tubes) != 2 || p.Tubes[0].Pool != "10" || p.Doses.Count != 1 || got.Freshness[1].AsOf != "" {
		t.Fatalf("%s", raw)
	}
	raw = ask(t, base, "POST", "/v1/lookup", fmt.Sprintf(`{"persons":[%q,%q],"seen":%q}`, two, one, got.Seen), http.StatusOK)
	if !bytes.Contains(raw, []byte(`"status":"none"`)) || !bytes.Contains(raw, []byte(`"behind":false`)) {
		t.Fatalf("%s", raw)
	}
	future := middlestorepb.Marks{{Origin: 1, Seq: 1}}.String()
	ask(t, base, "GET", "/v1/persons/"+one+"?seen="+future, "", http.StatusServiceUnavailable)
	ask(t, base, "GET", "/v1/persons/"+one+"?seen=!!", "", http.StatusUnprocessableEntity)
	ask(t, base, "POST", "/v1/lookup", fmt.Sprintf(`{"persons":[%q],"seen":%q,"stale_ok":true}`, one, future), http.StatusOK)
	ask(t, base, "GET", "/openapi.yaml", "", http.StatusOK)
	h.server.Use(nil)
	ask(t, base, "GET", "/v1/persons/"+one, "", http.StatusServiceUnavailable)
}

func serveHTTP(t *testing.T, s *serve.Server) string {
	t.Helper()
	w, err := web.New(web.Config{Addr: "127.0.0.1:0", Name: "unicom-middlestore-1", Clock: calm})
	if err != nil {
		t.Fatal(err)
	}
	s.RegisterHTTP(w)
	var serving sync.WaitGroup
	serving.Go(func() { _ = w.Serve() })
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = w.Close(ctx)
		serving.Wait()
	})
	return "http://" + w.Addr().String()
}

func ask(t *testing.T, base, method, path, body string, status int) []byte {
	t.Helper()
	doc := described(t)
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	route, params, err := router.FindRoute(req)
	if err != nil {
		t.Fatalf("%s %s is not described: %v", method, path, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, raw, err)
	}
	in := &openapi3filter.ResponseValidationInput{RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, Route: route, PathParams: params},
		Status: resp.StatusCode, Header: resp.Header, Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	in.SetBodyBytes(raw)
	if err := openapi3filter.ValidateResponse(ctx, in); err != nil {
		t.Fatalf("%s %s answered what openapi.yaml does not describe: %v\n%s", method, path, err, raw)
	}
	return raw
}

func described(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err == nil {
		err = doc.Validate(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestEveryRouteIsDescribed(t *testing.T) {
	var describes, serves []string
	for path, item := range described(t).Paths.Map() {
		for method := range item.Operations() {
			describes = append(describes, method+" "+path)
		}
	}
	for _, r := range serve.New(serve.Config{}).Routes() {
		serves = append(serves, r.Pattern)
	}
	slices.Sort(describes)
	slices.Sort(serves)
	if !slices.Equal(describes, serves) {
		t.Fatalf("described %q\nserved    %q", describes, serves)
	}
}
