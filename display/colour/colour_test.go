package colour_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qianma/display/colour"
)

const (
	second = int64(1000)
	hour   = 3600 * second
)

// now is 2022-01-05 08:00 in Beijing.
var now = time.Date(2022, 1, 5, 0, 0, 0, 0, time.UTC).UnixMilli()

// healthy is a person with one fresh single negative and fresh data.
func healthy() colour.Input {
	return colour.Input{
		Now: now, Known: true, RestrictionsAsOf: now,
		Carriers: []colour.Carrier{{Name: "unicom", AsOf: now - second}, {Name: "mobile", AsOf: now - second}},
		Tests:    []colour.Test{single(colour.OutcomeNegative, 10)},
	}
}

func single(o colour.Outcome, hoursAgo int64) colour.Test {
	return colour.Test{Single: true, Pool: 1, Outcome: o, Sampled: now - hoursAgo*hour}
}

func pooled(o colour.Outcome, hoursAgo int64) colour.Test {
	return colour.Test{Pool: 20, Outcome: o, Sampled: now - hoursAgo*hour}
}

func restriction(l colour.Level, fromHours, untilHours int64) colour.Restriction {
	return colour.Restriction{Cause: colour.CloseContact, Level: l, From: now + fromHours*hour, Until: now + untilHours*hour, Source: "520103"}
}

func evaluate(rs *colour.RuleSet, in colour.Input) colour.Verdict {
	var v colour.Verdict
	rs.Evaluate(&in, &v)
	return v
}

