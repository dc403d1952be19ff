package report

import (
	"fmt"
	"strings"

	"qianma/loadtest/hist"
)

// head is a 99th percentile of the headline.
type head struct {
	What   string  // "response p99"
	Of     string  // which responses: the kind, and their number where it is small
	P99    float64 // -1: nothing was measured
	Judged bool    // and the run is worth judging
}

// heads are the 99th percentiles that a report begins with: those of the main
// stream, of every other one that is judged, and of what was watched.
func (r *Result) heads() []head {
	if len(r.Streams) == 0 {
		return nil // of a read-back alone
	}
	out := []head{r.head("response p99", responseCheck(r.Main()), r.ResponseKind, "response", r.ResponseMS)}
	for i := range r.Streams[1:] {
		s := &r.Streams[1+i]
		if r.checked(responseCheck(s)) {
			out = append(out, r.head(s.Name+" p99", responseCheck(s), "", "response", s.ResponseMS))
		}
	}
	if r.VisibleMS.Count > 0 {
		out = append(out, r.head("visible p99", r.visibleCheck(), "", "watched test", r.VisibleMS))
	}
	return out
}

func (r *Result) head(what, check, kind, of string, s hist.Summary) head {
	var words []string
	if kind != "" {
		words = append(words, kind)
	}
	if few(s) {
		words = append(words, "of only "+Several(s.Count, of))
	}
	return head{What: what, Of: strings.Join(words, ", "), P99: p99.of(s), Judged: r.Valid && r.checked(check)}
}

// String is the head in a line of text.
func (h head) String() string {
	text := h.What + " " + number(h.P99) + " ms"
	if h.Of != "" {
		text += " (" + h.Of + ")"
	}
	return text
}

// Line is what a search says of one of its runs.
func (r *Result) Line() string {
	text := "achieved " + number(r.AchievedPerS) + "/s"
	for _, h := range r.heads() {
		text += ", " + h.String()
	}
	return fmt.Sprintf("%s, CPU %s µs/op, lost %s, repeated %s", text, number(r.CPUPerOp), count(r.Lost), r.RepeatedText())
}

// checked says whether a figure was held against an objective.
func (r *Result) checked(what string) bool {
	for _, c := range r.Checks {
		if c.What == what {
			return true
		}
	}
	return false
}

// responseCheck names the objective of a stream's response time.
func responseCheck(s *Stream) string {
	if len(s.ByKind) > 1 {
		return s.Name + " response p99 ms (" + s.Slowest + ")"
	}
	return s.Name + " response p99 ms"
}

// visibleCheck names the objective of what was watched.
func (r *Result) visibleCheck() string { return r.Elsewhere() + " p99 ms" }

// few says that a 99th percentile is one of the ten longest, and another run's is
// another.
func few(s hist.Summary) bool { return s.Count > 0 && s.Count < fewResponses }
