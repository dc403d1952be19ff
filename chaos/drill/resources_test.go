package drill

import (
	"testing"

	"qianma/chaos/traffic"
)

// TestWhatStaysIsFound: goroutines or memory that a process has not let go of
// after a drill, and a process that does not say, are found; the growth of a
// process that has merely worked is not.
func TestWhatStaysIsFound(t *testing.T) {
	before := traffic.Usage{Goroutines: 100, RSS: 80 << 20}
	for name, c := range map[string]struct {
		now    map[string]traffic.Usage
		broken int
	}{
		"worked":               {map[string]traffic.Usage{"a": {Goroutines: 180, RSS: 150 << 20}}, 0},
		"restarted":            {map[string]traffic.Usage{"a": {Goroutines: 60, RSS: 40 << 20}}, 0},
		"a goroutine for each": {map[string]traffic.Usage{"a": {Goroutines: 1600, RSS: 90 << 20}}, 1},
		"memory":               {map[string]traffic.Usage{"a": {Goroutines: 100, RSS: 700 << 20}}, 1},
		"silent":               {map[string]traffic.Usage{}, 1},
	} {
		if f := grown(map[string]traffic.Usage{"a": before}, c.now); f.Broken != c.broken || f.Looked != 1 {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
