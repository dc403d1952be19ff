package loadtest

import (
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
	"qianma/loadtest/report"
)

// calm is what a second must look like to count as recovered.
const calm = 250.0 // ms, p99 of every stream

// closing is the end of a run, in which the booths close all their tubes at one
// moment: what the labs then report is no part of the calm after a surge.
const closing = time.Second

// surge reads the height and the recovery out of the series.
func (r *run) surge() *report.Surge {
	c := r.profile.Cyc
	out := &report.Surge{RecoveryS: -1, HeightPerS: map[string]float64{}}
	refusal := hist.New()
	for _, s := range r.driver.Streams() {
		out.HeightPerS[s.Name] = mean(s.Series, c.Hold, c.Fall)
		for k, t := range s.Kinds {
			refusal.Merge(t.Refusal)
			out.WithoutHint += t.NoHint
			switch drive.Kind(k) {
			case drive.Display:
				out.DisplayRefused += t.Refused
			case drive.Register:
				out.BindingRefused += t.Refused
			}
		}
		switch s.Name {
		case "displays":
			out.DisplayUnserved = unserved(s, drive.Display)
		case "tests":
			out.BindingUnserved = unserved(s, drive.Register)
		}
	}
	out.RefusalMS = refusal.Summary()
	out.GoodputPerS = mean(r.profile.Main.Series, c.Hold, c.Fall)
	out.RecoveryS = recovery(r.driver.Streams(), c.Fall, c.End)
	return out
}

// unserved is how many of a stream's arrivals were never answered well in the
// crowd's patience, whatever became of them: refused, lost, timed out, or given
// up by the generator before they were sent.
func unserved(s *drive.Stream, arrival drive.Kind) int64 {
	t := s.Kinds[arrival]
	return s.Units.Asked - (t.OK - t.Overdue)
}

// mean is what was done a second between two offsets.
func mean(series []drive.Second, from, to time.Duration) float64 {
	var sum, n float64
	for _, s := range series {
		if at := time.Duration(s.At) * time.Second; at+time.Second/2 >= from && at+time.Second/2 < to {
			sum += s.Done
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// recovery is how many seconds after fall the first of an unbroken row of calm
// seconds begins; -1 when the last of them is not calm.
func recovery(streams []*drive.Stream, fall, end time.Duration) float64 {
	last := int((end - closing) / time.Second)
	first := int(fall / time.Second)
	calmFrom := -1
	for at := last - 1; at >= first && allCalm(streams, at); at-- {
		calmFrom = at
	}
	if calmFrom < 0 {
		return -1
	}
	return max(0, (time.Duration(calmFrom)*time.Second - fall).Seconds())
}

// served is how much of what a second asks for must be answered in it: without
// it a second in which nothing is answered at all would be a calm one.
const served = .9

func allCalm(streams []*drive.Stream, at int) bool {
	for _, s := range streams {
		if at >= len(s.Series) {
			return false
		}
		if sec := s.Series[at]; sec.Failed > 0 || sec.P99 > calm || sec.Served < served*sec.Asked {
			return false
		}
	}
	return true
}