// TestVerdicts is the table of the built-in rules: each row changes one thing
// about a healthy person.
func TestVerdicts(t *testing.T) {
	const (
		pos, neg     = colour.OutcomePositive, colour.OutcomeNegative
		maybe        = colour.OutcomeInconclusive
		invalid      = colour.OutcomeInvalid
		none, clash  = colour.OutcomeNone, colour.OutcomeConflict
		green, redC  = colour.ShowGreen, colour.ShowRed
		yellow, oran = colour.ShowYellow, colour.ShowOrange
	)
	tests := func(ts ...colour.Test) func(*colour.Input) { return func(in *colour.Input) { in.Tests = ts } }
	restricted := func(rs ...colour.Restriction) func(*colour.Input) {
		return func(in *colour.Input) { in.Restrictions = rs }
	}
	declared := func(ds ...colour.Declaration) func(*colour.Input) {
		return func(in *colour.Input) { in.Declarations = ds }
	}
	aged := func(unicom, mobile int64) func(*colour.Input) {
		return func(in *colour.Input) {
			in.Carriers[0].AsOf, in.Carriers[1].AsOf = now-unicom*second, now-mobile*second
		}
	}
	for _, c := range []struct {
		name    string
		change  func(*colour.Input)
		level   colour.Level
		colour  colour.Colour
		status  string
		stale   bool
		reasons string // codes, worst first
	}{
		{"negative", func(*colour.Input) {}, colour.Green, green, "negative", false, "negative_valid"},
		{"never tested", tests(), colour.Green, green, "none", false, "never_tested"},
		{"negative an hour before it ends", tests(single(neg, 71)), colour.Green, green, "negative", false, "negative_valid"},
		{"negative that has ended", tests(single(neg, 72)), colour.Green, green, "negative", false, "negative_expired"},
		{"pooled negative covers its members", tests(pooled(neg, 5)), colour.Green, green, "negative", false, "negative_valid"},
		{"waiting for the first result", tests(pooled(none, 2)), colour.Green, green, "pending", false, "result_pending"},
		{"waiting beside a negative", tests(pooled(none, 2), single(neg, 30)), colour.Green, green, "negative", false, "negative_valid result_pending"},
		{"a later result ends the waiting", tests(single(neg, 2), pooled(none, 3)), colour.Green, green, "negative", false, "negative_valid"},
		{"unusable sample", tests(single(invalid, 2)), colour.Green, green, "inconclusive", false, "invalid_sample"},
		{"inconclusive", tests(single(maybe, 2), single(neg, 30)), colour.Yellow, green, "inconclusive", false, "inconclusive_retest"},
		{"inconclusive, then negative", tests(pooled(neg, 1), single(maybe, 2)), colour.Green, green, "negative", false, "negative_valid"},
		{"pool positive is not green", tests(pooled(pos, 5), single(neg, 20)), colour.Orange, oran, "pool_positive_retest", false, "pool_positive_retest"},
		{"a pooled negative does not decide a positive pool", tests(pooled(neg, 1), pooled(pos, 5)), colour.Orange, oran, "pool_positive_retest", false, "pool_positive_retest"},
		{"an earlier single does not decide it", tests(pooled(pos, 5), single(neg, 6)), colour.Orange, oran, "pool_positive_retest", false, "pool_positive_retest"},
		{"a single of the same moment does not decide it", tests(single(neg, 5), pooled(pos, 5)), colour.Orange, oran, "pool_positive_retest", false, "pool_positive_retest"},
		{"the later single decides it", tests(single(neg, 1), pooled(pos, 5)), colour.Green, green, "negative", false, "negative_valid"},
		{"the later single decides it badly", tests(single(pos, 1), pooled(pos, 5)), colour.Red, redC, "positive", false, "positive pool_positive_retest"},
		{"waiting for the retest", tests(single(none, 1), pooled(pos, 5)), colour.Orange, oran, "pool_positive_retest", false, "pool_positive_retest result_pending"},
		{"pool positive fades after its time", tests(pooled(pos, 336)), colour.Green, green, "none", false, "no_valid_result"},
		{"positive", tests(single(pos, 5)), colour.Red, redC, "positive", false, "positive"},
		{"a later negative does not clear one's own positive", tests(single(neg, 1), single(neg, 2), single(pos, 50)), colour.Red, redC, "positive", false, "positive"},
		{"positive fades after its time", tests(single(neg, 1), single(pos, 336)), colour.Green, green, "negative", false, "negative_valid"},
		{"conflict", tests(pooled(clash, 5), single(neg, 9)), colour.Orange, oran, "conflict", false, "results_conflict"},
		{"conflict, then a single", tests(single(neg, 1), pooled(clash, 5)), colour.Green, green, "negative", false, "negative_valid"},
		{"a sample of the future decides nothing", tests(single(pos, -1)), colour.Green, green, "none", false, "no_valid_result"},

		{"restriction", restricted(restriction(colour.Red, -1, 5)), colour.Red, redC, "negative", false, "close_contact negative_valid"},
		{"a negative never clears a restriction", func(in *colour.Input) {
			in.Restrictions = []colour.Restriction{restriction(colour.Red, -50, 5)}
			in.Tests = []colour.Test{single(neg, 1), single(neg, 25), single(neg, 49)}
		}, colour.Red, redC, "negative", false, "close_contact negative_valid"},
		{"restriction from now on", restricted(restriction(colour.Red, 0, 5)), colour.Red, redC, "negative", false, "close_contact negative_valid"},
		{"restriction not yet begun", restricted(restriction(colour.Red, 1, 5)), colour.Green, green, "negative", false, "negative_valid"},
		{"restriction that ends now", restricted(restriction(colour.Red, -5, 0)), colour.Green, green, "negative", false, "negative_valid"},
		{"the worst restriction counts", restricted(restriction(colour.Yellow, -1, 5), restriction(colour.Purple, -1, 5), restriction(colour.Orange, -1, 5)),
			colour.Purple, redC, "negative", false, "close_contact close_contact close_contact negative_valid"},
		{"yellow is green under management", restricted(restriction(colour.Yellow, -1, 5)), colour.Yellow, green, "negative", false, "close_contact negative_valid"},
		{"a restriction never asks for green", restricted(restriction(colour.Green, -1, 5)), colour.Yellow, green, "negative", false, "close_contact negative_valid"},
		{"a cause of a newer build", restricted(colour.Restriction{Cause: "locusts", Level: colour.Orange, From: now - 1, Until: now + 1}),
			colour.Orange, oran, "negative", false, "restricted negative_valid"},

		{"symptoms", declared(colour.Declaration{At: now - hour, Symptoms: true}), colour.Yellow, green, "negative", false, "declared_symptoms negative_valid"},
		{"symptoms of last week", declared(colour.Declaration{At: now - 72*hour, Symptoms: true}), colour.Green, green, "negative", false, "negative_valid"},
		{"a later healthy declaration does not take symptoms back", declared(colour.Declaration{At: now}, colour.Declaration{At: now - hour, Symptoms: true}),
			colour.Yellow, green, "negative", false, "declared_symptoms negative_valid"},
		{"contact", declared(colour.Declaration{At: now - hour, Contact: true}), colour.Yellow, green, "negative", false, "declared_contact negative_valid"},

		{"no source answers", func(in *colour.Input) { in.Known, in.Tests, in.Carriers = false, nil, nil },
			colour.Yellow, yellow, "none", true, "data_missing"},
		{"no source answers about a restricted person", func(in *colour.Input) {
			in.Known, in.Tests, in.Carriers = false, nil, nil
			in.Restrictions = []colour.Restriction{restriction(colour.Red, -1, 5)}
		}, colour.Red, redC, "none", true, "close_contact data_missing"},
		{"no source answers about a person under management", func(in *colour.Input) {
			in.Known, in.Tests, in.Carriers = false, nil, nil
			in.Restrictions = []colour.Restriction{restriction(colour.Yellow, -1, 5)}
		}, colour.Yellow, yellow, "none", true, "close_contact data_missing"},
		{"one carrier silent for a quarter of an hour", aged(901, 1), colour.Green, green, "negative", true, "negative_valid data_stale"},
		{"both silent", aged(901, 902), colour.Green, green, "negative", true, "negative_valid data_stale data_stale"},
		{"just fresh enough", aged(900, 900), colour.Green, green, "negative", false, "negative_valid"},
		{"one carrier silent for days", aged(300000, 1), colour.Green, green, "negative", true, "negative_valid data_stale"},
		{"both silent for a day", aged(86401, 86402), colour.Yellow, yellow, "negative", true, "data_too_old negative_valid data_stale data_stale"},
		{"a carrier never heard", func(in *colour.Input) { in.Carriers[0].AsOf = 0 }, colour.Green, green, "negative", true, "negative_valid data_stale"},
		{"last-known copy", func(in *colour.Input) { in.LastKnown = true }, colour.Green, green, "negative", false, "negative_valid data_last_known"},
		{"restrictions not heard for a quarter of an hour", func(in *colour.Input) { in.RestrictionsAsOf = now - 901*second },
			colour.Green, green, "negative", true, "negative_valid restrictions_stale"},
		{"restrictions not heard for a day", func(in *colour.Input) { in.RestrictionsAsOf = now - 86401*second },
			colour.Yellow, yellow, "negative", true, "restrictions_stale negative_valid"},
		{"the other carrier silent for an hour", func(in *colour.Input) { in.OthersAsOf = now - 3600*second },
			colour.Green, green, "negative", true, "negative_valid restrictions_stale"},
		{"the other carrier heard just now", func(in *colour.Input) { in.OthersAsOf = now }, colour.Green, green, "negative", false, "negative_valid"},
		{"come back empty, the others' restrictions not taken in", func(in *colour.Input) { in.OthersMissing = true },
			colour.Yellow, yellow, "negative", true, "restrictions_stale negative_valid"},
		{"older than the reader has seen", func(in *colour.Input) { in.Behind = true }, colour.Green, green, "negative", true, "negative_valid older_than_seen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := healthy()
			c.change(&in)
			v := evaluate(colour.Builtin(), in)
			var codes []string
			for _, r := range v.Reasons {
				codes = append(codes, string(r.Code))
			}
			if got := strings.Join(codes, " "); v.Level != c.level || v.Colour != c.colour || v.Stale != c.stale || v.Status.String() != c.status || got != c.reasons {
				t.Errorf("got  %s shown %s, %s, stale %v: %s\nwant %s shown %s, %s, stale %v: %s",
					v.Level, v.Colour, v.Status, v.Stale, got, c.level, c.colour, c.status, c.stale, c.reasons)
			}
		})
	}
}

