package colour_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"qianma/display/colour"
)

// document is the built-in rule set with one thing changed.
func document(t interface{ Fatal(...any) }, old, new string) []byte {
	raw, err := os.ReadFile("guizhou.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte(old)) {
		t.Fatal("the built-in rule set does not contain " + old)
	}
	return bytes.Replace(raw, []byte(old), []byte(new), 1)
}

func ruleSet(t interface{ Fatal(...any) }, old, new string) *colour.RuleSet {
	rs, err := colour.ParseRuleSet(document(t, old, new))
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestRuleSetRefusesWhatWouldColourByAccident(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"name": "guizhou"`, `"name": "Gui zhou"`, "name"},
		{`"hours": 72, "counted_from"`, `"hours": 0, "counted_from"`, "validity"},
		{`"sampled"`, `"yesterday"`, "counted_from"},
		{`"unproven": "green"`, `"unproven": "blue"`, "unproven"},
		{`"pool_positive": {"level": "orange"`, `"pool_positive": {"level": "green"`, "pool_positive"},
		{`"positive": {"level": "red"`, `"positive": {"level": "yellow"`, "positive"},
		{`"blind_level": "yellow"`, `"blind_level": "green"`, "blind"},
		{`"blind_colour": "yellow"`, `"blind_colour": "green"`, "blind"},
		{`"trusted_seconds": 86400`, `"trusted_seconds": 10`, "fresh_seconds"},
		{`"red": {"colour": "red"`, `"red": {"colour": "green"`, "display.red"},
		{`"colour": "green", "managed": true`, `"colour": "green"`, "managed"},
		{`"orange": {"colour": "orange"`, `"azure": {"colour": "orange"`, "display.orange"},
		{`"close_contact": {"level": "red"`, `"close_contact": {"level": "green"`, "close_contact"},
		{`"words": {}`, `"words": {"because": {"zh": "x", "en": "x"}}`, "because"},
		{`"words": {}`, `"words": {"positive": {"zh": "x", "en": ""}}`, "words.positive"},
		{`"words": {}`, `"wrods": {}`, "wrods"},
		{`"words": {}`, `"words": {}} {`, "followed"},
	} {
		_, err := colour.ParseRuleSet(document(t, c.old, c.new))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", c.new, err)
		}
	}
	if _, err := colour.ParseRuleSet(make([]byte, colour.MaxRuleSet+1)); err == nil {
		t.Error("a rule set over the bound was read")
	}
}

func TestFaultsAreReportedAllAtOnce(t *testing.T) {
	raw := document(t, `"unproven": "green"`, `"unproven": "blue"`)
	raw = bytes.Replace(raw, []byte(`"counted_from": "sampled"`), []byte(`"counted_from": "x"`), 1)
	_, err := colour.ParseRuleSet(raw)
	if err == nil || !strings.Contains(err.Error(), "unproven") || !strings.Contains(err.Error(), "counted_from") {
		t.Fatal(err)
	}
}

func TestWordsOfARuleSetReplaceTheBuiltIn(t *testing.T) {
	rs := ruleSet(t, `"words": {}`, `"words": {"negative_valid": {"zh": "阴性{hours}", "en": "clear for {hours} h {nonsense}"}}`)
	got := string(rs.AppendText(nil, &colour.Reason{Code: colour.NegativeValid, Hours: 7}, colour.EN))
	if got != "clear for 7 h {nonsense}" {
		t.Fatal(got)
	}
}

// TestActiveIsTheOneThatBeganLast looks from several moments, in any order of
// the sets.
func TestActiveIsTheOneThatBeganLast(t *testing.T) {
	at := func(version, from string) *colour.RuleSet {
		raw := document(t, `"version": 0`, `"version": `+version)
		raw = bytes.Replace(raw, []byte("1970-01-01T00:00:00Z"), []byte(from), 1)
		rs, err := colour.ParseRuleSet(raw)
		if err != nil {
			t.Fatal(err)
		}
		return rs
	}
	zero := colour.Builtin()
	three, four := at("3", "2022-01-01T00:00:00+08:00"), at("4", "2022-02-01T00:00:00+08:00")
	fix := at("5", "2022-01-01T00:00:00+08:00")
	moment := func(s string) int64 {
		m, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return m.UnixMilli()
	}
	for _, sets := range [][]*colour.RuleSet{{zero, three, four, fix}, {fix, four, three, zero}} {
		for when, want := range map[string]string{
			"2021-12-31T23:59:59+08:00": "guizhou@0", "2022-01-01T00:00:00+08:00": "guizhou@5", "2022-02-01T00:00:00+08:00": "guizhou@4",
		} {
			if got := colour.Active(sets, moment(when)).Ref(); got != want {
				t.Errorf("at %s: %s, want %s", when, got, want)
			}
		}
	}
	if colour.Active(nil, 0) != nil {
		t.Error("no set is no set")
	}
}

func TestForSaysWhatACauseAsksFor(t *testing.T) {
	l, d, ok := colour.Builtin().For("close_contact")
	if !ok || l != colour.Red || d != 504*time.Hour {
		t.Error(l, d, ok)
	}
	if _, _, ok := colour.Builtin().For("bank_depositor"); ok {
		t.Error("a cause that is no cause has a duration")
	}
}

// FuzzParseRuleSet: nothing panics, and what is accepted can be shown in full.
func FuzzParseRuleSet(f *testing.F) {
	raw, err := os.ReadFile("guizhou.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rs, err := colour.ParseRuleSet(raw)
		if err != nil {
			return
		}
		in := healthy()
		v := evaluate(rs, in)
		_ = rs.AppendWord(nil, &v, colour.ZH)
		for i := range v.Reasons {
			_ = rs.AppendText(nil, &v.Reasons[i], colour.EN)
		}
		if _, err := json.Marshal(rs); err != nil {
			t.Fatal(err)
		}
	})
}
