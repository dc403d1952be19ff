package api

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTimesAreWrittenAsTheLibraryDoes compares over the whole range, and at
// the edges of the calendar.
func TestTimesAreWrittenAsTheLibraryDoes(t *testing.T) {
	want := func(ms int64) string { return `"` + time.UnixMilli(ms).UTC().Format(timeForm) + `"` }
	for _, ms := range []int64{1, 999, 1000, -1, 951782400_000, 951868799_999, 4107542400_000, 253402300799_999, 253402300800_000} {
		if got := string(appendTime(nil, ms)); got != want(ms) {
			t.Errorf("%s, want %s", got, want(ms))
		}
	}
	for day := range int64(366 * 500) {
		if got := string(appendTime(nil, day*86400_000+1)); got != want(day*86400_000+1) {
			t.Fatalf("%s, want %s", got, want(day*86400_000+1))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.Int64Range(-1<<40, 1<<49).Draw(t, "ms")
		if got := string(appendTime(nil, ms)); ms != 0 && got != want(ms) {
			t.Fatalf("%s, want %s", got, want(ms))
		}
	})
	if got := string(appendTime([]byte("x"), 0)); got != "xnull" {
		t.Error(got)
	}
}
