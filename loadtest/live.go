package loadtest

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"qianma/loadtest/drive"
)

// live is what a terminal shows while a run lasts: a block that is drawn over
// itself, or, where nobody can see it move, a line now and then.
type live struct {
	w      io.Writer
	quiet  bool
	screen bool
	drawn  int // lines of the block on the screen
}

func newLive(w io.Writer, quiet bool) *live {
	l := &live{w: w, quiet: quiet}
	if f, ok := w.(*os.File); ok {
		st, err := f.Stat()
		l.screen = err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	}
	return l
}

// every is how many seconds lie between two lines where nothing can be redrawn.
const every = 10

func (l *live) show(v View) {
	if l.quiet {
		return
	}
	if !l.screen {
		if v.Second%every == 0 {
			fmt.Fprintln(l.w, strings.Join(lines(v), "; "))
		}
		return
	}
	l.wipe()
	block := lines(v)
	for _, s := range block {
		fmt.Fprintln(l.w, s)
	}
	l.drawn = len(block)
}

func (l *live) wipe() {
	if l.drawn > 0 {
		fmt.Fprintf(l.w, "\x1b[%dA\x1b[J", l.drawn)
		l.drawn = 0
	}
}

func (l *live) say(text string) {
	if !l.quiet {
		l.wipe()
		fmt.Fprintln(l.w, text)
	}
}

func (l *live) done() {
	if l.screen {
		l.wipe()
	}
}

// lines says what happened in the last second.
func lines(v View) []string {
	out := []string{fmt.Sprintf("%s  open %d  late %d", (time.Duration(v.Second) * time.Second).String(), v.Open, v.Late)}
	for _, s := range v.Streams {
		if len(s.Series) == 0 {
			continue
		}
		now := s.Series[len(s.Series)-1]
		text := fmt.Sprintf("%-13s asked %6.0f/s  done %6.0f/s  p50 %.1f ms  p99 %.1f ms", s.Name, now.Asked, now.Done, now.P50, now.P99)
		if u := s.Units; u.Failed+u.Unknown+u.Dropped > 0 {
			text += fmt.Sprintf("  failed %d unknown %d dropped %d", u.Failed, u.Unknown, u.Dropped)
		}
		if n := retriesOf(s); n > 0 {
			text += fmt.Sprintf("  tried again %d", n)
		}
		if codes := codesOf(s); codes != "" {
			text += "  " + codes
		}
		out = append(out, text)
	}
	if v.Visible.Count > 0 {
		out = append(out, fmt.Sprintf("visible       p50 %.0f ms  p99 %.0f ms", v.Visible.P50, v.Visible.P99))
	}
	return append(out, system(v)...)
}

func retriesOf(s *drive.Stream) int64 {
	var n int64
	for _, t := range s.Kinds {
		n += t.Retries
	}
	return n
}

func codesOf(s *drive.Stream) string {
	all := map[string]int64{}
	for _, t := range s.Kinds {
		for code, n := range t.Codes {
			all[code] += n
		}
	}
	var out []string
	for _, code := range slices.Sorted(maps.Keys(all)) {
		out = append(out, fmt.Sprintf("%s %d", code, all[code]))
	}
	return strings.Join(out, ", ")
}

func system(v View) []string {
	var out []string
	if m := v.Moment; len(m.CPU) > 0 {
		text := "cores        "
		for _, role := range slices.Sorted(maps.Keys(m.CPU)) {
			text += fmt.Sprintf(" %s %.2f", role, m.CPU[role])
		}
		out = append(out, text)
	}
	if m := v.Moment; len(m.Lag) > 0 || m.Breakers > 0 {
		text := "behind       "
		for _, carrier := range slices.Sorted(maps.Keys(m.Lag)) {
			text += fmt.Sprintf(" %s by %d facts", carrier, m.Lag[carrier])
		}
		if m.Breakers > 0 {
			text += fmt.Sprintf("  breakers not closed: %d", m.Breakers)
		}
		out = append(out, text)
	}
	return out
}
