package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"qianma/cluster/clock"
	"qianma/cluster/identity"
	"qianma/cluster/leaktest"
	"qianma/cluster/machine/machinetest"
	"qianma/cluster/web"
	"qianma/display/rules"
	"qianma/display/source"
	"qianma/display/token"
	"qianma/display/vault"
	pb "qianma/middle-store/middlestorepb"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var now = time.Date(2022, 3, 1, 12, 0, 0, 0, time.UTC)

// house is the real door over a floor in memory and middle stores played by
// the test. Every answer it gives is held against openapi.yaml.
type house struct {
	t        testing.TB
	proposer *machinetest.Proposer
	stores   *stores
	clock    *clock.Manual
	heard    *time.Time
	secrets  string
	server   *web.Server
	base     string
	router   routers.Router
	client   *http.Client
}

// patient never grows tired of waiting: a store of these tests that does not
// answer at once is dead and says so, or has too little of a busy machine, and
// another must not be asked in its place. It bears the pause between batches.
type patient struct{ clock.Clock }

func (p patient) After(d time.Duration) <-chan time.Time {
	if d > 10*time.Millisecond {
		return nil
	}
	return p.Clock.After(d)
}

// stores plays the middle stores: "own" of this carrier, "other" of the other.
type stores struct {
	mu     sync.Mutex
	people map[pb.PersonID]pb.Person
	seq    uint64
	fresh  []pb.Freshness
	dead   map[string]bool
	calls  int
}

func (s *stores) Call(_ context.Context, peer, _ string, raw []byte) ([]byte, error) {
	var req pb.LookupRequest
	if err := req.Decode(raw); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.dead[peer] {
		return nil, errors.New("connection refused")
	}
	resp := &pb.LookupResponse{Marks: pb.Marks{{Origin: 7, Seq: s.seq}}, Freshness: s.fresh, AnsweredAt: now.UnixMilli(), ServedBy: peer}
	if !resp.Marks.Covers(req.Seen) {
		if !req.StaleOK {
			return nil, errors.New(pb.CodeBehind)
		}
		resp.Behind = true
	}
	for _, p := range req.Persons {
		resp.Persons = append(resp.Persons, s.people[p])
	}
	return resp.Append(nil), nil
}

// know sets what the stores hold about a person.
func (s *stores) know(p identity.Person, x pb.Person) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.people[pb.PersonID(p)] = x
	s.seq++
}

func (s *stores) kill(peers ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range peers {
		s.dead[p] = true
	}
}

func (s *stores) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func freshAsOf(at time.Time) []pb.Freshness {
	var out []pb.Freshness
	for _, carrier := range []string{"mobile", "unicom"} {
		for _, subsystem := range []string{"nucleic", "vaccine"} {
			out = append(out, pb.Freshness{Carrier: carrier, Subsystem: subsystem, AsOf: at.UnixMilli()})
		}
	}
	return out
}

func newHouse(t testing.TB, shards int) *house {
	t.Helper()
	h := &house{t: t, clock: clock.NewManual(now), heard: new(time.Time), secrets: t.TempDir(), router: described(t)}
	h.stores = &stores{people: map[pb.PersonID]pb.Person{}, fresh: freshAsOf(now.Add(-time.Second)), dead: map[string]bool{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(token.GenerateKey(h.secrets, "unicom", now.Add(-time.Hour), 365*24*time.Hour))
	must(identity.NewKey(filepath.Join(h.secrets, vault.KeyFile)))
	keys, err := OpenKeyring(h.secrets, "unicom")
	must(err)
	safe, err := vault.Load(filepath.Join(h.secrets, vault.KeyFile))
	must(err)
	hasher, err := identity.NewHasher(bytes.Repeat([]byte{7}, identity.KeySize))
	must(err)
	cache := NewCache(0, 0)
	h.proposer = machinetest.NewProposer(shards, rules.Factory(cache))
	h.proposer.Now = func() int64 { return h.clock.Now().UnixNano() }
	kept, err := source.OpenCopy(source.CopyConfig{Dir: "copy", FS: vfs.NewMem()})
	must(err)
	// The source's own pauses run on a clock of their own: the house's stands still.
	src, err := source.Open(source.Config{Caller: h.stores, Own: []string{"own"}, Others: []string{"other"}, Copy: kept, Clock: patient{clock.Real}})
	must(err)
	// The door's own clock stands still, so that a busy machine is not taken for a
	// process that has more to do than it can, which would turn requests away.
	h.server, err = web.New(web.Config{Addr: "127.0.0.1:0", Name: "unicom-display-1", Clock: clock.NewManual(now)})
	must(err)
	heard := func(int) time.Time {
		if h.heard.IsZero() {
			return h.clock.Now()
		}
		return *h.heard
	}
	New(Config{Name: "unicom-display-1", Carrier: "unicom", Proposer: h.proposer, Heard: heard, Source: src, Hasher: hasher, Vault: safe,
		Keys: keys, Cache: cache, Clock: h.clock}).Register(h.server)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve() }()
	h.base = "http://" + h.server.Addr().String()
	h.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		must(errors.Join(h.server.Close(ctx), <-served, src.Close(), kept.Close()))
	})
	return h
}

