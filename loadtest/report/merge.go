package report

import (
	"cmp"
	"fmt"
	"slices"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
)

// Merge joins the results of the generators of one run. Histograms are added
// up, so the percentiles are those one generator would have measured. The
// system's own cost is that of the part that metered it; each generator's own
// is added.
func Merge(parts []*Result) (*Result, error) {
	if len(parts) == 0 {
		return nil, fmt.Errorf("no results to merge")
	}
	out := *parts[0]
	out.Streams, out.Roles, out.Settled, out.Ledger, out.Surge = nil, nil, nil, nil, nil
	out.Visible, out.Lag = hist.New(), hist.New()
	out.Late, out.Unseen, out.Parts, out.Facts = 0, 0, 0, nil
	out.Invalid, out.Notes = nil, nil
	for _, p := range parts {
		if p.Profile != out.Profile || len(p.Streams) != len(parts[0].Streams) {
			return nil, fmt.Errorf("a %s run and a %s run are not parts of one", out.Profile, p.Profile)
		}
		out.DurationS = max(out.DurationS, p.DurationS)
		out.Visible.Merge(p.Visible)
		out.Lag.Merge(p.Lag)
		out.Late += p.Late
		out.Unseen += p.Unseen
		out.Parts += max(1, p.Parts)
		out.Invalid = addNew(out.Invalid, p.Invalid)
		out.Notes = addNew(out.Notes, p.Notes)
		out.Roles = mergeRoles(out.Roles, p.Roles)
		out.Settled = mergeRoles(out.Settled, p.Settled)
		out.mergeFacts(p)
		out.mergeSurge(p)
	}
	for i := range parts[0].Streams {
		s, err := mergeStream(parts, i)
		if err != nil {
			return nil, err
		}
		s.AchievedPerS = float64(s.Units.Acked) / out.DurationS
		out.Streams = append(out.Streams, s)
	}
	if out.Surge != nil {
		out.Surge.RefusalMS = out.refusals()
	}
	out.Valid = len(out.Invalid) == 0
	out.Headline()
	return &out, nil
}

func addNew(to, from []string) []string {
	for _, s := range from {
		if !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}

// mergeFacts adds what each generator's answers said; what was committed is
// committed once, whoever looked.
func (r *Result) mergeFacts(p *Result) {
	if p.Facts == nil {
		return
	}
	if r.Facts == nil {
		r.Facts = &Facts{}
	}
	if p.Facts.Unmeasured != OfOnePart {
		r.Facts.Unmeasured = cmp.Or(r.Facts.Unmeasured, p.Facts.Unmeasured)
	}
	r.Facts.Acknowledged += p.Facts.Acknowledged
	r.Facts.Excused += p.Facts.Excused
	r.Facts.Committed = max(r.Facts.Committed, p.Facts.Committed)
}

// mergeSurge adds up what each generator was served and refused; all have
// recovered when the last one has.
func (r *Result) mergeSurge(p *Result) {
	if p.Surge == nil {
		return
	}
	if r.Surge == nil {
		r.Surge = &Surge{HeightPerS: map[string]float64{}}
	}
	to, from := r.Surge, p.Surge
	to.GoodputPerS += from.GoodputPerS
	for name, n := range from.HeightPerS {
		to.HeightPerS[name] += n
	}
	to.WithoutHint += from.WithoutHint
	to.DisplayRefused, to.BindingRefused = to.DisplayRefused+from.DisplayRefused, to.BindingRefused+from.BindingRefused
	to.DisplayUnserved, to.BindingUnserved = to.DisplayUnserved+from.DisplayUnserved, to.BindingUnserved+from.BindingUnserved
	if from.RecoveryS < 0 || to.RecoveryS < 0 {
		to.RecoveryS = -1
	} else {
		to.RecoveryS = max(to.RecoveryS, from.RecoveryS)
	}
}

// refusals reads off the joint streams how long it took to be refused.
func (r *Result) refusals() hist.Summary {
	all := hist.New()
	for i := range r.Streams {
		for _, t := range r.Streams[i].Kinds {
			all.Merge(t.Refusal)
		}
	}
	return all.Summary()
}

func mergeRoles(to, from []cost.Usage) []cost.Usage {
	for _, u := range from {
		i := slices.IndexFunc(to, func(v cost.Usage) bool { return v.Role == u.Role })
		switch {
		case i < 0:
			to = append(to, u)
		case u.Role == cost.Generator:
			to[i].CPU += u.CPU
			to[i].Processes += u.Processes
			to[i].RSS += u.RSS
			to[i].PeakRSS += u.PeakRSS
			to[i].Written += max(0, u.Written)
		}
	}
	return to
}

func mergeStream(parts []*Result, i int) (Stream, error) {
	first := parts[0].Streams[i]
	out := Stream{Name: first.Name, Unit: first.Unit, Kinds: map[string]*drive.Tally{}}
	for _, p := range parts {
		s := p.Streams[i]
		if s.Name != out.Name {
			return out, fmt.Errorf("streams %s and %s are not parts of one", out.Name, s.Name)
		}
		out.OfferedPerS += s.OfferedPerS
		out.Units.Add(s.Units)
		out.InTime += s.InTime
		for k, t := range s.Kinds {
			if out.Kinds[k] == nil {
				out.Kinds[k] = drive.NewTally()
			}
			out.Kinds[k].Merge(t)
		}
		out.Series = mergeSeries(out.Series, s.Series)
	}
	out.settle(0)
	return out, nil
}

// mergeSeries adds rates; of percentiles of seconds it keeps the worse, which
// no reader can be misled by.
func mergeSeries(to, from []drive.Second) []drive.Second {
	to = slices.Clone(to)
	for i, s := range from {
		if i >= len(to) {
			to = append(to, s)
			continue
		}
		t := &to[i]
		t.Asked, t.Done, t.Failed = t.Asked+s.Asked, t.Done+s.Done, t.Failed+s.Failed
		t.Open, t.Refused, t.Served = t.Open+s.Open, t.Refused+s.Refused, t.Served+s.Served
		t.P50, t.P99, t.Max = max(t.P50, s.P50), max(t.P99, s.P99), max(t.Max, s.Max)
	}
	return to
}