func TestValidityCountsFromTheTimeTheRulesName(t *testing.T) {
	in := healthy()
	in.Tests = []colour.Test{{Single: true, Outcome: colour.OutcomeNegative, Sampled: now - 80*hour, Received: now - 75*hour, Reported: now - 60*hour}}
	for from, want := range map[string]int64{"sampled": 80, "received": 75, "reported": 60} {
		v := evaluate(ruleSet(t, `"counted_from": "sampled"`, `"counted_from": "`+from+`"`), in)
		if v.Hours != want || (v.Reasons[0].Code == colour.NegativeValid) != (want < 72) {
			t.Errorf("%s: %d hours, %s", from, v.Hours, v.Reasons[0].Code)
		}
	}
	in.Tests[0].Reported, in.Tests[0].Received = 0, 0
	if v := evaluate(ruleSet(t, `"counted_from": "sampled"`, `"counted_from": "reported"`), in); v.Hours != 80 {
		t.Errorf("a time never told must fall back to the older one: %d hours", v.Hours)
	}
}

func TestRuleSetThatAsksForANegative(t *testing.T) {
	rs := ruleSet(t, `"unproven": "green"`, `"unproven": "yellow"`)
	for name, tests := range map[string][]colour.Test{
		"none": nil, "pending": {single(colour.OutcomeNone, 1)}, "expired": {single(colour.OutcomeNegative, 99)}, "invalid": {single(colour.OutcomeInvalid, 1)},
	} {
		in := healthy()
		in.Tests = tests
		if v := evaluate(rs, in); v.Level != colour.Yellow || v.Reasons[0].Level != colour.Yellow {
			t.Errorf("%s: %s because %v", name, v.Level, v.Reasons)
		}
	}
	if v := evaluate(rs, healthy()); v.Level != colour.Green {
		t.Errorf("with a negative: %s", v.Level)
	}
}

