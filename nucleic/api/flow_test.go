package api_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/api"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

func TestTheContractNamesEveryRouteAndNoOther(t *testing.T) {
	doc := loadContract(t)
	var want, got []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			want = append(want, method+" "+path)
		}
	}
	for _, r := range newDoor(t, 1).api.Routes() {
		got = append(got, r.Pattern)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("routes\n%v\ncontract\n%v", got, want)
	}
}

// everyShards runs a test on one shard, where a key and its facts live
// together, and on several, where they do not.
func everyShards(t *testing.T, fn func(t *testing.T, d *door)) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) { fn(t, newDoor(t, shards)) })
	}
}

func TestATubesWholeLife(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		d.ok("POST", "/v1/sites", m{"site": "GY-1", "name": "观山湖体育馆", "division": "520115"})
		if name := d.ok("GET", "/v1/sites/GY-1", nil).str("name"); name != "观山湖体育馆" {
			t.Fatalf("site %q", name)
		}
		d.ok("POST", "/v1/tubes", m{"tube": "52010012345678", "pool": 10, "site": "GY-1", "opened_at": stamp(-6 * time.Hour)})
		doc := m{"kind": "resident", "number": "110101202311012176"}
		a := d.ok("POST", "/v1/registrations", d.registration("52010012345678", 0, "person", nil, "document", doc))
		if a.str("receipt", "level") != "committed" || a.str("accepted") != "1" {
			t.Fatalf("%s", a.body)
		}
		d.ok("POST", "/v1/registrations", d.registration("52010012345678", 1))
		d.refused(422, "count_mismatch", "POST", "/v1/tubes/52010012345678/seal", m{"count": 3})
		d.ok("POST", "/v1/tubes/52010012345678/seal", m{"count": 2, "sealed_at": stamp(-4 * time.Hour)})
		d.refused(422, "tube_sealed", "POST", "/v1/registrations", d.registration("52010012345678", 2))
		d.ok("POST", "/v1/boxes", m{"box": "BOX-1", "tubes": []string{"52010012345678"}, "packed_at": stamp(-4 * time.Hour)})
		if l := d.ok("GET", "/v1/worklists/packed-not-received", nil); !slices.Equal(tubes(l), []string{"52010012345678"}) {
			t.Fatalf("%s", l.body)
		}
		d.ok("POST", "/v1/receptions", m{"lab": "lab-1", "box": "BOX-1", "received_at": stamp(-3 * time.Hour)})
		if l := d.ok("GET", "/v1/worklists/packed-not-received", nil); len(tubes(l)) != 0 {
			t.Fatalf("%s", l.body)
		}
		if l := d.ok("GET", "/v1/worklists/registrations-without-result?hours=5", nil); len(tubes(l)) != 0 {
			t.Fatalf("exactly five hours are not more than five: %s", l.body)
		}
		if l := d.ok("GET", "/v1/worklists/registrations-without-result?hours=4", nil); !slices.Equal(tubes(l), []string{"52010012345678"}) {
			t.Fatalf("%s", l.body)
		}
		d.ok("POST", "/v1/results", result("52010012345678"))
		if l := d.ok("GET", "/v1/worklists/registrations-without-result", nil); len(tubes(l)) != 0 {
			t.Fatalf("%s", l.body)
		}
		c := d.refused(409, "result_conflict", "POST", "/v1/results", result("52010012345678", "outcome", "positive"))
		if !strings.Contains(c.str("message"), "kept") || c.str("receipt", "level") != "committed" {
			t.Fatalf("a conflict must say that it is kept: %s", c.body)
		}
		tube := d.ok("GET", "/v1/tubes/52010012345678", nil)
		if tube.str("outcome") != "conflict" || len(tube.json["results"].([]any)) != 2 || len(tube.json["members"].([]any)) != 2 {
			t.Fatalf("%s", tube.body)
		}
		if l := d.ok("GET", "/v1/worklists/conflicts", nil); !slices.Equal(tubes(l), []string{"52010012345678"}) {
			t.Fatalf("%s", l.body)
		}
		d.ok("POST", "/v1/corrections", m{"tube": "52010012345678", "revision": 1, "outcome": "positive", "operator": "op-9", "reason": "lab mistook the plate"})
		tube = d.ok("GET", "/v1/tubes/52010012345678", nil)
		for field, want := range map[string]string{"outcome": "negative", "pool": "10", "sampled_at": stamp(-5 * time.Hour), "received_at": stamp(-3 * time.Hour), "reported_at": stamp(-time.Hour), "conflicts": "[]"} {
			if got := tube.str(field); got != want {
				t.Errorf("%s is %s, want %s", field, got, want)
			}
		}
		box := d.ok("GET", "/v1/boxes/BOX-1", nil)
		if box.str("count") != "1" || len(box.json["receptions"].([]any)) != 1 {
			t.Fatalf("%s", box.body)
		}
		if strings.Contains(string(tube.body), "110101202311012176") {
			t.Fatal("a document number is shown")
		}
	})
}

