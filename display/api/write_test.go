package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/display/displaypb"
	"qianma/display/rules"
	"qianma/display/token"
	pb "qianma/middle-store/middlestorepb"
)

const document = `{"kind":"resident","number":"110101202311012176"}`

func (h *house) resolve(doc string) string {
	h.t.Helper()
	var got struct{ Person string }
	r := h.post("/v1/persons/resolve", "", `{"document":`+doc+`}`)
	if err := json.Unmarshal(r.raw, &got); err != nil || r.status != http.StatusOK {
		h.t.Fatalf("%d: %s", r.status, r.raw)
	}
	return got.Person
}

func TestApplyForACode(t *testing.T) {
	h := newHouse(t, 1)
	guardian := h.resolve(`{"kind":"passport","number":"E1234567","country":"GBR"}`)
	body := fmt.Sprintf(`{"document":%s,"name":" 王小明 ","phone":"13800000000","division":"520103","guardian":{"person":%q}}`, document, guardian)
	r := h.accept("/v1/citizens", body)
	person := h.resolve(document)
	if r.header.Get("Location") != "/v1/citizens/"+person {
		t.Fatal(r.header)
	}
	var c citizen
	if r := h.get("/v1/citizens/" + person); json.Unmarshal(r.raw, &c) != nil || c.Name != "王**" || c.Guardian != guardian || c.DocumentKind != "resident" || c.Doubtful || c.Stale {
		t.Fatalf("%s", r.raw)
	}
	// Nothing of name, number or telephone is in what is committed.
	var facts []byte
	for _, b := range h.proposer.Blocks(0) {
		facts = append(facts, b.Body...)
	}
	for _, secret := range []string{"王", "110101202311012176", "13800000000"} {
		if bytes.Contains(facts, []byte(secret)) {
			t.Errorf("%q can be read in the facts", secret)
		}
	}
	if r := h.get("/v1/citizens/" + somebody(9).String()); r.status != http.StatusNotFound {
		t.Fatal(r.status)
	}
	// The same application again is a newer one; a correction takes it back.
	h.clock.Advance(time.Second)
	h.accept("/v1/citizens", strings.Replace(body, "520103", "520201", 1))
	if r := h.get("/v1/citizens/" + person); !strings.Contains(string(r.raw), "520201") {
		t.Fatalf("%s", r.raw)
	}
}

func TestWrongCheckDigitIsTakenAndMarked(t *testing.T) {
	h := newHouse(t, 1)
	doc := strings.Replace(document, "2176", "2175", 1)
	h.accept("/v1/citizens", fmt.Sprintf(`{"document":%s,"name":"a","division":"520103"}`, doc))
	if r := h.get("/v1/citizens/" + h.resolve(doc)); !strings.Contains(string(r.raw), `"doubtful":true`) {
		t.Fatalf("%s", r.raw)
	}
}

func TestDeclarationShowsAndIsTakenBack(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.accept("/v1/declarations", fmt.Sprintf(`{"person":%q,"symptoms":["fever","cough"],"temperature":38.25,"contact":true}`, p))
	a := h.show(p, "")
	if a.Level != "yellow" || a.Colour != "green" || !a.UnderManagement || a.codes() != "declared_symptoms declared_contact never_tested" {
		t.Fatalf("%+v", a)
	}
	if v := h.verify(a.Token); !v.Claims.UnderManagement || v.Claims.Level != "yellow" {
		t.Fatalf("%+v", v.Claims)
	}
	var declared displaypb.ID
	_ = h.proposer.Blocks(0)[0].Facts(func(_ uint64, f []byte) bool { declared = displaypb.IDOf(f); return true })
	f, _ := displaypb.Decode(firstFact(h.proposer.Blocks(0)[0]))
	if d := f.(*displaypb.Declared); d.Temperature != 383 || d.Symptoms != displaypb.Fever|displaypb.Cough {
		t.Fatalf("%+v", d)
	}
	h.accept("/v1/corrections", fmt.Sprintf(`{"person":%q,"fact":%q,"operator":"n17","reason":"typed for the wrong person"}`, p, declared))
	if a := h.show(p, ""); a.Level != "green" {
		t.Fatalf("%+v", a)
	}
}

func firstFact(b fact.Block) (out []byte) {
	_ = b.Facts(func(_ uint64, f []byte) bool { out = f; return false })
	return out
}

