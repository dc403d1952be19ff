package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"qianma/cluster/clock"
	"qianma/cluster/identity"
	"qianma/cluster/leaktest"
	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/vaccine/rules"
	"qianma/vaccine/vaccinepb"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var now = time.Date(2022, 3, 1, 12, 0, 0, 0, time.UTC)

// calm is the clock of the server below the door: it stands, so that a busy
// machine is not taken for a process that has more to do than it can, which
// would turn requests away.
var calm = clock.NewManual(now)

// house is the real door over a floor in memory. Every answer it gives is
// held against openapi.yaml.
type house struct {
	t        *testing.T
	proposer *machinetest.Proposer
	base     string
	router   routers.Router
	client   *http.Client
}

func newHouse(t *testing.T, shards int) *house {
	t.Helper()
	p := machinetest.NewProposer(shards, rules.New)
	p.Now = func() int64 { return now.UnixNano() }
	hasher, err := identity.NewHasher(bytes.Repeat([]byte{7}, identity.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	s, err := web.New(web.Config{Addr: "127.0.0.1:0", Name: "unicom-vaccine-1", Clock: calm})
	if err != nil {
		t.Fatal(err)
	}
	New(Config{Proposer: p, Hasher: hasher, Clock: clock.NewManual(now)}).Register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return &house{t: t, proposer: p, base: "http://" + s.Addr().String(), router: described(t), client: client}
}

func described(t *testing.T) routers.Router {
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
	body   struct {
		Receipt                               receipt
		Receipts                              []receipt
		Accepted, Duplicate, Conflict, Reject int
		Rejected                              int
		Rows                                  []struct {
			Row                        int
			Status, Code, Message, Fix string
		}
		Code, Message, Fix string
	}
}

type receipt struct {
	Level, Origin string
	First, Last   uint64
	Replayed      bool
}

// send makes a request. A request that the description allows is checked
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
	if method == "POST" || resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(out.raw, &out.body); err != nil {
			h.t.Fatal(err)
		}
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

func (h *house) read(person string) history {
	h.t.Helper()
	r := h.send("GET", "/v1/persons/"+person+"/doses", "", "", "", false)
	if r.status != http.StatusOK {
		h.t.Fatalf("%d: %s", r.status, r.raw)
	}
	var out history
	if err := json.Unmarshal(r.raw, &out); err != nil {
		h.t.Fatal(err)
	}
	return out
}

func somebody(n int) string {
	p := identity.Person{}
	binary.BigEndian.PutUint32(p[:], uint32(n+1)*0x9e3779b9)
	return p.String()
}

func doseJSON(person string, n int, day string) string {
	return fmt.Sprintf(`{"person":%q,"product":"BBIBP-CorV","batch":"202108B2715","dose":%d,"site":"520103-01","day":%q,"operator":"n17"}`, person, n, day)
}

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
		served = append(served, r.Pattern)
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
	for _, code := range append(slices.Clone(rules.Codes), codeCheckDigit) {
		if p := explain(code); p == nil || p.Message == "" || p.Fix == "" {
			t.Errorf("%s has no words", code)
		}
		if !strings.Contains(string(openAPI), code) {
			t.Errorf("%s is not in openapi.yaml", code)
		}
	}
	if explain("no such code") != nil {
		t.Error("words for nothing")
	}
}

func TestDoseFromScanToHistory(t *testing.T) {
	for _, shards := range []int{1, 4} {
		h := newHouse(t, shards)
		r := h.post("/v1/doses", "k1", doseJSON(somebody(1), 1, "2022-01-05"))
		if r.status != http.StatusOK || r.body.Accepted != 1 || r.body.Receipt.Level != "committed" || r.body.Receipt.First != 1 {
			t.Fatalf("%d: %s", r.status, r.raw)
		}
		got := h.read(somebody(1))
		if got.Count != 1 || got.LastDay != "2022-01-05" || len(got.Doses) != 1 || got.Doses[0].State != "counts" || got.AsOf == "" {
			t.Fatalf("got %+v", got)
		}
		if other := h.read(somebody(2)); other.Count != 0 || other.LastDay != "" {
			t.Fatalf("got %+v", other)
		}
	}
}

func TestRepeatsAndReusedKeys(t *testing.T) {
	h := newHouse(t, 1)
	body := doseJSON(somebody(1), 1, "2022-01-05")
	first := h.post("/v1/doses", "k1", body)
	if again := h.post("/v1/doses", "k1", body); !again.body.Receipt.Replayed || again.body.Receipt.First != first.body.Receipt.First {
		t.Fatalf("%s", again.raw)
	}
	if again := h.post("/v1/doses", "k2", body); again.body.Duplicate != 1 || again.body.Receipt.First != 0 {
		t.Fatalf("%s", again.raw)
	}
	if other := h.post("/v1/doses", "k1", doseJSON(somebody(1), 2, "2022-01-06")); other.status != http.StatusConflict || other.body.Code != "key_reused" {
		t.Fatalf("%d: %s", other.status, other.raw)
	}
}

// TestKeyGuardsAllShards: a key whose rows go to several shards is claimed
// where the key itself belongs.
func TestKeyGuardsAllShards(t *testing.T) {
	h := newHouse(t, 4)
	batch := func(day string) string {
		var rows []string
		for n := range 12 {
			rows = append(rows, doseJSON(somebody(n), 1, day))
		}
		return `{"rows":[` + strings.Join(rows, ",") + `]}`
	}
	r := h.post("/v1/doses/batch", "k1", batch("2022-01-05"))
	if r.body.Accepted != 12 || len(r.body.Receipts) < 2 {
		t.Fatalf("%s", r.raw)
	}
	if r := h.post("/v1/doses/batch", "k1", batch("2022-01-05")); r.body.Duplicate != 12 {
		t.Fatalf("%s", r.raw)
	}
	if r := h.post("/v1/doses/batch", "k1", batch("2022-01-06")); r.status != http.StatusConflict || r.body.Code != "key_reused" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

func TestConflictIsKeptAndSaid(t *testing.T) {
	h := newHouse(t, 1)
	h.post("/v1/doses", "", doseJSON(somebody(1), 1, "2022-01-05"))
	r := h.post("/v1/doses", "", doseJSON(somebody(1), 1, "2022-01-06"))
	if r.status != http.StatusConflict || r.body.Code != rules.CodeOtherDose || r.body.Receipt.First != 2 || !strings.Contains(r.body.Message, "kept") {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	got := h.read(somebody(1))
	if !got.Conflict || len(got.Doses) != 2 || got.Count != 1 || got.Doses[1].State != "conflict" {
		t.Fatalf("got %+v", got)
	}
	fix := fmt.Sprintf(`{"person":%q,"fact":%q,"operator":"n17","reason":"typed into the wrong row"}`, somebody(1), got.Doses[1].Fact)
	if r := h.post("/v1/corrections", "k9", fix); r.status != http.StatusOK || r.body.Accepted != 1 {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	got = h.read(somebody(1))
	if got.Conflict || got.Doses[1].State != "withdrawn" || got.Doses[0].State != "counts" || len(got.Corrections) != 1 || !got.Corrections[0].Stands || got.LastDay != "2022-01-05" {
		t.Fatalf("got %+v", got)
	}
}

func TestRefusedRowsSayWhy(t *testing.T) {
	h := newHouse(t, 1)
	dose := doseJSON(somebody(1), 1, "2022-01-05")
	with := func(old, new string) string { return strings.Replace(dose, old, new, 1) }
	for name, c := range map[string]struct {
		path, body string
		status     int
		code       string
	}{
		"not JSON":         {"/v1/doses", `{`, 400, "malformed"},
		"cut short":        {"/v1/doses", dose[:len(dose)-3], 400, "malformed"},
		"unknown field":    {"/v1/doses", with(`"dose"`, `"doze":1,"dose"`), 400, "unknown_field"},
		"wrong type":       {"/v1/doses", with(`"dose":1`, `"dose":"one"`), 400, "malformed"},
		"negative dose":    {"/v1/doses", with(`"dose":1`, `"dose":-1`), 400, "malformed"},
		"nobody":           {"/v1/doses", with(`"person":"`+somebody(1)+`",`, ``), 422, "invalid"},
		"bad person":       {"/v1/doses", with(somebody(1), "p_nobody"), 422, "invalid"},
		"both":             {"/v1/doses", with(`"dose"`, `"document":{"kind":"passport","number":"E1","country":"GBR"},"dose"`), 422, "invalid"},
		"no such day":      {"/v1/doses", with("2022-01-05", "2022-02-30"), 422, "invalid"},
		"long ago":         {"/v1/doses", with("2022-01-05", "0001-01-05"), 422, "invalid"},
		"before any":       {"/v1/doses", with("2022-01-05", "2019-01-05"), 422, rules.CodeTooEarly},
		"tomorrow":         {"/v1/doses", with("2022-01-05", "2022-03-03"), 422, rules.CodeFutureDay},
		"no product":       {"/v1/doses", with("BBIBP-CorV", ""), 422, rules.CodeInvalid},
		"dose 0":           {"/v1/doses", with(`"dose":1`, `"dose":0`), 422, rules.CodeInvalid},
		"no rows":          {"/v1/doses/batch", `{"rows":[]}`, 400, "malformed"},
		"rows and more":    {"/v1/doses/batch", `{"rows":[` + dose + `],"x":1}`, 400, "unknown_field"},
		"not a fact id":    {"/v1/corrections", `{"person":"` + somebody(1) + `","fact":"f_x","operator":"n","reason":"r"}`, 422, "invalid"},
		"unknown fact":     {"/v1/corrections", `{"person":"` + somebody(1) + `","fact":"` + vaccinepb.ID{1}.String() + `","operator":"n","reason":"r"}`, 422, rules.CodeUnknownFact},
		"no reason":        {"/v1/corrections", `{"person":"` + somebody(1) + `","fact":"` + vaccinepb.ID{1}.String() + `","operator":"n","reason":""}`, 422, rules.CodeInvalid},
		"corrected in May": {"/v1/corrections", `{"person":"` + somebody(1) + `","fact":"` + vaccinepb.ID{1}.String() + `","operator":"n","reason":"r","corrected_at":"2022-05-01T00:00:00Z"}`, 422, rules.CodeFutureDay},
	} {
		t.Run(name, func(t *testing.T) {
			r := (&house{t, h.proposer, h.base, h.router, h.client}).send("POST", c.path, "application/json", "", c.body, true)
			if r.status != c.status || r.body.Code != c.code || r.body.Message == "" || r.body.Fix == "" {
				t.Fatalf("%d: %s", r.status, r.raw)
			}
		})
	}
	if got := h.proposer.Blocks(0); len(got) != 0 {
		t.Fatalf("something was written: %d blocks", len(got))
	}
}

// TestBatchAnswersEachRow: good rows go in whatever stands beside them.
func TestBatchAnswersEachRow(t *testing.T) {
	h := newHouse(t, 1)
	dose := doseJSON(somebody(1), 1, "2022-01-05")
	rows := []string{dose, dose, doseJSON(somebody(1), 1, "2022-01-06"), `{"nonsense":1}`, doseJSON(somebody(2), 0, "2022-01-05"), doseJSON(somebody(3), 1, "2022-01-05")}
	for kind, body := range map[string]string{"application/json": `{"rows":[` + strings.Join(rows, ",") + `]}`, "application/x-ndjson": strings.Join(rows, "\n")} {
		r := h.send("POST", "/v1/doses/batch", kind, "", body, true)
		if r.status != http.StatusOK || r.body.Accepted+r.body.Duplicate+r.body.Conflict+r.body.Rejected != 6 || r.body.Rejected != 2 {
			t.Fatalf("%s: %d: %s", kind, r.status, r.raw)
		}
		for i, want := range map[int]string{3: "unknown_field", 4: rules.CodeInvalid} {
			if !slices.ContainsFunc(r.body.Rows, func(x struct {
				Row                        int
				Status, Code, Message, Fix string
			}) bool {
				return x.Row == i && x.Status == "rejected" && x.Code == want
			}) {
				t.Fatalf("%s: row %d is not named %s: %s", kind, i, want, r.raw)
			}
		}
	}
	if got := h.read(somebody(1)); len(got.Doses) != 2 || !got.Conflict {
		t.Fatalf("got %+v", got)
	}
}

func TestBatchOfFacts(t *testing.T) {
	h := newHouse(t, 1)
	good := vaccinepb.AppendDoseGiven(nil, &vaccinepb.DoseGiven{Person: vaccinepb.Person{1}, Product: "A", Batch: "B", Dose: 1, Site: "S", Day: 18997})
	loose := append(slices.Clone(good), 0xd8, 0x05, 0x01) // a field of nobody's, behind it
	var body []byte
	for _, f := range [][]byte{good, good, loose, {0x9a, 0x01, 0x00}, {0xff}} {
		body = append(binary.AppendUvarint(body, uint64(len(f))), f...)
	}
	r := h.send("POST", "/v1/doses/batch", "application/x-qianma-facts", "", string(body), true)
	if r.status != http.StatusOK || r.body.Accepted != 1 || r.body.Duplicate != 1 || r.body.Rejected != 3 {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	if r.body.Rows[0].Code != "malformed" || r.body.Rows[1].Code != "unsupported" || r.body.Rows[2].Code != "malformed" {
		t.Fatalf("%s", r.raw)
	}
}

func TestWrongCheckDigitIsTakenAndNamed(t *testing.T) {
	h := newHouse(t, 1)
	body := func(number string) string {
		return fmt.Sprintf(`{"document":{"kind":"resident","number":%q},"product":"A","batch":"B","dose":1,"site":"S","day":"2022-01-05"}`, number)
	}
	r := h.post("/v1/doses", "", body("110101202311012175"))
	if r.status != http.StatusOK || r.body.Accepted != 1 || len(r.body.Rows) != 1 || r.body.Rows[0].Code != codeCheckDigit {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	if r := h.post("/v1/doses", "", body("110101202311012176")); r.body.Accepted != 1 || len(r.body.Rows) != 0 {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	r = h.post("/v1/doses", "", body("12345"))
	if r.status != http.StatusUnprocessableEntity || bytes.Contains(r.raw, []byte("12345")) {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

func TestReplicatedIsSaidOnlyWhenReached(t *testing.T) {
	h := newHouse(t, 1)
	r := h.post("/v1/doses?ack=replicated&wait=10ms", "", doseJSON(somebody(1), 1, "2022-01-05"))
	if r.status != http.StatusOK || r.body.Receipt.Level != "committed" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	h.proposer.Replicate()
	r = h.post("/v1/doses?ack=replicated&wait=10ms", "", doseJSON(somebody(1), 2, "2022-01-06"))
	if r.body.Receipt.Level != "replicated" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	if r = h.post("/v1/doses", "", doseJSON(somebody(1), 3, "2022-01-07")); r.body.Receipt.Level != "committed" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

func TestTroubleBelowIsPassedOn(t *testing.T) {
	h := newHouse(t, 1)
	h.proposer.Refuse(3, problem.New(problem.Unavailable, "no leader", "try again").After(time.Second))
	for _, r := range []reply{h.post("/v1/doses", "", doseJSON(somebody(1), 1, "2022-01-05")), h.send("GET", "/v1/persons/"+somebody(1)+"/doses", "", "", "", false)} {
		if r.status != http.StatusServiceUnavailable || r.body.Code != "unavailable" || r.header.Get("Retry-After") == "" {
			t.Fatalf("%d: %s", r.status, r.raw)
		}
	}
}

// TestHalfABatchIsUnknown: one shard committed and another did not.
func TestHalfABatchIsUnknown(t *testing.T) {
	h := newHouse(t, 4)
	rows := make([]string, 12)
	for n := range rows {
		rows[n] = doseJSON(somebody(n), 1, "2022-01-05")
	}
	h.proposer.Refuse(1, problem.New(problem.Unavailable, "no leader", "try again"))
	r := h.post("/v1/doses/batch", "", `{"rows":[`+strings.Join(rows, ",")+`]}`)
	if r.status != http.StatusGatewayTimeout || r.body.Code != "unknown_outcome" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	if r = h.post("/v1/doses/batch", "", `{"rows":[`+strings.Join(rows, ",")+`]}`); r.body.Accepted == 0 || r.body.Duplicate == 0 || r.body.Accepted+r.body.Duplicate != 12 {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

// TestHistoryWithoutAMajorityIsStale: what this process has is better than
// nothing, as long as it says so.
func TestHistoryWithoutAMajorityIsStale(t *testing.T) {
	h := newHouse(t, 1)
	h.post("/v1/doses", "", doseJSON(somebody(1), 1, "2022-01-05"))
	h.proposer.Refuse(1, problem.New(problem.Unavailable, "no leader", "try again"))
	if got := h.read(somebody(1)); !got.Stale || got.Count != 1 {
		t.Fatalf("got %+v", got)
	}
	if got := h.read(somebody(1)); got.Stale {
		t.Fatalf("got %+v", got)
	}
}

func TestHistoryOfABadName(t *testing.T) {
	h := newHouse(t, 1)
	if r := h.send("GET", "/v1/persons/110101202311012176/doses", "", "", "", true); r.status != http.StatusUnprocessableEntity || bytes.Contains(r.raw, []byte("110101")) {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

func TestDescriptionIsServed(t *testing.T) {
	h := newHouse(t, 1)
	if r := h.send("GET", "/openapi.yaml", "", "", "", false); r.status != http.StatusOK || !bytes.Equal(r.raw, openAPI) {
		t.Fatalf("%d", r.status)
	}
}

var _ machine.Proposer = (*machinetest.Proposer)(nil)

// FuzzDoseRow: whatever stands in a row, the answer is a fact the rules can
// judge or a problem, never a panic.
func FuzzDoseRow(f *testing.F) {
	hasher, err := identity.NewHasher(bytes.Repeat([]byte{7}, identity.KeySize))
	if err != nil {
		f.Fatal(err)
	}
	a := New(Config{Proposer: machinetest.NewProposer(1, rules.New), Hasher: hasher, Clock: clock.NewManual(now)})
	f.Add([]byte(doseJSON(somebody(1), 1, "2022-01-05")))
	f.Add([]byte(`{"document":{"kind":"resident","number":"110101202311012176"},"dose":1,"day":"2022-01-05"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := a.readRow(raw)
		if c.Problem != nil {
			return
		}
		if got, err := vaccinepb.Decode(c.Command); err != nil || got.Kind != vaccinepb.KindDoseGiven {
			t.Fatalf("a row became %x: %v", c.Command, err)
		}
	})
}
