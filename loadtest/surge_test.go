package loadtest

import (
	"testing"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/report"
)

// A second in which nothing is answered is not a calm one.
func TestASecondIsCalmOnlyWhenItServes(t *testing.T) {
	for name, c := range map[string]struct {
		second drive.Second
		want   bool
	}{
		"served":    {drive.Second{Asked: 100, Served: 98, P99: 40}, true},
		"silent":    {drive.Second{Asked: 100}, false},
		"some of":   {drive.Second{Asked: 100, Served: 80, P99: 40}, false},
		"slow":      {drive.Second{Asked: 100, Served: 100, P99: 400}, false},
		"one fails": {drive.Second{Asked: 100, Served: 99, P99: 40, Failed: 1}, false},
		"no demand": {drive.Second{}, true},
	} {
		if got := allCalm([]*drive.Stream{{Series: []drive.Second{c.second}}}, 0); got != c.want {
			t.Errorf("%s: calm %v, want %v", name, got, c.want)
		}
	}
}

// It has recovered with the first of the calm seconds that are left, whatever
// becomes of the tubes that the booths close in the last one.
func TestRecoveryIsTheBeginOfTheCalm(t *testing.T) {
	calm := drive.Second{Asked: 100, Served: 100, P99: 40}
	slow := drive.Second{Asked: 100, Served: 100, P99: 400}
	shed := drive.Second{Asked: 100, Served: 100, P99: 40, Failed: 7}
	for name, c := range map[string]struct {
		after []drive.Second
		want  float64
	}{
		"after two":   {[]drive.Second{slow, slow, calm, calm, calm, shed}, 2},
		"not at once": {[]drive.Second{calm, slow, calm, calm, calm, calm}, 2},
		"at once":     {[]drive.Second{calm, calm, calm, calm, calm, shed}, 0},
		"never":       {[]drive.Second{slow, slow, slow, slow, slow, calm}, -1},
	} {
		series := append([]drive.Second{slow, slow}, c.after...)
		end := time.Duration(len(series)) * time.Second
		if got := recovery([]*drive.Stream{{Series: series}}, 2*time.Second, end); got != c.want {
			t.Errorf("%s: recovered after %v s, want %v", name, got, c.want)
		}
	}
}

// Whatever became of an arrival, it was served in time or it was not.
func TestUnservedIsAllThatWasNotServedInTime(t *testing.T) {
	s := &drive.Stream{Units: drive.Units{Asked: 100, Acked: 80, Dropped: 12, Unknown: 5, Failed: 3}}
	s.Kinds[drive.Display] = &drive.Tally{Started: 88, OK: 80, Overdue: 7}
	if got := unserved(s, drive.Display); got != 27 {
		t.Errorf("%d unserved, want 27", got)
	}
	s.Kinds[drive.Display] = drive.NewTally()
	if got := unserved(s, drive.Display); got != 100 {
		t.Errorf("all dropped: %d unserved, want 100", got)
	}
}

// Lag and breakers are read every second second; what is seen of them stays.
func TestTheLiveViewKeepsWhatItLastKnew(t *testing.T) {
	read := report.Moment{At: 2, Lag: map[string]int64{"unicom": 9}, Breakers: 1}
	o := &observer{moments: []report.Moment{read, {At: 3}}, known: read}
	newest, all := o.seen()
	if newest.At != 3 || newest.Lag["unicom"] != 9 || newest.Breakers != 1 {
		t.Errorf("the view shows %+v", newest)
	}
	if all[1].Lag != nil {
		t.Error("the series says what was not read")
	}
}