func TestGuardianIsBound(t *testing.T) {
	h := newHouse(t, 1)
	h.accept("/v1/guardians", fmt.Sprintf(`{"person":%q,"guardian":{"document":%s},"operator":"n17"}`, somebody(1), document))
}

func TestRestrictionTakesLevelAndEndFromTheRules(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.accept("/v1/restrictions", restrictionJSON(p, ""))
	r := h.get("/v1/restrictions?person=" + p.String())
	var got struct{ Restrictions []shownRestriction }
	if err := json.Unmarshal(r.raw, &got); err != nil || len(got.Restrictions) != 1 {
		t.Fatalf("%s", r.raw)
	}
	if x := got.Restrictions[0]; x.Level != "red" || x.From != "2022-03-01T12:00:00Z" || x.Until != "2022-03-22T12:00:00Z" || x.Scope != "province" || x.State != "in_force" {
		t.Fatalf("%+v", x)
	}
	h.clock.Advance(21 * 24 * time.Hour)
	if a := h.show(p, ""); a.Colour == "red" {
		t.Fatalf("a restriction that nobody renewed did not end: %+v", a)
	}
}

func TestRestrictionBatchAnswersEachRow(t *testing.T) {
	for _, shards := range []int{1, 4} {
		h := newHouse(t, shards)
		var rows []string
		for i := range 12 {
			rows = append(rows, restrictionJSON(somebody(i+1), ""))
		}
		rows = append(rows, `{"nonsense":1}`, restrictionJSON(somebody(1), `,"level":"blue"`), strings.Replace(rows[0], "n18", "N17", 1))
		r := h.send("POST", "/v1/restrictions/batch", "application/json", "k1", `{"rows":[`+strings.Join(rows, ",")+`]}`, true)
		if r.status != http.StatusOK || r.body.Accepted != 12 || r.body.Rejected != 3 || len(r.body.Rows) != 3 {
			t.Fatalf("%d: %s", r.status, r.raw)
		}
		for i, code := range []string{"unknown_field", "level_invalid", "approver_missing"} {
			if x := r.body.Rows[i]; x.Row != 12+i || x.Code != code {
				t.Errorf("%+v, want %s", x, code)
			}
		}
		r = h.send("POST", "/v1/restrictions/batch", "application/x-ndjson", "", strings.Join(rows, "\n"), true)
		if r.body.Duplicate != 12 {
			t.Fatalf("%s", r.raw)
		}
	}
}

func TestReleaseBeforeItsRestrictionIsTakenAndSaid(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	r := h.accept("/v1/releases", releaseJSON(p, displaypb.ID{1}.String()))
	if len(r.body.Rows) != 1 || r.body.Rows[0].Code != rules.CodeNotHereYet || r.body.Rows[0].Status != "accepted" {
		t.Fatalf("%s", r.raw)
	}
}

func TestRepeatsAndReusedKeys(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	first := h.post("/v1/restrictions", "k1", restrictionJSON(p, ""))
	h.clock.Advance(time.Second) // the door would stamp another time now
	again := h.post("/v1/restrictions", "k1", restrictionJSON(p, ""))
	if !again.body.Receipt.Replayed || again.body.Receipt.First != first.body.Receipt.First {
		t.Fatalf("%s", again.raw)
	}
	if other := h.post("/v1/restrictions", "k1", restrictionJSON(p, `,"level":"orange"`)); other.status != http.StatusConflict || other.body.Code != "key_reused" {
		t.Fatalf("%d: %s", other.status, other.raw)
	}
}

func TestReplicatedIsSaidOnlyWhenReached(t *testing.T) {
	h := newHouse(t, 1)
	if r := h.post("/v1/restrictions?ack=replicated&wait=10ms", "", restrictionJSON(somebody(1), "")); r.body.Receipt.Level != "committed" {
		t.Fatalf("%s", r.raw)
	}
	h.proposer.Replicate()
	if r := h.post("/v1/restrictions?ack=replicated&wait=10ms", "", restrictionJSON(somebody(2), "")); r.body.Receipt.Level != "replicated" {
		t.Fatalf("%s", r.raw)
	}
}

func ruleSetJSON(t *testing.T, change ...string) string {
	t.Helper()
	raw, err := os.ReadFile("../colour/guizhou.json")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.NewReplacer(append([]string{`"version": 0`, `"version": 1`, "1970-01-01T00:00:00Z", "2022-03-01T12:00:05Z"}, change...)...).Replace(string(raw))
	return fmt.Sprintf(`{"rule_set":%s,"operator":"n17","approver":"n18","source":"520000"}`, doc)
}

