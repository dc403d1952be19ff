// Package report is what a drill leaves for people and programs: a verdict,
// what was measured, what was found, as JSON with stable fields and as one HTML
// page that needs nothing else.
//
// It promises to put the verdict first, to name the seed and the line that runs
// the drill again, and never to call held what was not looked at.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"qianma/chaos/check"
	"qianma/chaos/fault"
	"qianma/chaos/traffic"
	"qianma/loadtest/drive"
	loads "qianma/loadtest/report"
)

// Verdict is how a drill ended. Its code is what the command exits with.
type Verdict string

// The verdicts.
const (
	Held    Verdict = "held"
	Missed  Verdict = "missed"  // an objective
	Broken  Verdict = "broken"  // an invariant
	Refused Verdict = "refused" // it never began
	Aborted Verdict = "aborted"
	Stuck   Verdict = "undo incomplete"
)

var codes = map[Verdict]int{Held: 0, Missed: 1, Broken: 2, Refused: 3, Aborted: 4, Stuck: 5}

// Code is the exit code.
func (v Verdict) Code() int { return codes[v] }

// gravity orders verdicts: a drill that came to none says less than one that
// found something broken.
var gravity = []Verdict{Held, Missed, Refused, Aborted, Broken, Stuck}

// Worse is the graver of two verdicts.
func Worse(a, b Verdict) Verdict {
	if slices.Index(gravity, b) > slices.Index(gravity, a) {
		return b
	}
	return a
}

// Objectives are what a drill must measure up to; 0: not asked.
type Objectives struct {
	WriteGap       fault.Duration `yaml:"longest_write_gap" json:"longest_write_gap,omitzero"`
	UploadSuccess  float64        `yaml:"upload_success" json:"upload_success,omitzero"`   // in a hundred
	DisplaySuccess float64        `yaml:"display_success" json:"display_success,omitzero"` // in a hundred
	DisplayP99     fault.Duration `yaml:"display_p99" json:"display_p99,omitzero"`
	Detected       fault.Duration `yaml:"detected" json:"detected,omitzero"` // a fault that nobody feels shows nothing
	Recovered      fault.Duration `yaml:"recovered" json:"recovered,omitzero"`
	Converged      fault.Duration `yaml:"converged" json:"converged,omitzero"`
	UploadsRefused bool           `yaml:"uploads_refused" json:"uploads_refused,omitzero"` // while it lasts, clearly
}

// Fault is a fault as it came and went.
type Fault struct {
	ID       string         `json:"id"`
	Spec     fault.Spec     `json:"spec"`
	Targets  []string       `json:"targets"`
	Inject   []fault.Action `json:"inject"`
	Undo     []fault.Action `json:"undo"`
	From     float64        `json:"from_ms"` // after the beginning of the traffic
	Injected float64        `json:"injected_ms"`
	To       float64        `json:"to_ms"` // when its undo was shown
	Error    string         `json:"error,omitempty"`
}

// Report is a drill that has ended. The first fields are stable.
type Report struct {
	Name            string  `json:"name"`
	Verdict         Verdict `json:"verdict"`
	Seed            uint64  `json:"seed"`
	Injected        int     `json:"injected"`
	DetectedMS      float64 `json:"detected_ms"`          // until the first sign of it; -1: none
	RecoveredMS     float64 `json:"recovered_ms"`         // until clients were through again for good
	LongestWriteGap float64 `json:"longest_write_gap_ms"` // of one carrier's clients
	UploadSuccess   float64 `json:"upload_success"`       // in a hundred
	DisplaySuccess  float64 `json:"display_success"`      // in a hundred
	DisplayP99      float64 `json:"display_p99_ms"`
	Lost            int64   `json:"lost"`
	Repeated        int64   `json:"repeated"`
	StaleGreen      int     `json:"stale_green"`
	ConvergedMS     float64 `json:"converged_ms"` // after the last fault and the last write; -1: never
	UndoVerified    bool    `json:"undo_verified"`

	Says       string           `json:"says"`
	Row        string           `json:"row"`
	Why        []string         `json:"why"` // not held
	Start      time.Time        `json:"start"`
	Commit     string           `json:"commit"`
	Again      string           `json:"again"` // the line that runs it again
	Faults     []Fault          `json:"faults"`
	Findings   []check.Finding  `json:"findings"`
	Objectives Objectives       `json:"objectives"`
	Failed     map[string]int   `json:"failed"` // tries that did not succeed, by reason
	Operations int              `json:"operations"`
	LostRefs   []string         `json:"lost_refs,omitempty"`
	Notes      []string         `json:"notes,omitempty"`
	Changes    []traffic.Change `json:"changes"` // of processes and leaders
	Streams    []Stream         `json:"streams"`
	Moments    []loads.Moment   `json:"moments"`
	MustFail   string           `json:"must_fail,omitempty"` // the invariant that a canary breaks
	Machine    loads.Machine    `json:"machine"`
}