func TestWordsSayWhatIsShown(t *testing.T) {
	rs := colour.Builtin()
	in := healthy()
	in.Restrictions = []colour.Restriction{restriction(colour.Yellow, -1, 5)}
	in.Carriers[1].AsOf = now - 2*hour
	v := evaluate(rs, in)
	if got := string(rs.AppendWord(nil, &v, colour.ZH)); got != "绿码（纳入管理）（数据非最新）" || !v.Managed {
		t.Error(got)
	}
	if got := string(rs.AppendText(nil, &v.Reasons[0], colour.EN)); got != "Close contact, since 2022-01-05 07:00, until 2022-01-05 13:00" {
		t.Error(got)
	}
	if got := string(rs.AppendText(nil, &v.Reasons[1], colour.ZH)); got != "核酸检测阴性，10小时" {
		t.Error(got)
	}
	if got := string(rs.AppendText(nil, &v.Reasons[2], colour.EN)); got != "Test data of mobile ends at 2022-01-05 06:00 and may not be the newest" {
		t.Error(got)
	}
	in.Known = false
	v = evaluate(rs, in)
	if got := string(rs.AppendWord(nil, &v, colour.EN)); got != "Data missing (not the newest data)" {
		t.Error(got)
	}
}

func TestEveryReasonHasWordsInBothLanguages(t *testing.T) {
	rs := colour.Builtin()
	for _, code := range colour.Codes() {
		for _, l := range []colour.Lang{colour.ZH, colour.EN} {
			if got := string(rs.AppendText(nil, &colour.Reason{Code: code, Since: now, Until: now}, l)); got == "" || strings.Contains(got, "{") {
				t.Errorf("%s: %q", code, got)
			}
		}
	}
}

// input draws anything that can be known about a person.
func input(t *rapid.T) colour.Input {
	in := colour.Input{Now: now, Known: rapid.Bool().Draw(t, "known"), LastKnown: rapid.Bool().Draw(t, "last_known"),
		Behind: rapid.Bool().Draw(t, "behind"), RestrictionsAsOf: now - rapid.Int64Range(0, 90000).Draw(t, "age")*second}
	for _, name := range []string{"unicom", "mobile"} {
		in.Carriers = append(in.Carriers, colour.Carrier{Name: name, AsOf: now - rapid.Int64Range(0, 90000).Draw(t, name)*second})
	}
	for range rapid.IntRange(0, 3).Draw(t, "restrictions") {
		in.Restrictions = append(in.Restrictions, anyRestriction(t))
	}
	for range rapid.IntRange(0, 3).Draw(t, "declarations") {
		in.Declarations = append(in.Declarations, colour.Declaration{At: now - rapid.Int64Range(0, 200).Draw(t, "at")*hour,
			Symptoms: rapid.Bool().Draw(t, "symptoms"), Contact: rapid.Bool().Draw(t, "contact")})
	}
	for range rapid.IntRange(0, 5).Draw(t, "tests") {
		in.Tests = append(in.Tests, anyTest(t))
	}
	newestFirst(in.Tests)
	return in
}

func anyRestriction(t *rapid.T) colour.Restriction {
	return restriction(colour.Level(rapid.IntRange(1, 5).Draw(t, "level")), rapid.Int64Range(-9, 3).Draw(t, "from"), rapid.Int64Range(-3, 9).Draw(t, "until"))
}

func anyTest(t *rapid.T) colour.Test {
	sampled := now - rapid.Int64Range(-1, 400).Draw(t, "sampled")*hour
	return colour.Test{Single: rapid.Bool().Draw(t, "single"), Outcome: colour.Outcome(rapid.IntRange(0, 5).Draw(t, "outcome")),
		Sampled: sampled, Received: sampled + hour, Reported: sampled + 2*hour}
}

func newestFirst(ts []colour.Test) {
	slices.SortStableFunc(ts, func(a, b colour.Test) int { return int((b.Sampled - a.Sampled) / second) })
}

