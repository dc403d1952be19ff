package chaos

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/alecthomas/kong"

	"qianma/chaos/drill"
	"qianma/chaos/report"
)

// often runs a drill with one seed after the other. A run that came to no
// verdict or broke something does not end it: how often that happens is what is
// to be found out.
func (c *Run) often(ctx context.Context, k *kong.Context, d *drill.Drill) error {
	first := cmp.Or(c.Seed, rand.Uint64N(1<<32)+1)
	dir := c.Report
	if dir == "" {
		dir = filepath.Join(c.home().Reports(), time.Now().UTC().Format("20060102-150405")+"-"+d.Name+"-runs")
	}
	var all []*report.Report
	for n := range c.Runs {
		seed := first + uint64(n)
		rep, err := rehearse(ctx, d, c.Data, seed, filepath.Join(dir, fmt.Sprintf("seed-%d", seed)), says(k.Stderr, c.Watch))
		if err != nil {
			return err
		}
		all = append(all, rep)
		if c.Output == "text" {
			summary(k.Stdout, rep)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err := writeTable(dir); err != nil {
		return err
	}
	t := total(all)
	if c.Output == "json" {
		if err := json.NewEncoder(k.Stdout).Encode(t); err != nil {
			return err
		}
	} else {
		t.print(k.Stdout)
		fmt.Fprintf(k.Stdout, "  %s\n", filepath.Join(dir, "index.html"))
	}
	if t.Verdict != report.Held {
		return verdict{t.Verdict, fmt.Sprintf("%s: %d of %d runs held", d.Name, t.Held, t.Runs)}
	}
	return nil
}

// Total is what the runs of one drill came to. The figures are of the runs that
// came to a verdict; with fewer than a hundred of them the 99th percentile is the
// worst.
type Total struct {
	Name    string         `json:"name"`
	Verdict report.Verdict `json:"verdict"` // the worst
	Runs    int            `json:"runs"`
	Held    int            `json:"held"`
	Judged  int            `json:"judged"`

	WriteGapP50    float64 `json:"longest_write_gap_p50_ms"`
	WriteGapP99    float64 `json:"longest_write_gap_p99_ms"`
	UploadSuccess  float64 `json:"upload_success_least"`
	DisplaySuccess float64 `json:"display_success_least"`
	Lost           int64   `json:"lost"`
	Repeated       int64   `json:"repeated"`
	StaleGreen     int     `json:"stale_green"`
}

func total(all []*report.Report) Total {
	t := Total{Verdict: report.Held, Runs: len(all), UploadSuccess: 100, DisplaySuccess: 100}
	var gaps []float64
	for _, r := range all {
		t.Name = r.Name
		t.Verdict = report.Worse(t.Verdict, r.Verdict)
		if r.Verdict == report.Refused || r.Verdict == report.Aborted {
			continue
		}
		if r.Verdict == report.Held {
			t.Held++
		}
		t.Judged++
		gaps = append(gaps, r.LongestWriteGap)
		t.UploadSuccess, t.DisplaySuccess = min(t.UploadSuccess, r.UploadSuccess), min(t.DisplaySuccess, r.DisplaySuccess)
		t.Lost, t.Repeated, t.StaleGreen = t.Lost+r.Lost, t.Repeated+r.Repeated, t.StaleGreen+r.StaleGreen
	}
	slices.Sort(gaps)
	t.WriteGapP50, t.WriteGapP99 = rank(gaps, .5), rank(gaps, .99)
	return t
}

// rank is the least value that a share (above 0) of a sorted list does not exceed.
func rank(sorted []float64, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(math.Ceil(share*float64(len(sorted))))-1]
}

func (t *Total) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %d runs: %d held; worst: %s\n", t.Name, t.Runs, t.Held, t.Verdict)
	fmt.Fprintf(out, "  longest write gap: median %.0f ms, p99 %.0f ms; uploads at least %.3f%%, displays at least %.3f%%\n",
		t.WriteGapP50, t.WriteGapP99, t.UploadSuccess, t.DisplaySuccess)
	fmt.Fprintf(out, "  lost %d, repeated %d, silently stale %d\n", t.Lost, t.Repeated, t.StaleGreen)
}
