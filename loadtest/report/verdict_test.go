package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/loadtest/drive"
)

// Goal: a run that asked for strangers is no run of people.
func TestShowingStrangersIsMissed(t *testing.T) {
	for _, x := range []struct {
		profile    string
		ok, found  int64
		want       int
		unmeasured bool
	}{
		{"display", 1000, 1000, Held, false}, {"display", 1000, 500, Held, false}, {"display", 1000, 93, Missed, false}, {"midnight", 1000, 93, Missed, false},
		{"day", 1000, 93, Held, false}, // who is tested is known only afterwards
		{"display", 0, 0, Held, true},
	} {
		tally := drive.NewTally()
		tally.OK, tally.Found = x.ok, x.found
		r := &Result{Profile: x.profile, Valid: true, Settings: map[string]any{"people": 1e6},
			Streams: []Stream{{Name: "displays", Kinds: map[string]*drive.Tally{"display": tally}}}}
		o := Usual(x.profile)
		o.Achieved = 0
		r.Judge(o)
		if r.Code() != x.want || x.want == Missed && !strings.Contains(r.Why(), "load the people first: qianma load preload --people 1000000") {
			t.Errorf("%+v: code %d, %s", x, r.Code(), r.Why())
		}
		if got := slices.ContainsFunc(r.NotMeasured, func(s string) bool { return strings.HasPrefix(s, "share of the displays") }); got != x.unmeasured {
			t.Errorf("%+v: not measured %v", x, r.NotMeasured)
		}
	}
}

// Goal: a percentile says what it is of, and when it is of next to nothing.
func TestAPercentileSaysWhatItIsOf(t *testing.T) {
	r := sample(1, 1)
	r.Visible.RecordN(300*time.Millisecond, 1999)
	r.Headline()
	r.Judge(Usual("scan"))
	if first, _, _ := strings.Cut(r.Text(false), "\n"); !strings.Contains(first, " ms (register)   visible p99 300 ms   tries") || r.ResponseKind != "register" || len(r.Notes) > 0 {
		t.Errorf("%q, kind %q, notes %v", first, r.ResponseKind, r.Notes)
	}
	r.Streams[0].ResponseMS.Count = 999
	r.Headline()
	r.Notes = []string{"another"}
	r.Judge(Usual("scan"))
	r.Judge(Usual("scan")) // once more, as whoever merges does
	if first, _, _ := strings.Cut(r.Text(false), "\n"); !strings.Contains(first, " ms (register, of only 999 responses)") {
		t.Errorf("%q", first)
	}
	if want := []string{"another", "p99 of only 999 responses: tests (register)"}; !slices.Equal(r.Notes, want) {
		t.Errorf("notes %q, want %q", r.Notes, want)
	}
	raw, _ := json.Marshal(r)
	if !bytes.Contains(raw, []byte(`"response_kind":"register"`)) {
		t.Errorf("%s", raw[:400])
	}
}

// Goal: a surge says what was done at its height, and whether anybody judged it.
func TestASurgeSaysWhatWasDoneAtItsHeight(t *testing.T) {
	r := sample(1, 1)
	r.Profile, r.Surge = "surge", &Surge{RecoveryS: 1, GoodputPerS: 50, HeightPerS: map[string]float64{"tests": 50, "displays": 120}}
	for goodput, want := range map[float64]string{
		0:  "not measured: goodput at the height (it is not judged, because no --min-goodput was given)",
		60: "goodput per s 50.0, wanted 60.0",
	} {
		o := Usual("surge")
		o.Goodput = goodput
		r.Judge(o)
		if text := r.Text(false); !strings.Contains(text, "at the height 120 displays/s, 50.0 tests/s were done") || !strings.Contains(text, want) {
			t.Errorf("no word of %q:\n%s", want, text)
		}
	}
}

// Goal: a program finds a list where a list is promised.
func TestListsAreListsInJSON(t *testing.T) {
	for _, r := range []any{&Result{}, Result{}, []*Result{{}}} {
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"invalid", "not_measured", "notes"} {
			if !bytes.Contains(raw, []byte(`"`+name+`":[]`)) {
				t.Errorf("%T: %s is no list: %s", r, name, raw)
			}
		}
	}
}
