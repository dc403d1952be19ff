// Package term writes for people: aligned tables, colours where they can be
// seen, and a block of lines that is painted again in place.
//
// Colour goes to terminals only and honours NO_COLOR; what a colour says is
// always said in words too. Widths are those of a terminal's cells, so Chinese
// text stays in its columns.
package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Output is where a command writes: what was asked for to Out, what happens
// meanwhile to Err. It is for one goroutine at a time.
type Output struct {
	Out, Err io.Writer
	// TTY says that Out is a terminal: lines may be painted again.
	TTY bool
	// Colour says that Out shows colours.
	Colour  bool
	painted int
}

// New returns an Output over the two writers.
func New(out, err io.Writer) *Output {
	tty := IsTerminal(out)
	return &Output{Out: out, Err: err, TTY: tty, Colour: tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Width is how many cells a line of the terminal has.
func (o *Output) Width() int {
	if f, ok := o.Out.(*os.File); ok && o.TTY {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
			return int(ws.Col)
		}
	}
	return 120
}

// Println writes a line to Out.
func (o *Output) Println(a ...any) { fmt.Fprintln(o.Out, a...) }

// Printf writes to Out.
func (o *Output) Printf(format string, a ...any) { fmt.Fprintf(o.Out, format, a...) }

// Tone is what a colour means here.
type Tone int

// The tones.
const (
	Plain Tone = iota
	Good
	Warn
	Bad
	Faint
	Bold
)

var codes = [...]string{Plain: "", Good: "\x1b[32m", Warn: "\x1b[33m", Bad: "\x1b[31m", Faint: "\x1b[2m", Bold: "\x1b[1m"}

// Paint returns s in a tone where colours are shown, and s elsewhere.
func (o *Output) Paint(t Tone, s string) string {
	if !o.Colour || t == Plain || s == "" {
		return s
	}
	return codes[t] + s + "\x1b[0m"
}

// Repaint writes the lines over those of the call before; without a terminal
// it writes nothing.
func (o *Output) Repaint(lines []string) {
	if !o.TTY {
		return
	}
	var b strings.Builder
	if o.painted > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", o.painted)
	}
	width := o.Width()
	for _, line := range lines {
		b.WriteString("\r\x1b[2K" + Clip(line, width-1) + "\n")
	}
	// A block that shrank leaves nothing of the longer one below it.
	b.WriteString("\x1b[J")
	o.painted = len(lines)
	_, _ = io.WriteString(o.Out, b.String())
}

// Keep leaves what was painted on the screen; the next Repaint begins below.
func (o *Output) Keep() { o.painted = 0 }

// Table writes rows in columns. Columns whose head begins with '>' stand to the
// right.
func (o *Output) Table(head []string, rows [][]string) {
	for _, line := range o.Lines(head, rows) {
		fmt.Fprintln(o.Out, line)
	}
}

// Lines is Table as lines, to paint or to print.
func (o *Output) Lines(head []string, rows [][]string) []string {
	width := make([]int, len(head))
	right := make([]bool, len(head))
	title := make([]string, len(head))
	for i, h := range head {
		title[i], right[i] = strings.CutPrefix(h, ">")
		title[i] = o.Paint(Faint, title[i])
	}
	all := append([][]string{title}, rows...)
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], Cells(cell))
		}
	}
	lines := make([]string, len(all))
	for n, row := range all {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-Cells(cell))
			if right[i] {
				cell = pad + cell
			} else {
				cell += pad
			}
			b.WriteString(cell)
			b.WriteString("  ")
		}
		lines[n] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

// Cells is how many cells of a terminal the text takes: escape sequences none,
// East Asian wide characters two.
func Cells(s string) int {
	n := 0
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			i += escape(s[i:])
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		n += cell(r)
		i += size
	}
	return n
}

// Clip cuts the text to at most n cells; escape sequences stay whole.
func Clip(s string, n int) string {
	if Cells(s) <= n {
		return s
	}
	var b strings.Builder
	used := 0
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			w := escape(s[i:])
			b.WriteString(s[i : i+w])
			i += w
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if used += cell(r); used < n {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String() + "…"
}

// escape is the length of the sequence at the front of s.
func escape(s string) int {
	if i := strings.IndexByte(s, 'm'); i > 0 {
		return i + 1
	}
	return 1
}

func cell(r rune) int {
	wide := r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x20000 && r <= 0x3fffd)
	if wide {
		return 2
	}
	return 1
}
