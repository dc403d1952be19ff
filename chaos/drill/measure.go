package drill

import (
	"slices"
	"time"

	"qianma/chaos/report"
	"qianma/chaos/traffic"
	"qianma/loadtest/drive"
)

// slow is from when on a client is not through.
const slow = time.Second

// measure reads the report's figures out of a load. from is when the first
// fault began, on the history's clock; until is when traffic ended.
func measure(r *report.Report, tries []traffic.Try, changes []traffic.Change, from, until time.Duration) {
	r.DetectedMS, r.RecoveredMS = -1, 0
	r.Failed = map[string]int{}
	detected := time.Duration(-1)
	sign := func(at time.Duration) {
		if at >= from && (detected < 0 || at < detected) {
			detected = at
		}
	}
	var last time.Duration
	for i := range tries {
		t := &tries[i]
		if t.Surge {
			continue
		}
		if !t.OK() {
			r.Failed[t.Code]++
		}
		late := t.OK() && t.Took > slow
		if t.End < from || t.OK() && !late {
			continue
		}
		sign(t.End)
		if late || !t.Again { // one node's refusal is no harm to who goes to the next
			last = max(last, t.End)
		}
	}
	for _, c := range changes {
		sign(c.At)
	}
	if detected >= 0 {
		r.DetectedMS = millis(detected - from)
	}
	if last > from {
		r.RecoveredMS = millis(last - from)
	}
	r.LongestWriteGap = millis(gap(tries, from, until))
}

func millis(d time.Duration) float64 { return float64(d.Milliseconds()) }

// gap is the longest time in which the clients of one carrier saw no write
// succeed, from the first fault until traffic ended.
func gap(tries []traffic.Try, from, until time.Duration) (longest time.Duration) {
	ends := map[int][]time.Duration{}
	for i := range tries {
		if t := &tries[i]; t.Write && t.OK() && !t.Surge {
			ends[t.Home] = append(ends[t.Home], t.End)
		}
	}
	for _, list := range ends {
		slices.Sort(list)
		last := from
		for _, at := range append(list, until) {
			if at > from && at <= until {
				longest = max(longest, at-last)
				last = at
			}
		}
	}
	return longest
}

// success reads the shares of the streams.
func success(r *report.Report, l *traffic.Load) {
	for _, s := range l.Result.Streams {
		r.Streams = append(r.Streams, report.Stream{Name: s.Name, Units: s.Units, Series: s.Series})
		share := 100 * float64(s.Units.Acked) / float64(max(1, s.Units.Asked))
		if s.Name == "displays" {
			r.DisplaySuccess, r.DisplayP99 = share, s.ResponseMS.P99
		} else {
			r.UploadSuccess = writes(s.Kinds)
		}
	}
	r.Moments, r.Machine, r.Commit = l.Result.Seconds, l.Result.Machine, l.Result.Commit
	r.Lost, r.Repeated = l.Result.Lost+l.Result.Wrong, l.Result.Repeated
	if b := l.Result.Ledger; b != nil {
		for _, x := range b.First {
			r.LostRefs = append(r.LostRefs, refText(x))
		}
	}
}

// writes is the share of upload requests that were acknowledged.
func writes(kinds map[string]*drive.Tally) float64 {
	var started, ok int64
	for name, t := range kinds {
		if name != drive.Display.String() && name != drive.Verify.String() && name != drive.Tube.String() {
			started, ok = started+t.Started, ok+t.OK
		}
	}
	return 100 * float64(ok) / float64(max(1, started))
}