// TestRuleSetComesIntoForceAtItsTime publishes stricter rules for five seconds
// from now.
func TestRuleSetComesIntoForceAtItsTime(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomeNegative, 1, 50*time.Hour)}})
	h.accept("/v1/rule-sets", ruleSetJSON(t, `"hours": 72, "counted_from"`, `"hours": 48, "counted_from"`, `"unproven": "green"`, `"unproven": "orange"`))
	h.clock.Advance(2 * time.Second)
	if a := h.show(p, ""); a.Colour != "green" || a.RuleSet != "guizhou@0" {
		t.Fatalf("%+v", a)
	}
	h.clock.Advance(3 * time.Second)
	if a := h.show(p, ""); a.Colour != "orange" || a.codes() != "negative_expired" || a.RuleSet != "guizhou@1" || a.Reasons[0].Rule != "guizhou@1" {
		t.Fatalf("%+v", a)
	}
	var got struct {
		RuleSets []shownRuleSet `json:"rule_sets"`
	}
	if r := h.get("/v1/rule-sets"); json.Unmarshal(r.raw, &got) != nil || len(got.RuleSets) != 2 || got.RuleSets[0].Active || !got.RuleSets[1].Active || got.RuleSets[1].Approver != "n18" {
		t.Fatalf("%s", r.raw)
	}
	h.accept("/v1/restrictions", restrictionJSON(p, `,"rule":"guizhou","rule_version":1`))
	taken := h.post("/v1/rule-sets", "", ruleSetJSON(t))
	if taken.status != http.StatusUnprocessableEntity || taken.body.Code != rules.CodeVersionTaken {
		t.Fatalf("%d: %s", taken.status, taken.raw)
	}
}