func tubes(a *answer) []string {
	out := []string{}
	for _, e := range a.json["entries"].([]any) {
		out = append(out, e.(map[string]any)["tube"].(string))
	}
	return out
}

func TestARebindingThroughTheDoor(t *testing.T) {
	d := newDoor(t, 1)
	d.ok("POST", "/v1/registrations", d.registration("TUBE1", 1))
	d.ok("POST", "/v1/corrections", m{"tube": "TUBE1", "person": d.someone(1), "rebind": m{"person": d.someone(2), "pool": "1"}, "operator": "op-9", "reason": "another person's card"})
	tube := d.ok("GET", "/v1/tubes/TUBE1", nil)
	for _, v := range tube.json["members"].([]any) {
		member := v.(map[string]any)
		if live := member["person"] == d.someone(2); member["live"] != live || (live && member["pool"] != "1") {
			t.Errorf("%v", member)
		}
	}
	c := tube.json["corrections"].([]any)[0].(map[string]any)
	if c["of"] != "registration" || c["rebind_to"] != d.someone(2) {
		t.Errorf("%v", c)
	}
	d.refused(422, "already_corrected", "POST", "/v1/corrections", m{"tube": "TUBE1", "person": d.someone(1), "rebind": m{"person": d.someone(3)}, "operator": "o", "reason": "r"})
	d.refused(422, "registration_unknown", "POST", "/v1/corrections", m{"tube": "TUBE1", "person": d.someone(7), "operator": "o", "reason": "r"})
	d.refused(422, "correction_of_what", "POST", "/v1/corrections", m{"tube": "TUBE1", "operator": "o", "reason": "r"})
	d.refused(422, "rebind_of_result", "POST", "/v1/corrections", m{"tube": "TUBE1", "revision": 1, "rebind": m{"person": d.someone(3)}, "operator": "o", "reason": "r"})
	d.refused(422, "invalid_outcome", "POST", "/v1/corrections", m{"tube": "TUBE1", "revision": 1, "outcome": "maybe", "operator": "o", "reason": "r"})
}

func TestBatchesJudgeEachRow(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		rows := []any{d.registration("TUBE1", 1), d.registration("TUBE2", 2), d.registration("TUBE1", 1), d.registration("TUBE3", 3, "pool", "30"), m{"tube": "TUBE4", "colour": "green"}, d.registration("TUBE5", 4, "sampled_at", stamp(time.Hour))}
		a := d.ok("POST", "/v1/registrations/batch", m{"rows": rows})
		if a.str("accepted") != "2" || a.str("duplicate") != "1" || a.str("rejected") != "3" {
			t.Fatalf("%s", a.body)
		}
		codes := map[string]string{}
		for _, r := range a.json["rows"].([]any) {
			codes[fmt.Sprint(r.(map[string]any)["row"])] = fmt.Sprint(r.(map[string]any)["code"])
		}
		if want := map[string]string{"3": "invalid_pool", "4": "unknown_field", "5": "sampled_in_future"}; !reflect.DeepEqual(codes, want) {
			t.Fatalf("%v, want %v", codes, want)
		}
		var lines strings.Builder
		for i := range 7 {
			raw, err := json.Marshal(result(fmt.Sprintf("TUBE%d", i), "revision", nil))
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(append(raw, '\n'))
		}
		a = d.ok("POST", "/v1/results/batch", lines.String(), "Content-Type", web.NDJSON)
		if a.str("accepted") != "7" {
			t.Fatalf("%s", a.body)
		}
		if got := tubes(d.ok("GET", "/v1/worklists/results-without-registration", nil)); len(got) != 5 {
			t.Fatalf("%v", got)
		}
	})
}

