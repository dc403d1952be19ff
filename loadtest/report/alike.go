package report

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
)

// kind is one kind of operation in one stream, of which two results have both.
type kind struct {
	stream, name string
	lonely       bool // no other stream has operations of this kind
}

// bothHave lists the kinds that were answered on both sides: like is set beside
// like.
func bothHave(a, b []*Result) []kind {
	ofB := kinds(b)
	var out []kind
	for _, k := range kinds(a) {
		if slices.Contains(ofB, k) {
			out = append(out, k)
		}
	}
	for i := range out {
		same := func(k kind) bool { return k.name == out[i].name && k.stream != out[i].stream }
		out[i].lonely = !slices.ContainsFunc(out, same)
	}
	return out
}

// kinds lists what any of the results has answers of.
func kinds(rs []*Result) []kind {
	var out []kind
	for _, r := range rs {
		for i := range r.Streams {
			s := &r.Streams[i]
			for _, name := range sorted(s.Kinds) {
				k := kind{stream: s.Name, name: name}
				if k.summary(r).Count > 0 && !slices.Contains(out, k) {
					out = append(out, k)
				}
			}
		}
	}
	return out
}

// String names the kind, and its stream where that is not plain.
func (k kind) String() string {
	if k.lonely {
		return k.name
	}
	return k.stream + " " + k.name
}

// in is the stream of the kind; nil: there is none.
func (k kind) in(r *Result) *Stream {
	i := slices.IndexFunc(r.Streams, func(s Stream) bool { return s.Name == k.stream })
	if i < 0 {
		return nil
	}
	return &r.Streams[i]
}

// summary is how long the kind's operations took. It is read from the histogram,
// which reports of all ages have.
func (k kind) summary(r *Result) hist.Summary {
	s := k.in(r)
	if s == nil || s.Kinds[k.name] == nil || s.Kinds[k.name].Response == nil {
		return hist.Summary{}
	}
	return s.Kinds[k.name].Response.Summary()
}

// seconds is a percentile for each second. Seconds have that of the slowest kind
// alone, so there is none where a stream has several.
func (k kind) seconds(of func(drive.Second) float64) func(*Result) []float64 {
	return func(r *Result) []float64 {
		s := k.in(r)
		if s == nil || len(s.Kinds) > 1 {
			return nil
		}
		return perSecond(s, of)
	}
}

func (k kind) figures() []figure {
	var out []figure
	for _, q := range []quantile{p50, p99, p999, longest} {
		f := figure{what: k.String() + " " + q.Name + " ms", of: func(r *Result) float64 { return q.of(k.summary(r)) }}
		switch q.Name {
		case p50.Name:
			f.seconds = k.seconds(func(s drive.Second) float64 { return s.P50 })
		case p99.Name:
			f.seconds = k.seconds(func(s drive.Second) float64 { return s.P99 })
		}
		out = append(out, f)
	}
	return out
}

// oneSided names the kinds that stand beside nothing, and headlines that are not
// of one kind: whoever sets them side by side himself compares two things.
func oneSided(a, b []*Result) []string {
	var out []string
	ofA, ofB := kinds(a), kinds(b)
	for _, k := range slices.Concat(ofA, ofB) {
		if !slices.Contains(ofA, k) || !slices.Contains(ofB, k) {
			out = append(out, fmt.Sprintf("%s was answered on one side alone, and is not compared", k))
		}
	}
	headline := func(r *Result) string { return r.ResponseKind }
	if p, q := each(a, headline), each(b, headline); p != q {
		out = append(out, fmt.Sprintf("the reports' own headlines are of %s and of %s: they are not to be compared, the rows here are", orNothing(p), orNothing(q)))
	}
	return out
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// setting is a setting as it reads in JSON: one that was loaded from a file has
// other types than one that was just made.
func setting(r *Result, name string) string {
	v, ok := r.Settings[name]
	if !ok {
		return unrecorded
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(raw)
}

// unrecorded stands for a setting that a report of an earlier build does not have.
const unrecorded = "not recorded"

// settings are those of a group: one value, unless its runs were not alike.
func settings(rs []*Result, name string) string {
	return each(rs, func(r *Result) string { return setting(r, name) })
}

// each lists what the runs of a group have, without repeating it.
func each(rs []*Result, of func(*Result) string) string {
	var out []string
	for _, r := range rs {
		out = addNew(out, []string{of(r)})
	}
	slices.Sort(out)
	return strings.Join(out, " or ")
}

// compared are the settings that change what is measured. The draw is another in
// each run, so that nobody is warm from the one before: it is none of them.
var compared = strings.Fields(`rate closed displays_per_s plan poisson duration_s warm_s people split pools booths batch positive
	zipf cold roam wave_s watches_per_s ack format ledger shared quantum_ms gather_ms spread connections_per_node workers
	timeout_s patience_s tries`)

// differences says what makes the two sides hard to compare.
func differences(a, b []*Result) []string {
	out := []string{}
	note := func(what, p, q string) {
		if p != q {
			out = append(out, fmt.Sprintf("%s differs: %s and %s", what, p, q))
		}
	}
	about := func(what string, of func(*Result) any) {
		text := func(r *Result) string { return fmt.Sprint(of(r)) }
		note(what, each(a, text), each(b, text))
	}
	about("profile", func(r *Result) any { return r.Profile })
	about("target", func(r *Result) any { return r.Target })
	about("closed or open", func(r *Result) any { return r.Closed })
	about("carriers", func(r *Result) any { return strings.Join(r.Carriers, ",") })
	about("generators", func(r *Result) any { return max(1, r.Parts) })
	var unknown []string
	for _, name := range comparedIn(a, b) {
		p, q := settings(a, name), settings(b, name)
		if p != q && (p == unrecorded || q == unrecorded) {
			unknown = append(unknown, name)
			continue
		}
		note(name, p, q)
	}
	if len(unknown) > 0 {
		out = append(out, fmt.Sprintf("only one side's report has %s: nobody can tell whether that differs", strings.Join(unknown, ", ")))
	}
	about("commit", func(r *Result) any { return r.Commit })
	about("processor", func(r *Result) any { return r.Machine.CPU })
	about("cores", func(r *Result) any { return r.Machine.Cores })
	return out
}

// comparedIn adds the seed where it matters: a run that tests nobody shows those
// that were loaded before, and another seed's people may not have been.
func comparedIn(a, b []*Result) []string {
	writes := func(r *Result) bool { return r.Settings["ledger"] == true }
	if slices.ContainsFunc(slices.Concat(a, b), writes) {
		return compared
	}
	return append([]string{"seed"}, compared...)
}