// TestRefusedRowsSayWhy: each fault its own code, in words, and nothing kept.
func TestRefusedRowsSayWhy(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	good := restrictionJSON(p, "")
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	citizen := fmt.Sprintf(`{"document":%s,"name":"a","division":"520103"}`, document)
	for name, c := range map[string]struct {
		path, body string
		status     int
		code       string
	}{
		"not JSON":              {"/v1/restrictions", `{`, 400, "malformed"},
		"cut short":             {"/v1/restrictions", good[:len(good)-3], 400, "malformed"},
		"unknown field":         {"/v1/restrictions", with(`"reason"`, `"raison":1,"reason"`), 400, "unknown_field"},
		"wrong type":            {"/v1/restrictions", with(`"n17"`, `17`), 400, "malformed"},
		"nobody":                {"/v1/restrictions", with(`"person":"`+p.String()+`",`, ``), 422, "person_missing"},
		"both":                  {"/v1/restrictions", with(`"reason"`, `"document":`+document+`,"reason"`), 422, "person_twice"},
		"bad person":            {"/v1/restrictions", with(p.String(), "p_x"), 422, "invalid_person"},
		"bad document":          {"/v1/persons/resolve", `{"document":{"kind":"resident","number":"12345"}}`, 422, "invalid_document"},
		"no document":           {"/v1/persons/resolve", `{}`, 422, "person_missing"},
		"a cause that is none":  {"/v1/restrictions", with("close_contact", "bank_depositor"), 422, "cause_unknown"},
		"no second person":      {"/v1/restrictions", with(`"approver":"n18",`, ``), 422, "approver_missing"},
		"the same person":       {"/v1/restrictions", with("n18", " N17"), 422, "approver_missing"},
		"a rule nobody has":     {"/v1/restrictions", with(`"reason"`, `"rule":"x","rule_version":9,"reason"`), 422, "rule_unknown"},
		"a level that is none":  {"/v1/restrictions", with(`"reason"`, `"level":"blue","reason"`), 422, "level_invalid"},
		"green":                 {"/v1/restrictions", with(`"reason"`, `"level":"green","reason"`), 422, "level_invalid"},
		"ends first":            {"/v1/restrictions", with(`"reason"`, `"until":"2022-01-01T00:00:00Z","reason"`), 422, "period_invalid"},
		"imposed next year":     {"/v1/restrictions", with(`"reason"`, `"at":"2023-01-01T00:00:00Z","reason"`), 422, "time_out_of_range"},
		"no division":           {"/v1/restrictions", with("520103", "somewhere"), 422, "division_invalid"},
		"release of nothing":    {"/v1/releases", releaseJSON(p), 422, "restrictions_missing"},
		"release of no fact":    {"/v1/releases", releaseJSON(p, "f_x"), 422, "invalid_fact"},
		"release of one twice":  {"/v1/releases", releaseJSON(p, displaypb.ID{1}.String(), displaypb.ID{1}.String()), 422, "restrictions_missing"},
		"unknown symptom":       {"/v1/declarations", fmt.Sprintf(`{"person":%q,"symptoms":["boredom"]}`, p), 422, "symptoms_invalid"},
		"impossible fever":      {"/v1/declarations", fmt.Sprintf(`{"person":%q,"temperature":99.9}`, p), 422, "symptoms_invalid"},
		"endless fever":         {"/v1/declarations", fmt.Sprintf(`{"person":%q,"temperature":1e300}`, p), 422, "symptoms_invalid"},
		"no name":               {"/v1/citizens", strings.Replace(citizen, `"a"`, `" "`, 1), 422, "invalid_name"},
		"endless name":          {"/v1/citizens", strings.Replace(citizen, `"a"`, `"`+strings.Repeat("a", 151)+`"`, 1), 422, "invalid_name"},
		"no such division":      {"/v1/citizens", strings.Replace(citizen, "520103", "052010", 1), 422, "division_invalid"},
		"own guardian":          {"/v1/citizens", strings.Replace(citizen, `"name"`, `"guardian":{"document":`+document+`},"name"`, 1), 422, "guardian_invalid"},
		"bound to itself":       {"/v1/guardians", fmt.Sprintf(`{"person":%q,"guardian":{"person":%q}}`, p, p), 422, "guardian_invalid"},
		"correction of nothing": {"/v1/corrections", fmt.Sprintf(`{"person":%q,"fact":%q,"operator":"n","reason":"r"}`, p, displaypb.ID{1}), 422, "unknown_fact"},
		"correction of no fact": {"/v1/corrections", fmt.Sprintf(`{"person":%q,"fact":"x","operator":"n","reason":"r"}`, p), 422, "invalid_fact"},
		"rules with a fault":    {"/v1/rule-sets", ruleSetJSON(t, `"blind_colour": "yellow"`, `"blind_colour": "green"`), 422, "rule_set_invalid"},
		"rules half known":      {"/v1/rule-sets", ruleSetJSON(t, `"words"`, `"wurds"`), 422, "rule_set_invalid"},
		"no rules":              {"/v1/rule-sets", `{"operator":"n17","approver":"n18","source":"520000"}`, 400, "malformed"},
		"verify without token":  {"/v1/verify", `{"tokn":"x"}`, 400, "unknown_field"},
		"verify for nobody":     {"/v1/verify", `{"token":"x","person":"y"}`, 422, "invalid"},
		"no rows":               {"/v1/restrictions/batch", `{"rows":[]}`, 400, "malformed"},
		"huge":                  {"/v1/verify", `{"token":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			one := *h
			one.t = t
			r := one.send("POST", c.path, "application/json", "", c.body, true)
			if r.status != c.status || r.body.Code != c.code || r.body.Message == "" || r.body.Fix == "" {
				t.Fatalf("%d: %s", r.status, r.raw)
			}
			if bytes.Contains(r.raw, []byte("110101202311012176")) || bytes.Contains(r.raw, []byte("12345")) {
				t.Fatalf("a document's number is repeated: %s", r.raw)
			}
		})
	}
	for _, b := range h.proposer.Blocks(0) {
		t.Fatalf("something was written: %d facts", b.Count)
	}
}

func TestTroubleBelowIsPassedOn(t *testing.T) {
	h := newHouse(t, 1)
	h.proposer.Refuse(3, problem.New(problem.Unavailable, "no leader", "try again").After(time.Second))
	if r := h.post("/v1/releases", "", releaseJSON(somebody(1), displaypb.ID{1}.String())); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
	if r := h.get("/v1/restrictions?person=" + somebody(1).String()); r.status != http.StatusServiceUnavailable {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

// TestWhatTheOtherCarrierSaidShows: facts that another door let in reach the
// caches of this one.
func TestWhatTheOtherCarrierSaidShows(t *testing.T) {
	h, other := newHouse(t, 1), newHouse(t, 1)
	p := somebody(1)
	h.show(p, "")
	other.accept("/v1/restrictions", restrictionJSON(p, ""))
	if err := h.proposer.Ingest(0, other.proposer.Blocks(0)); err != nil {
		t.Fatal(err)
	}
	if a := h.show(p, ""); a.Colour != "red" {
		t.Fatalf("%+v", a)
	}
}

// FuzzRows: no row panics, and nothing that is refused becomes a fact.
func FuzzRows(f *testing.F) {
	h := newHouse(f, 1)
	p := somebody(1)
	f.Add("/v1/restrictions", restrictionJSON(p, `,"until":"2022-03-05T00:00:00Z"`))
	f.Add("/v1/releases", releaseJSON(p, displaypb.ID{1}.String()))
	f.Add("/v1/declarations", fmt.Sprintf(`{"person":%q,"symptoms":["fever"],"temperature":37.5}`, p))
	f.Add("/v1/citizens", fmt.Sprintf(`{"document":%s,"name":"a","division":"520103"}`, document))
	f.Add("/v1/guardians", fmt.Sprintf(`{"person":%q,"guardian":{"document":%s}}`, p, document))
	f.Add("/v1/corrections", fmt.Sprintf(`{"person":%q,"fact":%q,"operator":"n","reason":"r"}`, p, displaypb.ID{1}))
	f.Add("/v1/verify", `{"token":"QM1:00"}`)
	f.Add("/v1/rule-sets", `{"rule_set":{},"operator":"a","approver":"b","source":"520000"}`)
	f.Add("/v1/restrictions/batch", `{"rows":[`+restrictionJSON(p, "")+`]}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		if !strings.HasPrefix(path, "/v1/") || strings.ContainsAny(path, " ?#%\x7f") || strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r > '~' }) {
			return
		}
		before := len(h.proposer.Blocks(0))
		resp, err := h.client.Post(h.base+path, "application/json", strings.NewReader(body))
		if err != nil {
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 500 {
			t.Fatalf("%s: %d", path, resp.StatusCode)
		}
		if resp.StatusCode != http.StatusOK && len(h.proposer.Blocks(0)) != before && resp.StatusCode != http.StatusConflict {
			last := h.proposer.Blocks(0)[before]
			t.Fatalf("%s: answered %d and wrote %x", path, resp.StatusCode, last.Body)
		}
	})
}

