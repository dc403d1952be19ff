package node

import (
	"path/filepath"
	"testing"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/mishap"
)

// TestAWrongClockIsOutvoted: a node whose machine's clock is two hours behind
// goes by its peers' time, whether it was so when it started or goes wrong
// later, and what it says of the age of its knowledge is by that time too.
func TestAWrongClockIsOutvoted(t *testing.T) {
	p := newPair(t)
	p.drills = true
	set := func(name string) (right func()) {
		dir := mishap.Dir(filepath.Join(p.dir, "unicom", name))
		must(t, mishap.Write(dir, mishap.Order{ID: "slow", Kind: mishap.ClockJump, Jump: mishap.Span(-2 * time.Hour), At: time.Now(), Until: time.Now().Add(time.Hour)}))
		look := func() {
			if n := p.nodes[name]; n != nil {
				_, err := n.kit.Look()
				must(t, err)
			}
		}
		look()
		return func() {
			must(t, mishap.Remove(dir, "slow"))
			look()
		}
	}
	// wrong is how far what a clock says lies outside the time of asking it.
	wrong := func(say func() time.Time) time.Duration {
		began := time.Now()
		at := say()
		return max(0, began.Sub(at), time.Until(at))
	}
	right := set("unicom-words-1")
	p.open("unicom")
	first, second := p.nodes["unicom-words-1"], p.nodes["unicom-words-2"]
	p.until("the first is outvoted", func() bool { return first.common.Off() < -time.Hour })
	if d := wrong(first.Clock.Now); d > time.Second {
		t.Errorf("it is outvoted, and still wrong by %s", d)
	}
	right()
	p.until("the first is believed again", func() bool { return first.common.Off() == 0 })
	right = set("unicom-words-2")
	p.until("the second knows that it is off", func() bool { return second.common.Off() < -time.Hour })
	p.until("the second is level", func() bool { return wrong(func() time.Time { return second.Heard(0) }) < time.Minute })
	right()
	p.until("the second is believed again", func() bool { return second.common.Off() == 0 })
}

func TestSinceIsByTheOtherClock(t *testing.T) {
	if !since(clock.Real, time.Time{}).IsZero() {
		t.Error("never became a moment")
	}
	c := clock.NewManual(time.Unix(1_000_000, 0))
	began := time.Now()
	got := since(c, began.Add(-time.Minute))
	if over := c.Now().Add(-time.Minute).Sub(got); over < 0 || over > time.Since(began) {
		t.Error(got)
	}
}

// until waits for a condition that comes about by itself.
func (p *pair) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-deadline:
			p.t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
