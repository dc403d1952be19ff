package loadtest

import (
	"errors"
	"io"
	"testing"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
)

// Goal: a try begins when the last one's work is done, and at the bound with a
// note. Method: looks that see a system become idle after some, or never.
func TestATryWaitsForWhatTheLastOneLeft(t *testing.T) {
	for _, c := range []struct {
		name        string
		idleAt      int // the look that sees it idle; 0: none
		looks, want int
		note        bool
	}{
		{"idle at once", 1, 30, 1, false},
		{"idle at the fifth look", 5, 30, 5, false},
		{"never idle", 0, 30, 30, true},
	} {
		n := 0
		note, err := untilIdle(t.Context(), c.looks, func() (float64, error) {
			if n++; n == c.idleAt {
				return idleShare / 2, nil
			}
			return .9, nil
		})
		if err != nil || n != c.want || (note != "") != c.note {
			t.Errorf("%s: %d looks, note %q, %v; want %d, a note %v", c.name, n, note, err, c.want, c.note)
		}
	}
	broken := errors.New("no /proc")
	if _, err := untilIdle(t.Context(), 3, func() (float64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("an error was swallowed: %v", err)
	}
}

// Goal: the wait comes before the load, and not where others load too. Method: a
// system that cannot be metered, so that the wait ends the try; was it opened?
func TestATryIsMadeAfterTheWait(t *testing.T) {
	broken := errors.New("no /proc")
	for _, shared := range []bool{false, true} {
		opened := false
		system := System{Name: "none", Carriers: []string{"unicom"},
			Processes: func() ([]cost.Process, error) { return nil, broken },
			Open:      func(string) (drive.Target, error) { opened = true; return nil, broken }}
		c := FindMaxCommand{}
		c.Profile, c.People, c.Shared, c.Out = "batch", 1000, shared, t.TempDir()
		if _, err := c.tries(t.Context(), system, newLive(io.Discard, true))(100); !errors.Is(err, broken) || opened != shared {
			t.Errorf("shared %v: opened %v, %v", shared, opened, err)
		}
	}
}