func TestABatchOfFacts(t *testing.T) {
	d := newDoor(t, 2)
	sampled := noon.Add(-5 * time.Hour).UnixMilli()
	var body []byte
	for i := range 5 {
		person := make([]byte, nucleicpb.PersonSize)
		person[0] = byte(i)
		m := nucleicpb.Registered{Tube: []byte("TUBE1"), Person: person, Pool: nucleicpb.PoolFive, Site: []byte("S"), SampledAt: sampled, DoorAt: 1}
		if i == 3 {
			m.Person = person[:4]
		}
		body = appendFact(body, m.AppendFact(nil))
	}
	body = appendFact(body, (&nucleicpb.TubeSealed{Tube: []byte("TUBE1"), SealedAt: sampled}).AppendFact(nil))
	body = appendFact(body, []byte("nonsense"))
	a := d.ok("POST", "/v1/registrations/batch", body, "Content-Type", web.Facts)
	if a.str("accepted") != "4" || a.str("rejected") != "3" {
		t.Fatalf("%s", a.body)
	}
	for _, code := range []string{"invalid_person", "wrong_kind", "malformed"} {
		if !strings.Contains(string(a.body), code) {
			t.Errorf("no %s in %s", code, a.body)
		}
	}
	member := d.ok("GET", "/v1/tubes/TUBE1", nil).json["members"].([]any)[0].(map[string]any)
	if member["registered_at"] != stamp(0) {
		t.Errorf("the door believed the sender's stamp: %v", member["registered_at"])
	}
	var results []byte
	results = appendFact(results, (&nucleicpb.Resulted{Tube: []byte("TUBE1"), Lab: []byte("L"), Revision: 1, Outcome: nucleicpb.OutcomeNegative, TestedAt: sampled + 1, ReportedAt: sampled + 2}).AppendFact(nil))
	if a := d.ok("POST", "/v1/results/batch", results, "Content-Type", web.Facts); a.str("accepted") != "1" {
		t.Fatalf("%s", a.body)
	}
	d.refused(400, "malformed", "POST", "/v1/results/batch", results[:len(results)-1], "Content-Type", web.Facts)
}

func appendFact(body, f []byte) []byte {
	return append(binary.AppendUvarint(body, uint64(len(f))), f...)
}