// crowd is a house with n people, for the benchmarks.
func crowd(b *testing.B, n int) (*house, []identity.Person) {
	h := newHouse(b, 1)
	people := make([]identity.Person, n)
	for i := range people {
		people[i] = identity.Person{byte(i), byte(i >> 8), byte(i >> 16), 9: byte(i * 7), 15: byte(i)}
		h.stores.know(people[i], pb.Person{Tubes: []pb.Tube{tested(pb.OutcomeNegative, 20, 13*time.Hour)}, HasDoses: true, Doses: pb.Doses{Count: 2, LastDay: 18997}})
	}
	return h, people
}

// sink is the least that can stand for a connection.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

func benchmarkCode(b *testing.B, people int, step time.Duration) {
	h, all := crowd(b, people)
	requests := make([]*http.Request, len(all))
	for i, p := range all {
		requests[i], _ = http.NewRequest("GET", "/v1/code?person="+p.String(), nil)
	}
	w := &sink{http.Header{}}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; i%len(all) == 0 {
			h.clock.Advance(step)
		}
		h.server.ServeHTTP(w, requests[i%len(all)])
	}
}

// BenchmarkCodeCached gives the same moment's answer again.
func BenchmarkCodeCached(b *testing.B) { benchmarkCode(b, 1000, 0) }

// BenchmarkCodeWarm looks up each time, with a token that still counts.
func BenchmarkCodeWarm(b *testing.B) { benchmarkCode(b, 1000, 400*time.Millisecond) }

// BenchmarkCodeCold looks up and signs each time.
func BenchmarkCodeCold(b *testing.B) { benchmarkCode(b, 1000, time.Minute) }

// BenchmarkQR draws a picture.
func BenchmarkQR(b *testing.B) {
	h := newHouse(b, 1)
	text := h.show(somebody(1), "").Token
	b.ReportAllocs()
	for b.Loop() {
		if _, err := drawQR(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify checks tokens as a busy gate would.
func BenchmarkVerify(b *testing.B) {
	h := newHouse(b, 1)
	text := h.show(somebody(1), "").Token
	keys, err := token.LoadKeySet(h.secrets + "/" + token.KeySetFile)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := token.Verify(keys, text, now); err != nil {
			b.Fatal(err)
		}
	}
}