// Stream is what a stream of the load did, second by second.
type Stream struct {
	Name   string         `json:"name"`
	Units  drive.Units    `json:"units"`
	Series []drive.Second `json:"series"`
}

// Judge sets the verdict from what was measured and found.
func (r *Report) Judge() {
	for _, f := range r.Findings {
		if f.Broken > 0 {
			r.Why = append(r.Why, fmt.Sprintf("%s: broken %d times", f.Name, f.Broken))
		}
	}
	broken := len(r.Why) > 0
	r.objectives()
	switch {
	case r.Verdict == Refused || r.Verdict == Aborted:
	case !r.UndoVerified:
		r.Verdict = Stuck
		r.Why = append(r.Why, "a fault could not be shown to be gone")
	case broken:
		r.Verdict = Broken
	case len(r.Why) > 0:
		r.Verdict = Missed
	default:
		r.Verdict = Held
	}
}

// Breaks reports whether an invariant was found broken.
func (r *Report) Breaks(invariant string) bool {
	return slices.ContainsFunc(r.Findings, func(f check.Finding) bool { return f.Name == invariant && f.Broken > 0 })
}

// Judged turns a canary around: one that holds proves that nobody looks, and one
// that fails for another reason proves nothing.
func (r *Report) Judged() Verdict {
	switch {
	case r.MustFail == "":
		return r.Verdict
	case r.Verdict == Broken && r.Breaks(r.MustFail):
		return Held
	case r.Verdict == Held || r.Verdict == Missed:
		return Broken
	}
	return r.Verdict
}

func (r *Report) objectives() {
	o := r.Objectives
	most := func(what string, got float64, limit fault.Duration) {
		if ms := float64(limit.D()) / 1e6; limit > 0 && (got > ms || got < 0) {
			r.Why = append(r.Why, fmt.Sprintf("%s: %.0f ms, asked for at most %.0f", what, got, ms))
		}
	}
	least := func(what string, got, limit float64) {
		if got < limit {
			r.Why = append(r.Why, fmt.Sprintf("%s: %.3f%%, asked for at least %.3f%%", what, got, limit))
		}
	}
	most("longest write gap", r.LongestWriteGap, o.WriteGap)
	most("display p99", r.DisplayP99, o.DisplayP99)
	most("first sign", r.DetectedMS, o.Detected)
	most("recovered", r.RecoveredMS, o.Recovered)
	most("converged", r.ConvergedMS, o.Converged)
	least("upload success", r.UploadSuccess, o.UploadSuccess)
	least("display success", r.DisplaySuccess, o.DisplaySuccess)
	for _, f := range r.Findings {
		if f.Looked == 0 && f.Broken == 0 {
			r.Why = append(r.Why, f.Name+": nothing was looked at")
		}
		if f.Unsure != "" {
			r.Why = append(r.Why, f.Name+": "+f.Unsure)
		}
	}
}

// Save writes report.json and report.html into a directory.
func (r *Report) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "report.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	page, err := r.HTML()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.html"), page, 0o644)
}

// Load reads report.json, or the one in a directory.
func Load(path string) (*Report, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "report.json")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	return r, json.Unmarshal(raw, r)
}