func TestBadInputIsRefusedInWords(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		reg := func(change ...any) m { return d.registration("TUBE1", 1, change...) }
		for _, c := range []struct {
			status int
			code   string
			path   string
			body   any
		}{
			{400, "malformed", "/v1/registrations", `{"tube":`},
			{400, "malformed", "/v1/registrations", ``},
			{400, "malformed", "/v1/registrations", `[]`},
			{400, "malformed", "/v1/registrations", `{"tube":12}`},
			{400, "malformed", "/v1/registrations", reg("sampled_at", "yesterday")},
			{400, "malformed", "/v1/registrations", reg("pool", 1.5)},
			{400, "unknown_field", "/v1/registrations", reg("colour", "green")},
			{413, "too_large", "/v1/registrations", `{"tube":"` + strings.Repeat("x", 1<<20) + `"}`},
			{422, "invalid_tube", "/v1/registrations", reg("tube", "T 1")},
			{422, "invalid_tube", "/v1/registrations", reg("tube", strings.Repeat("1", 33))},
			{422, "invalid_pool", "/v1/registrations", reg("pool", "1000000")},
			{422, "invalid_pool", "/v1/registrations", reg("pool", nil)},
			{422, "invalid_site", "/v1/registrations", reg("site", nil)},
			{422, "invalid_channel", "/v1/registrations", reg("channel", "telepathy")},
			{422, "invalid_operator", "/v1/registrations", reg("operator", strings.Repeat("x", 65))},
			{422, "person_missing", "/v1/registrations", reg("person", nil)},
			{422, "person_twice", "/v1/registrations", reg("document", m{"kind": "passport", "number": "P1234567", "country": "GBR"})},
			{422, "invalid_person", "/v1/registrations", reg("person", "p_nobody")},
			{422, "invalid_document", "/v1/registrations", reg("person", nil, "document", m{"kind": "resident", "number": "12"})},
			{422, "invalid_document", "/v1/registrations", reg("person", nil, "document", m{"kind": "library card", "number": "12"})},
			{422, "time_missing", "/v1/registrations", reg("sampled_at", nil)},
			{422, "sampled_in_future", "/v1/registrations", reg("sampled_at", stamp(rules.Ahead+time.Second))},
			{422, "sampled_too_old", "/v1/registrations", reg("sampled_at", "2019-11-30T00:00:00Z")},
			{400, "malformed", "/v1/registrations/batch", m{"rows": []any{}}},
			{400, "malformed", "/v1/registrations/batch", `{"rows":[{"tube":"T`},
			{413, "too_large", "/v1/registrations/batch", `{"rows":[` + strings.Repeat("{},", 1000) + `{}]}`},
			{422, "invalid_revision", "/v1/results", result("TUBE1", "revision", 0)},
			{422, "invalid_outcome", "/v1/results", result("TUBE1", "outcome", "maybe")},
			{422, "invalid_lab", "/v1/results", result("TUBE1", "lab", "")},
			{422, "times_out_of_order", "/v1/results", result("TUBE1", "reported_at", stamp(-9*time.Hour))},
			{422, "time_in_future", "/v1/results", result("TUBE1", "reported_at", stamp(time.Hour))},
			{422, "pool_of_pools", "/v1/tubes", m{"tube": "TUBE1", "pool": 20, "from": []string{"TUBE2", "TUBE3"}}},
			{422, "invalid_pool", "/v1/tubes", m{"tube": "TUBE1", "pool": 50}},
			{422, "tube_unknown", "/v1/tubes/TUBE9/seal", m{}},
			{422, "tube_unknown", "/v1/tubes/TUBE9/seal", nil},
			{422, "invalid_tube", "/v1/tubes/T/seal", m{}},
			{422, "invalid", "/v1/boxes", m{"box": "B"}},
			{413, "too_large", "/v1/boxes", m{"box": "B", "tubes": make([]string, 1001)}},
			{422, "reception_of_what", "/v1/receptions", m{"lab": "L", "box": "B", "tubes": []string{"TUBE1"}}},
			{422, "reception_of_what", "/v1/receptions", m{"lab": "L"}},
			{422, "invalid_lab", "/v1/receptions", m{"box": "B"}},
			{422, "invalid_reason", "/v1/corrections", m{"tube": "TUBE1", "person": d.someone(1), "operator": "o"}},
			{422, "invalid_name", "/v1/sites", m{"site": "S", "name": strings.Repeat("x", 129)}},
		} {
			a := d.refused(c.status, c.code, "POST", c.path, c.body)
			if a.str("message") == "" || a.str("fix") == "" {
				t.Errorf("%s has no words: %s", c.code, a.body)
			}
		}
		for path, code := range map[string]string{
			"/v1/worklists/everything": "not_found", "/v1/worklists/conflicts?hours=-1": "invalid_hours", "/v1/worklists/conflicts?limit=0": "invalid_limit",
			"/v1/worklists/conflicts?limit=1001": "invalid_limit", "/v1/worklists/conflicts?after=%21": "invalid_after",
			"/v1/tubes/NOPE": "not_found", "/v1/boxes/NOPE": "not_found", "/v1/sites/NOPE": "not_found", "/v1/nothing": "not_found",
		} {
			if a := d.do("GET", path, nil); a.str("code") != code || a.status < 400 || a.status > 499 {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
		d.refused(400, "malformed", "POST", "/v1/registrations", reg(), "Idempotency-Key", "two words")
		d.refused(422, "invalid", "POST", "/v1/registrations?ack=perhaps", reg())
		d.refused(400, "malformed", "POST", "/v1/registrations", reg(), "Content-Type", "text/csv")
		for shard := range d.proposer.Shards() {
			if n := len(d.proposer.State(shard).Keys()); n != 0 {
				t.Errorf("refused requests left %d keys", n)
			}
		}
	})
}

