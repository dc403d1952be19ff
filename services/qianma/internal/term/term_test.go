package term

import (
	"bytes"
	"strings"
	"testing"
)

func TestColumnsLineUpWhateverTheText(t *testing.T) {
	o := &Output{Colour: true}
	lines := o.Lines([]string{"NAME", ">N", "STATE"}, [][]string{
		{"贵阳", "7", o.Paint(Good, "ready")},
		{"unicom-nucleic-1", "12345", o.Paint(Bad, "held")},
	})
	for i, line := range lines {
		at := strings.Index(line, []string{"STATE", "ready", "held"}[i])
		if got := Cells(line[:at]); got != len("unicom-nucleic-1  12345  ") {
			t.Errorf("line %d: the last column begins at cell %d\n%s", i, got, strings.Join(lines, "\n"))
		}
	}
}

func TestClipCountsCells(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "四个汉字": "四个…", "a longer text": "a lon…"} {
		if got := Clip(in, 6); got != want || Cells(got) > 6 {
			t.Errorf("Clip(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestNoTerminalNoPaint(t *testing.T) {
	var b bytes.Buffer
	o := New(&b, &b)
	o.Repaint([]string{"nothing"})
	o.Println(o.Paint(Bad, "plain"))
	if b.String() != "plain\n" {
		t.Errorf("wrote %q", b.String())
	}
}
