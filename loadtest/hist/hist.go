// Package hist counts durations so that their percentiles can be trusted.
//
// A Hist keeps three significant digits between one microsecond and ten
// minutes, in a fixed amount of memory, and never averages percentiles: two
// Hists merge into the Hist that one generator would have recorded. What is
// outside the range is counted at its edge, never dropped.
//
// A Hist is not safe for concurrent use.
package hist

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of a Hist.
const (
	Least  = time.Microsecond
	Most   = 10 * time.Minute
	digits = 3
)

// Hist is a histogram of durations. Make one with New.
type Hist struct{ h *hdrhistogram.Histogram }

// New returns an empty histogram.
func New() *Hist {
	return &Hist{hdrhistogram.New(int64(Least/time.Microsecond), int64(Most/time.Microsecond), digits)}
}

// Record counts one duration.
func (h *Hist) Record(d time.Duration) { h.RecordN(d, 1) }

// RecordN counts one duration n times: a batch of n that ended together.
func (h *Hist) RecordN(d time.Duration, n int64) {
	us := int64(min(max(d, Least), Most) / time.Microsecond)
	if err := h.h.RecordValues(us, n); err != nil {
		panic(fmt.Sprintf("hist: %d µs is inside the range and was refused: %v", us, err))
	}
}

// Merge adds what other has counted.
func (h *Hist) Merge(other *Hist) {
	if other != nil {
		h.h.Merge(other.h)
	}
}

// Reset forgets everything.
func (h *Hist) Reset() { h.h.Reset() }

// Count is how many durations were recorded.
func (h *Hist) Count() int64 { return h.h.TotalCount() }

// Quantile is the duration that a share q (0..1) of the recorded ones do not
// exceed; 0 when nothing was recorded.
func (h *Hist) Quantile(q float64) time.Duration {
	if h.Count() == 0 {
		return 0
	}
	return time.Duration(h.h.ValueAtQuantile(q*100)) * time.Microsecond
}

// Max is the longest duration recorded, to three digits.
func (h *Hist) Max() time.Duration { return time.Duration(h.h.Max()) * time.Microsecond }

// Above is how many recorded durations exceed d, to three digits.
func (h *Hist) Above(d time.Duration) int64 {
	var n int64
	for _, bar := range h.h.Distribution() {
		if bar.From > int64(d/time.Microsecond) {
			n += bar.Count
		}
	}
	return n
}

// Point is one step of a distribution: how many lie in (.., To].
type Point struct {
	To    time.Duration
	Count int64
}

// Points lists the steps that hold anything, shortest first.
func (h *Hist) Points() []Point {
	var out []Point
	for _, bar := range h.h.Distribution() {
		if bar.Count > 0 {
			out = append(out, Point{time.Duration(bar.To) * time.Microsecond, bar.Count})
		}
	}
	return out
}

// Summary is a histogram in the numbers people read, in milliseconds.
type Summary struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
	Max   float64 `json:"max"`
}

// Summary reads the usual percentiles.
func (h *Hist) Summary() Summary {
	return Summary{
		Count: h.Count(),
		P50:   Millis(h.Quantile(.50)),
		P90:   Millis(h.Quantile(.90)),
		P99:   Millis(h.Quantile(.99)),
		P999:  Millis(h.Quantile(.999)),
		P9999: Millis(h.Quantile(.9999)),
		Max:   Millis(h.Max()),
	}
}

// Millis is d in milliseconds, kept to the microsecond.
func Millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// MarshalJSON writes the standard compressed HdrHistogram form, so that other
// tools can read it too.
func (h *Hist) MarshalJSON() ([]byte, error) {
	raw, err := h.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(raw))
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Hist) UnmarshalJSON(p []byte) error {
	var text string
	if err := json.Unmarshal(p, &text); err != nil {
		return err
	}
	got, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	fresh := New()
	if lost := fresh.h.Merge(got); lost > 0 {
		return fmt.Errorf("histogram: %d values are outside our range", lost)
	}
	*h = *fresh
	return nil
}
