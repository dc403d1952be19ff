package clock

import (
	"testing"
	"time"
)

// common is a Common over a machine's clock that a test moves.
func common() (*Common, *Manual) {
	machine := NewManual(start)
	return NewCommon(machine), machine
}

// jump sets a clock by d.
func jump(m *Manual, d time.Duration) { m.Set(m.Now().Add(d)) }

// TestAClockIsOutvoted: a clock that jumps, there and back, or runs at another
// pace changes nothing, at once and after each comparison, whatever it does.
func TestAClockIsOutvoted(t *testing.T) {
	c, machine := common()
	right := start
	same := func(what string, slack time.Duration) {
		t.Helper()
		if d := c.Now().Sub(right).Abs(); d > slack {
			t.Errorf("%s: %s off", what, d)
		}
	}
	others := func() []time.Duration {
		d := right.Sub(machine.Now())
		return []time.Duration{d, d, d + 10*time.Millisecond}
	}
	tick := func(d time.Duration) { machine.Advance(d); right = right.Add(d) }
	if c.Hear(others()) != 0 {
		t.Error("a right clock was called wrong")
	}
	tick(time.Second)
	same("agreed", 0)
	for _, by := range []time.Duration{-2 * time.Hour, 24 * time.Hour} {
		jump(machine, by)
		same("in the moment of a jump", step)
		tick(time.Second)
		if off := c.Hear(others()); (off - by).Abs() > step {
			t.Errorf("off by %s, want %s", off, by)
		}
		tick(time.Minute)
		same("outvoted", step)
		jump(machine, -by)
		same("in the moment it was put right", step)
		if c.Hear(others()) != 0 {
			t.Error("not believed again")
		}
		same("put right", 0)
	}
	for _, gain := range []time.Duration{time.Second, 200 * time.Millisecond, -time.Second / 2} {
		for range 20 {
			tick(time.Second)
			jump(machine, gain)
			same("drifting", step)
			c.Hear(others())
			same("drifting, compared", step)
		}
		machine.Set(right)
		c.Hear(others())
		same("drifts no more", 0)
	}
}

// TestAWrongClockFromTheBeginning has no right time to go on from.
func TestAWrongClockFromTheBeginning(t *testing.T) {
	c, machine := common()
	if c.Now() != machine.Now() {
		t.Error("before anybody was heard it is the machine's")
	}
	if off := c.Hear([]time.Duration{time.Hour, time.Hour}); off != -time.Hour || !c.Now().Equal(start.Add(time.Hour)) {
		t.Errorf("off by %s, now %s", off, c.Now())
	}
	if c.Machine() != machine.Now() {
		t.Error("peers are told an opinion")
	}
}

// TestStoppedWhileComparing: a process that was stopped between two readings
// has not seen its clock go wrong.
func TestStoppedWhileComparing(t *testing.T) {
	c, machine := common()
	ahead := []time.Duration{0, 0}
	c.Hear(ahead)
	run, stopped := c.run, false
	c.run = func() time.Duration {
		was := run()
		if !stopped {
			stopped = true
			machine.Advance(time.Minute)
		}
		return was
	}
	c.Hear(ahead)
	if d := c.Now().Sub(machine.Now()); d != 0 {
		t.Errorf("%s off", d)
	}
}

// TestWhoIsWrong: one that is wrong among others does not move a right clock,
// nor does one peer alone.
func TestWhoIsWrong(t *testing.T) {
	for _, ahead := range [][]time.Duration{{}, {time.Hour}, {0, time.Hour}, {0, -time.Hour, time.Hour}, {time.Hour, time.Hour, 0}, {apart, apart}} {
		if c, _ := common(); c.Hear(ahead) != 0 || !c.Now().Equal(start) {
			t.Errorf("%v moved a right clock by %s", ahead, c.Off())
		}
	}
	c, _ := common()
	c.Hear([]time.Duration{time.Hour, time.Hour})
	if c.Hear([]time.Duration{time.Hour}) != -time.Hour {
		t.Error("a peer alone took back what two had said")
	}
}

// TestWhatHasPassedIsNotVotedOn: a machine that began two hours ahead is outvoted,
// so its time goes back; what has passed by it does not.
func TestWhatHasPassedIsNotVotedOn(t *testing.T) {
	c, machine := common()
	began, now := c.Elapsed(), c.Now()
	machine.Advance(time.Second)
	c.Hear([]time.Duration{-2 * time.Hour, -2 * time.Hour})
	if !c.Now().Before(now) {
		t.Error("the time did not go back")
	}
	if d := c.Elapsed() - began; d != time.Second {
		t.Errorf("in a second %s have passed", d)
	}
}