func anyRuleSet(t *rapid.T) *colour.RuleSet {
	return rapid.SampledFrom([]*colour.RuleSet{colour.Builtin(), ruleSet(t, `"unproven": "green"`, `"unproven": "orange"`),
		ruleSet(t, `"conflict": {"level": "orange"`, `"conflict": {"level": "red"`)}).Draw(t, "rules")
}

func worseOrEqual(t *rapid.T, what string, before, after colour.Verdict) {
	t.Helper()
	if after.Level < before.Level || after.Colour < before.Colour {
		t.Fatalf("%s made it better: %s shown %s became %s shown %s", what, before.Level, before.Colour, after.Level, after.Colour)
	}
}

// TestNothingBadMakesItBetter adds one bad thing to any input at any place.
func TestNothingBadMakesItBetter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, in := anyRuleSet(t), input(t)
		before := evaluate(rs, in)

		more := in
		more.Restrictions = append(slices.Clone(in.Restrictions), anyRestriction(t))
		worseOrEqual(t, "a restriction", before, evaluate(rs, more))

		more = in
		more.Declarations = append(slices.Clone(in.Declarations), colour.Declaration{At: now, Symptoms: true})
		worseOrEqual(t, "a symptom", before, evaluate(rs, more))

		more = in
		bad := anyTest(t)
		bad.Outcome = rapid.SampledFrom([]colour.Outcome{colour.OutcomePositive, colour.OutcomeConflict, colour.OutcomeInconclusive}).Draw(t, "bad")
		more.Tests = append(slices.Clone(in.Tests), bad)
		newestFirst(more.Tests)
		worseOrEqual(t, "a bad result", before, evaluate(rs, more))

		more = in
		more.Carriers = slices.Clone(in.Carriers)
		for i := range more.Carriers {
			more.Carriers[i].AsOf -= rapid.Int64Range(0, 90000).Draw(t, "older") * second
		}
		worseOrEqual(t, "older data", before, evaluate(rs, more))
	})
}

// TestNegativesNeverClearWhatIsNotTheirs: whatever negatives are added, the
// level stays at least what restrictions in force and one's own positive ask for.
func TestNegativesNeverClearWhatIsNotTheirs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(t)
		rs := colour.Builtin()
		in.Restrictions = append(in.Restrictions, restriction(colour.Red, -1, 5))
		for range rapid.IntRange(1, 4).Draw(t, "negatives") {
			in.Tests = append(in.Tests, single(colour.OutcomeNegative, rapid.Int64Range(0, 90).Draw(t, "at")))
		}
		newestFirst(in.Tests)
		if v := evaluate(rs, in); v.Level < colour.Red {
			t.Fatalf("a negative cleared a restriction: %s", v.Level)
		}
	})
}

// TestGreenIsNeverSilentlyStale: whatever is known, green on data beyond the
// rule set's bounds is impossible or says so.
func TestGreenIsNeverSilentlyStale(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, in := anyRuleSet(t), input(t)
		v := evaluate(rs, in)
		if len(v.Reasons) == 0 {
			t.Fatal("a verdict without a reason")
		}
		oldest, newest := min(in.Carriers[0].AsOf, in.Carriers[1].AsOf), max(in.Carriers[0].AsOf, in.Carriers[1].AsOf)
		oldest = min(oldest, in.RestrictionsAsOf)
		if (!in.Known || now-oldest > 900*second || in.Behind) && !v.Stale {
			t.Fatal("old data is not called stale")
		}
		if (!in.Known || now-newest > 86400*second || now-in.RestrictionsAsOf > 86400*second) && (v.Colour == colour.ShowGreen || v.Level == colour.Green) {
			t.Fatal("green without a ground for it")
		}
	})
}

// TestWorstReasonFirst: the first reason explains the level.
func TestWorstReasonFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := evaluate(anyRuleSet(t), input(t))
		if v.Reasons[0].Level != v.Level && v.Level != colour.Green {
			t.Fatalf("level %s, first reason %+v", v.Level, v.Reasons[0])
		}
		if !slices.IsSortedFunc(v.Reasons, func(a, b colour.Reason) int { return int(b.Level) - int(a.Level) }) {
			t.Fatal("reasons out of order")
		}
	})
}

func BenchmarkEvaluate(b *testing.B) {
	rs, in := colour.Builtin(), healthy()
	in.Tests = append(in.Tests, pooled(colour.OutcomeNegative, 40), pooled(colour.OutcomeNegative, 80))
	var v colour.Verdict
	b.ReportAllocs()
	for b.Loop() {
		rs.Evaluate(&in, &v)
	}
}