func described(t testing.TB) routers.Router {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

type reply struct {
	status int
	header http.Header
	raw    []byte
	body   written
}

type written struct {
	Receipt struct {
		Level    string
		First    uint64
		Replayed bool
	}
	Receipts                                []struct{ Level string }
	Accepted, Duplicate, Conflict, Rejected int
	Rows                                    []struct {
		Row                        int
		Status, Code, Message, Fix string
	}
	Code, Message, Fix string
}

// send makes a request. One that the description should allow is checked
// against it too; sloppy ones are sent on purpose.
func (h *house) send(method, path, kind, key, body string, sloppy bool) reply {
	h.t.Helper()
	req, err := http.NewRequest(method, h.base+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", kind)
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	in := h.requestOf(req, sloppy)
	resp, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := reply{status: resp.StatusCode, header: resp.Header}
	if out.raw, err = io.ReadAll(resp.Body); err != nil {
		h.t.Fatal(err)
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		_ = json.Unmarshal(out.raw, &out.body)
	}
	check := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header}
	check.SetBodyBytes(out.raw)
	check.Options = &openapi3filter.Options{IncludeResponseStatus: true}
	if err := openapi3filter.ValidateResponse(context.Background(), check); err != nil {
		h.t.Fatalf("%s %s answered %d what openapi.yaml does not describe: %v\n%s", method, path, resp.StatusCode, err, out.raw)
	}
	return out
}

func (h *house) requestOf(req *http.Request, sloppy bool) *openapi3filter.RequestValidationInput {
	h.t.Helper()
	route, params, err := h.router.FindRoute(req)
	if err != nil {
		h.t.Fatalf("%s %s is not described: %v", req.Method, req.URL.Path, err)
	}
	in := &openapi3filter.RequestValidationInput{Request: req, Route: route, PathParams: params}
	if sloppy || strings.Contains(req.Header.Get("Content-Type"), "x-") {
		return in
	}
	if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
		h.t.Fatalf("openapi.yaml refuses a request the tests believe in: %v", err)
	}
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			h.t.Fatal(err)
		}
	}
	return in
}

func (h *house) post(path, key, body string) reply {
	h.t.Helper()
	return h.send("POST", path, "application/json", key, body, false)
}

func (h *house) get(path string) reply {
	h.t.Helper()
	return h.send("GET", path, "", "", "", false)
}

// accept posts what must be accepted.
func (h *house) accept(path, body string) reply {
	h.t.Helper()
	r := h.post(path, "", body)
	if r.status != http.StatusOK || r.body.Accepted != 1 {
		h.t.Fatalf("%s: %d %s", path, r.status, r.raw)
	}
	return r
}

// show reads a code; more is added to the query.
func (h *house) show(p identity.Person, more string) Answer {
	h.t.Helper()
	r := h.get("/v1/code?person=" + p.String() + more)
	if r.status != http.StatusOK {
		h.t.Fatalf("%d: %s", r.status, r.raw)
	}
	return answerOf(h.t, r.raw)
}

// answerOf reads an answer and proves that the hand-written JSON is that of
// the documented structure: same fields, same order, same values.
func answerOf(t testing.TB, raw []byte) Answer {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var a Answer
	if err := dec.Decode(&a); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	var again bytes.Buffer
	enc := json.NewEncoder(&again)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&a); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, again.Bytes()) { // the stores of the tests list carriers as the encoder sorts them
		t.Fatalf("hand-written JSON differs from the structure:\n%s\n%s", raw, again.Bytes())
	}
	return a
}

func (a Answer) codes() string {
	var out []string
	for _, r := range a.Reasons {
		out = append(out, r.Code)
	}
	return strings.Join(out, " ")
}