// Goal: whoever writes much can spare a hop; where several shards have leaders
// of their own, a batch names none.
func TestAWriteNamesTheLeader(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		one := d.do("POST", "/v1/sites", map[string]any{"site": "s1", "name": "n", "division": "520102", "operator": "op"})
		if got := one.header.Get("X-Leader"); one.status != 200 || got != leaderAddr {
			t.Errorf("%d, leader %q, want %q", one.status, got, leaderAddr)
		}
		want := leaderAddr
		if d.proposer.Shards() > 1 {
			want = ""
		}
		many := d.ok("POST", "/v1/registrations/batch", m{"rows": []any{d.registration("TUBE1", 0)}})
		if got := many.header.Get("X-Leader"); got != want {
			t.Errorf("a batch: leader %q, want %q", got, want)
		}
	})
}

func TestABadCheckDigitIsFlaggedAndTaken(t *testing.T) {
	d := newDoor(t, 1)
	d.ok("POST", "/v1/registrations", d.registration("TUBE1", 0, "person", nil, "document", m{"kind": "resident", "number": "110101202311012175"}))
	member := d.ok("GET", "/v1/tubes/TUBE1", nil).json["members"].([]any)[0].(map[string]any)
	if fmt.Sprint(member["flags"]) != "[check_digit]" {
		t.Fatalf("%v", member["flags"])
	}
}

func TestTheSameKeyGetsTheSameAnswer(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		rows := m{"rows": []any{d.registration("TUBE1", 1), d.registration("TUBE2", 2), d.registration("TUBE3", 3)}}
		first := d.ok("POST", "/v1/registrations/batch", rows, "Idempotency-Key", "k1")
		d.clock.Advance(time.Hour) // the door's stamp is another, the request is not
		again := d.ok("POST", "/v1/registrations/batch", rows, "Idempotency-Key", "k1")
		if d.proposer.Shards() == 1 {
			if again.str("receipt", "replayed") != "true" || first.str("receipt", "last") != again.str("receipt", "last") || again.str("accepted") != "3" {
				t.Fatalf("%s\n%s", first.body, again.body)
			}
		} else if again.str("accepted") != "0" || again.str("duplicate") != "3" {
			t.Fatalf("%s", again.body)
		}
		d.refused(409, "key_reused", "POST", "/v1/registrations/batch", m{"rows": []any{d.registration("TUBE1", 9)}}, "Idempotency-Key", "k1")
		d.ok("POST", "/v1/registrations", d.registration("TUBE4", 1), "Idempotency-Key", "k2")
		d.refused(409, "key_reused", "POST", "/v1/registrations", d.registration("TUBE5", 1), "Idempotency-Key", "k2")
		d.refused(409, "key_reused", "POST", "/v1/results", result("TUBE4"), "Idempotency-Key", "k2")
	})
}

func TestARepeatAcrossABoundIsJudgedAlike(t *testing.T) {
	d := newDoor(t, 1)
	rows := m{"rows": []any{d.registration("TUBE1", 1), d.registration("TUBE1", 2, "sampled_at", stamp(time.Hour))}}
	first := d.ok("POST", "/v1/registrations/batch", rows, "Idempotency-Key", "k")
	d.clock.Advance(2 * time.Hour) // what lay in the future no longer does
	again := d.ok("POST", "/v1/registrations/batch", rows, "Idempotency-Key", "k")
	if first.str("rejected") != "1" || !reflect.DeepEqual(first.json["rows"], again.json["rows"]) {
		t.Fatalf("%s\n%s", first.body, again.body)
	}
}

func TestAReceiptNeverSaysMoreThanWasReached(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		rows := m{"rows": []any{d.registration("TUBE1", 1), d.registration("TUBE2", 2), d.registration("TUBE3", 3)}}
		a := d.ok("POST", "/v1/registrations/batch?ack=replicated&wait=10ms", rows)
		if strings.Contains(string(a.body), `"replicated"`) {
			t.Fatalf("%s", a.body)
		}
		d.proposer.Replicate()
		a = d.ok("POST", "/v1/results?ack=replicated", result("TUBE1"))
		if a.str("receipt", "level") != "replicated" {
			t.Fatalf("%s", a.body)
		}
		a = d.ok("POST", "/v1/results", result("TUBE2"))
		if a.str("receipt", "level") != "committed" {
			t.Fatalf("more than was asked for: %s", a.body)
		}
	})
}

