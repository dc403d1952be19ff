package profiles

import (
	"testing"
	"time"
)

// A long run watches enough for a percentile, and no more.
func TestWatches(t *testing.T) {
	for run, want := range map[time.Duration]float64{10 * time.Second: 20, 30 * time.Second: 20, time.Minute: 10, 5 * time.Minute: 2, time.Hour: 1} {
		if got := watches(run); got != want {
			t.Errorf("a run of %s watches %v tests a second, want %v", run, got, want)
		}
	}
}