func (h *house) verify(text string) verdict {
	h.t.Helper()
	body, _ := json.Marshal(map[string]string{"token": text})
	r := h.post("/v1/verify", "", string(body))
	var v verdict
	if err := json.Unmarshal(r.raw, &v); err != nil || r.status != http.StatusOK {
		h.t.Fatalf("%d: %s", r.status, r.raw)
	}
	return v
}

// wait moves the clock past what the cache gives again.
func (h *house) wait() { h.clock.Advance(time.Second) }

func somebody(n int) identity.Person {
	return identity.Person{byte(n * 37), byte(n * 91), byte(n), 15: byte(n)}
}

func tested(o pb.Outcome, pool uint32, ago time.Duration) pb.Tube {
	at := now.Add(-ago)
	return pb.Tube{Tube: "52010012345678", Pool: pool, SampledAt: at.UnixMilli(), ReceivedAt: at.Add(2 * time.Hour).UnixMilli(),
		TestedAt: at.Add(5 * time.Hour).UnixMilli(), ReportedAt: at.Add(6 * time.Hour).UnixMilli(), Outcome: o}
}

func restrictionJSON(p identity.Person, more string) string {
	return fmt.Sprintf(`{"person":%q,"reason":"close_contact","evidence":"case 17","operator":"n17","approver":"n18","source":"520103"%s}`, p, more)
}

func releaseJSON(p identity.Person, ids ...string) string {
	list, _ := json.Marshal(ids)
	return fmt.Sprintf(`{"person":%q,"restrictions":%s,"reason":"two negatives a day apart","evidence":"form 4","operator":"n17","approver":"n18","source":"520103"}`, p, list)
}

// restrictionID is the id that the Location of a write names.
func restrictionID(r reply) string { _, id, _ := strings.Cut(r.header.Get("Location"), "#"); return id }

// TestEveryRouteIsDescribed holds the list of handlers against openapi.yaml,
// both ways.
func TestEveryRouteIsDescribed(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	for _, r := range (&API{}).Routes() {
		served = append(served, strings.TrimSuffix(r.Pattern, "{$}"))
	}
	slices.Sort(described)
	slices.Sort(served)
	if !slices.Equal(described, served) {
		t.Fatalf("described %q\nserved    %q", described, served)
	}
}

// TestEveryCodeIsExplainedAndDescribed: a code that a row can carry has words,
// and stands in openapi.yaml.
func TestEveryCodeIsExplainedAndDescribed(t *testing.T) {
	for code, p := range problems {
		if p.Message == "" || p.Fix == "" {
			t.Errorf("%s has no words", code)
		}
		if !strings.Contains(string(openAPI), code) {
			t.Errorf("%s is not in openapi.yaml", code)
		}
	}
	for _, code := range rules.Codes() {
		if explain(code) == nil {
			t.Errorf("%s is not explained", code)
		}
	}
	if explain("no such code") != nil {
		t.Error("words for nothing")
	}
}

func TestShowingAndCheckingACodeIsVital(t *testing.T) {
	for _, r := range (&API{}).Routes() {
		want := web.Normal
		switch r.Pattern {
		case "GET /v1/code", "POST /v1/verify":
			want = web.Vital
		case "GET /v1/vaccinations":
			want = web.Optional
		}
		if r.Class != want {
			t.Errorf("%s is %v", r.Pattern, r.Class)
		}
	}
}

func TestContractAndPageAreServed(t *testing.T) {
	h := newHouse(t, 1)
	if r := h.get("/openapi.yaml"); r.status != http.StatusOK || !bytes.Equal(r.raw, openAPI) {
		t.Fatal(r.status)
	}
	index := h.get("/")
	if index.status != http.StatusOK || !strings.Contains(index.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Fatal(index.status, index.header)
	}
	entries, err := os.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		r := h.get("/page/" + e.Name())
		if r.status != http.StatusOK || r.header.Get("Content-Type") == "" {
			t.Errorf("%s: %d", e.Name(), r.status)
		}
		if bytes.Contains(r.raw, []byte("//")) && bytes.Contains(r.raw, []byte("http")) && !strings.HasSuffix(e.Name(), ".js") {
			t.Errorf("%s loads something from elsewhere", e.Name())
		}
		if e.Name() != "index.html" && !bytes.Contains(index.raw, []byte("/page/"+e.Name())) {
			t.Errorf("%s is not part of the page", e.Name())
		}
	}
	if r := h.get("/page/none.js"); r.status != http.StatusNotFound {
		t.Fatal(r.status)
	}
}