func TestFailuresSayWhetherAnythingWasDone(t *testing.T) {
	gone := problem.New(problem.Unavailable, "no leader", "try again").After(time.Second)
	d := newDoor(t, 3)
	d.proposer.Refuse(1, gone)
	if a := d.refused(503, "unavailable", "POST", "/v1/registrations", d.registration("TUBE1", 1)); a.header.Get("Retry-After") != "1" {
		t.Fatalf("no Retry-After: %v", a.header)
	}
	rows := m{"rows": []any{d.registration("TUBE1", 1), d.registration("TUBE2", 2), d.registration("TUBE3", 3), d.registration("TUBE4", 4), d.registration("TUBE5", 5), d.registration("TUBE6", 6)}}
	d.proposer.Refuse(1, gone) // one shard of several
	d.refused(504, "unknown_outcome", "POST", "/v1/registrations/batch", rows)
	a := d.ok("POST", "/v1/registrations/batch", rows)
	var accepted, duplicate int
	_, _ = fmt.Sscan(a.str("accepted"), &accepted)
	_, _ = fmt.Sscan(a.str("duplicate"), &duplicate)
	if accepted+duplicate != 6 || accepted == 0 || duplicate == 0 {
		t.Fatalf("the repeat does not complete the first: %s", a.body)
	}
	d.proposer.Refuse(1, errors.New("disk on fire"))
	if a := d.refused(500, "internal", "POST", "/v1/registrations", d.registration("TUBE9", 1)); strings.Contains(string(a.body), "fire") {
		t.Fatal("the cause crossed the wall")
	}
}

func TestAReadThatNobodyCanVouchForSaysSo(t *testing.T) {
	d := newDoor(t, 1)
	d.ok("POST", "/v1/registrations", d.registration("TUBE1", 1))
	if a := d.ok("GET", "/v1/tubes/TUBE1", nil); a.str("stale") != "false" || a.str("as_of") != stamp(0) {
		t.Fatalf("%s", a.body)
	}
	for _, path := range []string{"/v1/tubes/TUBE1", "/v1/worklists/registrations-without-result"} {
		d.proposer.Refuse(1, problem.New(problem.Unavailable, "no majority", "wait"))
		if a := d.ok("GET", path, nil); a.str("stale") != "true" {
			t.Fatalf("%s: %s", path, a.body)
		}
	}
	d.proposer.Refuse(2, problem.New(problem.Unavailable, "no majority", "wait"))
	d.refused(503, "unavailable", "GET", "/v1/tubes/TUBE1", nil)
}

func TestRegistrationsHereAndResultsThere(t *testing.T) {
	everyShards(t, func(t *testing.T, a *door) {
		b := newDoor(t, a.proposer.Shards())
		for i := range 6 {
			a.ok("POST", "/v1/registrations", a.registration(fmt.Sprintf("TUBE%d", i%3), i))
			b.ok("POST", "/v1/results", result(fmt.Sprintf("TUBE%d", i%3)))
		}
		b.ok("POST", "/v1/registrations", b.registration("TUBE0", 0, "sampled_at", stamp(-6*time.Hour))) // the same fact, told otherwise
		for shard := range a.proposer.Shards() {
			if err := errors.Join(a.proposer.Ingest(shard, b.proposer.Blocks(shard)), b.proposer.Ingest(shard, a.proposer.Blocks(shard))); err != nil {
				t.Fatal(err)
			}
			if k := a.proposer.State(shard).Diff(b.proposer.State(shard)); k != "" {
				t.Fatalf("the carriers differ at %q", k)
			}
		}
		for _, path := range []string{"/v1/tubes/TUBE0", "/v1/worklists/registrations-without-result", "/v1/worklists/results-without-registration"} {
			if x, y := a.ok("GET", path, nil), b.ok("GET", path, nil); string(x.body) != string(y.body) {
				t.Errorf("%s\n%s\n%s", path, x.body, y.body)
			}
		}
	})
}

