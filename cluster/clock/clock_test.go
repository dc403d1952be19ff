package clock

import (
	"testing"
	"time"
)

var start = time.Date(2022, 1, 5, 7, 30, 0, 0, time.UTC)

func fired(c <-chan time.Time) (time.Time, bool) {
	select {
	case at := <-c:
		return at, true
	default:
		return time.Time{}, false
	}
}

func TestManualStandsStillUntilMoved(t *testing.T) {
	m := NewManual(start)
	for range 2 {
		if !m.Now().Equal(start) {
			t.Fatal("it moved")
		}
	}
	m.Advance(time.Minute)
	if !m.Now().Equal(start.Add(time.Minute)) {
		t.Fatal(m.Now())
	}
}

func TestManualFiresWhatIsDue(t *testing.T) {
	m := NewManual(start)
	long, short, now, past := m.After(2*time.Second), m.After(time.Second), m.After(0), m.After(-time.Second)
	for _, c := range []<-chan time.Time{now, past} {
		if _, ok := fired(c); !ok {
			t.Fatal("no wait at all is still waiting")
		}
	}
	if m.Waiting() != 2 {
		t.Fatalf("%d waiting", m.Waiting())
	}
	m.Advance(time.Second - 1)
	if _, ok := fired(short); ok {
		t.Fatal("fired early")
	}
	m.Advance(1)
	if at, ok := fired(short); !ok || !at.Equal(start.Add(time.Second)) {
		t.Fatalf("%v %v", at, ok)
	}
	if _, ok := fired(long); ok || m.Waiting() != 1 {
		t.Fatal("fired early")
	}
	m.Advance(time.Hour)
	if _, ok := fired(long); !ok || m.Waiting() != 0 {
		t.Fatal("did not fire")
	}
	if _, ok := fired(long); ok {
		t.Fatal("fired twice")
	}
}

// Whoever waits need not be there when the clock moves.
func TestManualDoesNotBlock(t *testing.T) {
	m := NewManual(start)
	for range 100 {
		m.After(time.Second)
	}
	m.Advance(time.Minute)
	m.Advance(time.Minute)
	if m.Waiting() != 0 {
		t.Fatal(m.Waiting())
	}
}

func TestManualFromManySides(t *testing.T) {
	m := NewManual(start)
	done := make(chan bool)
	for range 8 {
		go func() {
			<-m.After(time.Second)
			done <- !m.Now().Before(start.Add(time.Second))
		}()
	}
	for left := 8; left > 0; {
		m.Advance(time.Second)
		select {
		case ok := <-done:
			left--
			if !ok {
				t.Error("woken before its time")
			}
		default:
		}
	}
}

func TestReal(t *testing.T) {
	before := Real.Now()
	if at := <-Real.After(time.Microsecond); at.Before(before) {
		t.Fatal("the machine's clock goes backwards")
	}
}

// TestSettingAClockPassesNoTime: nothing that waits is due, and what was due still
// comes when it was to.
func TestSettingAClockPassesNoTime(t *testing.T) {
	m := NewManual(start)
	began, c := m.Elapsed(), m.After(time.Second)
	for _, to := range []time.Time{start.Add(time.Hour), start.Add(-time.Hour)} {
		m.Set(to)
		if _, ok := fired(c); ok || m.Elapsed() != began || !m.Now().Equal(to) {
			t.Fatalf("set to %s: it is %s, %s have passed", to, m.Now(), m.Elapsed()-began)
		}
	}
	m.Advance(time.Second)
	if _, ok := fired(c); !ok || m.Elapsed() != began+time.Second {
		t.Fatalf("%s have passed", m.Elapsed()-began)
	}
}

// TestElapsedIsNeverNever: a zero can stand for what has not happened yet.
func TestElapsedIsNeverNever(t *testing.T) {
	for name, c := range map[string]Clock{"real": Real, "manual": NewManual(start), "common": NewCommon(Real)} {
		before := c.Elapsed()
		if after := c.Elapsed(); before <= 0 || after < before {
			t.Errorf("%s: %s, then %s", name, before, after)
		}
	}
}
