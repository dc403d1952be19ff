package report

import (
	"cmp"
	"fmt"
	"maps"
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
	out.Settings = mergeSettings(parts)
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
	}
	for i := range parts[0].Streams {
		s, err := mergeStream(parts, i)
		if err != nil {
			return nil, err
		}
		s.AchievedPerS = float64(s.Units.Acked) / out.DurationS
		out.Streams = append(out.Streams, s)
	}
	out.Surge = out.mergeSurge(parts)
	out.Valid = len(out.Invalid) == 0
	out.Headline()
	return &out, nil
}

// shared are the settings of which each generator has a share.
var shared = []string{"rate", "displays_per_s", "closed", "booths", "watches_per_s"}

// mergeSettings are those of the whole run.
func mergeSettings(parts []*Result) map[string]any {
	out := maps.Clone(parts[0].Settings)
	for _, name := range shared {
		var whole float64
		for _, p := range parts {
			n, ok := p.Settings[name].(float64) // as JSON reads every number
			if !ok {
				whole = 0
				break
			}
			whole += n
		}
		if whole > 0 {
			out[name] = whole
		}
	}
	return out
}

// mergeSurge is the surge of the whole run, whose streams are joined already. It
// has recovered when it has for every generator.
func (r *Result) mergeSurge(parts []*Result) *Surge {
	if parts[0].Surge == nil {
		return nil
	}
	out := &Surge{HeightPerS: map[string]float64{}}
	for _, p := range parts {
		s := p.Surge
		if s == nil {
			s = &Surge{RecoveryS: -1}
		}
		out.GoodputPerS += s.GoodputPerS
		for name, rate := range s.HeightPerS {
			out.HeightPerS[name] += rate
		}
		out.WithoutHint += s.WithoutHint
		out.DisplayRefused += s.DisplayRefused
		out.BindingRefused += s.BindingRefused
		out.DisplayUnserved += s.DisplayUnserved
		out.BindingUnserved += s.BindingUnserved
		if s.RecoveryS < 0 || out.RecoveryS < 0 {
			out.RecoveryS = -1
		} else {
			out.RecoveryS = max(out.RecoveryS, s.RecoveryS)
		}
	}
	refusal := hist.New()
	for i := range r.Streams {
		for _, t := range r.Streams[i].Kinds {
			refusal.Merge(t.Refusal)
		}
	}
	out.RefusalMS = refusal.Summary()
	return out
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