func TestWorklistPagesOverShards(t *testing.T) {
	everyShards(t, func(t *testing.T, d *door) {
		var rows []any
		var want []string
		for i := range 25 {
			tube := fmt.Sprintf("TUBE%02d", i)
			want = append(want, tube)
			rows = append(rows, d.registration(tube, i, "sampled_at", stamp(-24*time.Hour+time.Duration(i)*time.Minute)))
		}
		d.ok("POST", "/v1/registrations/batch", m{"rows": rows})
		var got []string
		for path := "/v1/worklists/registrations-without-result?limit=10"; path != ""; {
			page := d.ok("GET", path, nil)
			got = append(got, tubes(page)...)
			path = ""
			if next, ok := page.json["next"]; ok {
				path = "/v1/worklists/registrations-without-result?limit=10&after=" + next.(string)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v", got)
		}
	})
}

func TestABoxOverShards(t *testing.T) {
	d := newDoor(t, 3)
	var codes []string
	for i := range 12 {
		code := fmt.Sprintf("TUBE%02d", i)
		codes = append(codes, code)
		d.ok("POST", "/v1/registrations", d.registration(code, i))
	}
	a := d.ok("POST", "/v1/boxes", m{"box": "BOX", "tubes": append(slices.Clone(codes), "NOTHERE")})
	if a.str("accepted") != "12" || a.str("rejected") != "1" {
		t.Fatalf("%s", a.body)
	}
	a = d.ok("POST", "/v1/receptions", m{"lab": "L", "box": "BOX"})
	if a.str("accepted") != "1" || len(a.json["receipts"].([]any)) != 3 {
		t.Fatalf("%s", a.body)
	}
	if a := d.ok("POST", "/v1/receptions", m{"lab": "L", "box": "BOX"}); a.str("duplicate") != "1" {
		t.Fatalf("%s", a.body)
	}
	if a := d.ok("POST", "/v1/receptions", m{"lab": "L", "tubes": codes[:2]}); a.str("accepted") != "2" {
		t.Fatalf("%s", a.body)
	}
	box := d.ok("GET", "/v1/boxes/BOX", nil)
	if box.str("count") != "12" || fmt.Sprint(box.json["tubes"]) != fmt.Sprint(codes) || len(box.json["receptions"].([]any)) != 1 {
		t.Fatalf("%s", box.body)
	}
}

func TestARowToldToSeveralShardsIsWhatItWasToAny(t *testing.T) {
	for _, c := range []struct{ a, b, want machine.Status }{
		{machine.Duplicate, machine.Accepted, machine.Accepted}, {machine.Accepted, machine.Duplicate, machine.Accepted},
		{machine.Accepted, machine.Rejected, machine.Rejected}, {machine.Duplicate, machine.Duplicate, machine.Duplicate},
	} {
		if got := api.Joined([]web.Outcome{{Status: c.a}, {Status: c.b}}).Status; got != c.want {
			t.Errorf("%v and %v make %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

// hung is a group that never answers.
type hung struct{ machine.Proposer }

func (hung) Propose(ctx context.Context, _ int, _ machine.Proposal) (machine.Receipt, error) {
	<-ctx.Done()
	return machine.Receipt{}, ctx.Err()
}

func TestAWaitThatEndedIsUnknownNotFailed(t *testing.T) {
	d := newDoor(t, 1)
	a := api.New(api.Config{Proposer: hung{d.proposer}, Hasher: d.hasher, Clock: d.clock})
	d.server = newServer(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	raw, err := json.Marshal(result("TUBE1"))
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.server.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/v1/results", bytes.NewReader(raw)))
	if w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), "unknown_outcome") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestTheContractIsServed(t *testing.T) {
	d := newDoor(t, 1)
	if a := d.ok("GET", "/openapi.yaml", nil); !strings.Contains(string(a.body), "openapi: 3.0.3") {
		t.Fatal("not the contract")
	}
}

func TestEveryCodeHasWords(t *testing.T) {
	words := api.Words()
	for _, code := range rules.Codes {
		if _, ok := words[code]; !ok {
			t.Errorf("%s has no words", code)
		}
	}
	for code, p := range words {
		if p.Message == "" || p.Fix == "" || len(code) > 64 || string(p.Code) != code {
			t.Errorf("%s: %+v", code, p)
		}
		if p.Status() >= http.StatusInternalServerError {
			t.Errorf("%s is our fault", code)
		}
	}
}

// The contract's flags are the floor's, bit for bit: the door hands them on.
func TestFlagsAreTheSameBits(t *testing.T) {
	for flag, want := range map[identity.Flags]uint32{identity.CheckDigit: nucleicpb.FlagCheckDigit, identity.BirthDate: nucleicpb.FlagBirthDate, identity.OldForm: nucleicpb.FlagOldForm} {
		if uint32(flag) != want {
			t.Errorf("%v is %d in the contract", flag.Strings(), want)
		}
	}
}
