// Package report turns a finished run into what people and programs read: a
// verdict, stable JSON, one HTML file that works offline, a comparison.
//
// The JSON fields of Result are stable: they are added to, never renamed. A
// report repeats nothing it was not told, and never hides an invalid run: its
// numbers stand beside the word.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/hist"
	"qianma/loadtest/ledger"
)

// Result is a finished run.
type Result struct {
	Profile      string       `json:"profile"`
	Target       string       `json:"target"`
	OfferedPerS  float64      `json:"offered_per_s"`
	AchievedPerS float64      `json:"achieved_per_s"`
	DurationS    float64      `json:"duration_s"`
	Sent         int64        `json:"sent"`
	Acked        int64        `json:"acked"`
	Failed       int64        `json:"failed"`
	Unknown      int64        `json:"unknown"`
	Dropped      int64        `json:"dropped"`
	Valid        bool         `json:"valid"`
	Invalid      []string     `json:"invalid"`       // why not valid
	ResponseMS   hist.Summary `json:"response_ms"`   // of the slowest kind of the main stream: see Stream
	ResponseKind string       `json:"response_kind"` // which that is
	ServiceMS    hist.Summary `json:"service_ms"`
	VisibleMS    hist.Summary `json:"visible_ms"`
	Lost         int64        `json:"lost"`
	Wrong        int64        `json:"wrong"`
	Repeated     int64        `json:"repeated"`
	// Whether repeats were looked for: where nothing is written, or a target
	// cannot be asked what is in a tube, Repeated says nothing.
	RepeatedChecked bool `json:"repeated_checked"`
	// One operation is one unit of any stream: a test, or a display. -1: not
	// measured.
	CPUPerOp  float64 `json:"cpu_us_per_op"`
	DiskPerOp float64 `json:"disk_bytes_per_op"`
	// The same processor time with what the system still owed when the last
	// answer came, read once nobody was behind any more; -1: not measured.
	CPUPerOpSettled float64 `json:"cpu_us_per_op_settled"`
	SettledS        float64 `json:"settled_s"` // from the last answer until then; -1: it was not seen in time
	// Tries beyond the first, and those among all tries that were refused.
	Retries  int64 `json:"retries"`
	Refusals int64 `json:"refusals"`
	// Shares of the displays that went well; -1: there were none.
	FoundShare float64 `json:"found_share"` // showed a test
	StaleShare float64 `json:"stale_share"` // said that what they showed was old
	// What was not measured and is therefore not judged.
	NotMeasured    []string `json:"not_measured"`
	GeneratorShare float64  `json:"generator_cpu_share"` // of all processes' time
	Machine        Machine  `json:"machine"`
	Commit         string   `json:"commit"`

	WarmS    float64        `json:"warm_s"` // of the beginning, which is in no percentile
	Unit     string         `json:"unit"`   // what offered, achieved, acked count
	Closed   bool           `json:"closed"`
	Start    time.Time      `json:"start"`
	Settings map[string]any `json:"settings"`
	Carriers []string       `json:"carriers"`
	Streams  []Stream       `json:"streams"`
	Roles    []cost.Usage   `json:"roles"`
	Settled  []cost.Usage   `json:"roles_settled,omitempty"` // as Roles, once nobody was behind
	BusyCPU  float64        `json:"machine_busy_s"`          // whoever used it
	Seconds  []Moment       `json:"seconds"`
	Ledger   *ledger.Report `json:"ledger"`
	Unseen   int64          `json:"unseen"` // watched tests that were not acknowledged, or that the other carrier did not show in time
	Facts    *Facts         `json:"facts,omitempty"`
	Surge    *Surge         `json:"surge,omitempty"`
	Late     int64          `json:"late"`
	LagMS    hist.Summary   `json:"lag_ms"`
	Checks   []Check        `json:"checks"`
	Visible  *hist.Hist     `json:"visible_hist,omitempty"`
	Lag      *hist.Hist     `json:"lag_hist,omitempty"`
	Parts    int            `json:"parts"` // generators merged into this
	Notes    []string       `json:"notes"`
}

// MarshalJSON writes lists that programs look into as lists, also where they are
// empty.
func (r Result) MarshalJSON() ([]byte, error) {
	type plain Result
	for _, list := range []*[]string{&r.Invalid, &r.NotMeasured, &r.Notes} {
		if *list == nil {
			*list = []string{}
		}
	}
	return json.Marshal(plain(r))
}

// Stream is one source of arrivals.
type Stream struct {
	Name         string      `json:"name"`
	Unit         string      `json:"unit"`
	OfferedPerS  float64     `json:"offered_per_s"`
	AchievedPerS float64     `json:"achieved_per_s"` // acknowledged, over the time from the first intended start to the last end
	InTime       int64       `json:"in_time"`        // units acknowledged within half a second of the last arrival
	Units        drive.Units `json:"units"`
	// Of the kind of operation with the longest 99th percentile, row by row: a
	// test is registered and gets a result, and the quicker of the two must not
	// make the other look quicker.
	ResponseMS hist.Summary            `json:"response_ms"`
	ServiceMS  hist.Summary            `json:"service_ms"`
	Slowest    string                  `json:"slowest_kind"`
	ByKind     map[string]hist.Summary `json:"response_by_kind_ms"`
	Kinds      map[string]*drive.Tally `json:"kinds"`
	Series     []drive.Second          `json:"series"`
}

// Moment is what was seen of the system in one second.
type Moment struct {
	At       int                `json:"at"`
	CPU      map[string]float64 `json:"cpu,omitempty"`      // cores, by role
	Lag      map[string]int64   `json:"lag,omitempty"`      // facts of a carrier that the other has not yet
	Breakers int                `json:"breakers,omitempty"` // not closed
}

// Facts compares what was acknowledged with what the origins committed.
type Facts struct {
	Acknowledged int64  `json:"acknowledged"`
	Committed    int64  `json:"committed"`            // by all nucleic origins, between before and after
	Excused      int64  `json:"excused"`              // rows that may be there beyond those acknowledged
	Unmeasured   string `json:"unmeasured,omitempty"` // why Committed says nothing of this run
}

// OfOnePart is why the facts of one of several generators are not measured; of
// all of them together they are.
const OfOnePart = "the other generators of the run wrote too"

// Excess is how many facts were committed that nobody sent.
func (f *Facts) Excess() int64 {
	if f == nil || f.Unmeasured != "" {
		return 0
	}
	return max(0, f.Committed-f.Acknowledged-f.Excused)
}

// Surge is how the system took ten times the load.
type Surge struct {
	GoodputPerS    float64            `json:"goodput_per_s"` // at the height, of the first stream
	HeightPerS     map[string]float64 `json:"height_per_s"`  // the same of each stream by its name
	RefusalMS      hist.Summary       `json:"refusal_ms"`
	WithoutHint    int64              `json:"refused_without_retry_after"`
	RecoveryS      float64            `json:"recovery_s"` // after the fall until the objectives hold again; -1: never
	DisplayRefused int64              `json:"display_refused"`
	BindingRefused int64              `json:"binding_refused"` // swabs bound to people
	// Of all that arrived in the run: refused, failed, unknown, dropped, or
	// answered after the client's patience.
	DisplayUnserved int64 `json:"display_unserved"`
	BindingUnserved int64 `json:"binding_unserved"`
}

// Machine is where the run took place.
type Machine struct {
	CPU       string  `json:"cpu"`
	Cores     int     `json:"cores"`
	MemoryMiB int64   `json:"memory_mib"`
	Kernel    string  `json:"kernel"`
	OS        string  `json:"os"`
	Go        string  `json:"go"`
	FsyncUS   float64 `json:"fsync_us"` // median of a 4 KiB write and fsync
	Load1     float64 `json:"load_1m"`  // when the run began
	Generator string  `json:"generator_priority"`
}

// Sum reads a stream out of its driver.
func Sum(s *drive.Stream, took time.Duration) Stream {
	out := Stream{Name: s.Name, Unit: s.Unit, Units: s.Units, InTime: s.InTime, Series: s.Series, Kinds: map[string]*drive.Tally{}}
	for k, t := range s.Kinds {
		if t.Started > 0 {
			out.Kinds[drive.Kind(k).String()] = t
		}
	}
	out.OfferedPerS = s.Plan.Arrivals() / s.Plan.Duration().Seconds()
	out.settle(took)
	return out
}

// settle derives what follows from the counts.
func (s *Stream) settle(took time.Duration) {
	s.ByKind = map[string]hist.Summary{}
	for _, name := range sorted(s.Kinds) {
		t := s.Kinds[name]
		sum := t.Response.Summary()
		if s.ByKind[name] = sum; s.Slowest == "" || sum.P99 > s.ResponseMS.P99 {
			s.Slowest, s.ResponseMS, s.ServiceMS = name, sum, t.Service.Summary()
		}
	}
	if took > 0 {
		s.AchievedPerS = float64(s.Units.Acked) / took.Seconds()
	}
}

// Count is the sum of a count over the kinds.
func (s *Stream) Count(of func(*drive.Tally) int64) int64 {
	var n int64
	for _, t := range s.Kinds {
		n += of(t)
	}
	return n
}

// Main is the stream the headline numbers are of.
func (r *Result) Main() *Stream { return &r.Streams[0] }

// Headline copies the main stream's numbers to the top.
func (r *Result) Headline() {
	m := r.Main()
	r.Unit, r.OfferedPerS, r.AchievedPerS = m.Unit, m.OfferedPerS, m.AchievedPerS
	r.Sent, r.Acked, r.Failed, r.Unknown, r.Dropped = m.Units.Sent, m.Units.Acked, m.Units.Failed, m.Units.Unknown, m.Units.Dropped
	r.ResponseMS, r.ServiceMS, r.ResponseKind = m.ResponseMS, m.ServiceMS, m.Slowest
	if r.Visible != nil {
		r.VisibleMS = r.Visible.Summary()
	}
	if r.Lag != nil {
		r.LagMS = r.Lag.Summary()
	}
	if r.Ledger != nil {
		r.Lost, r.Wrong, r.Repeated, r.RepeatedChecked = r.Ledger.Lost, r.Ledger.Wrong, r.Ledger.Repeated, r.Ledger.RepeatedChecked
	}
	r.Retries, r.Refusals = 0, 0
	for i := range r.Streams {
		r.Retries += r.Streams[i].Count(func(t *drive.Tally) int64 { return t.Retries })
		r.Refusals += r.Streams[i].Count(func(t *drive.Tally) int64 { return t.Refusal.Count() })
	}
	_, r.FoundShare = r.shown(func(t *drive.Tally) int64 { return t.Found })
	_, r.StaleShare = r.shown(func(t *drive.Tally) int64 { return t.Stale })
	r.price()
}

// RepeatedText is how often something was there twice, or that nobody looked.
func (r *Result) RepeatedText() string {
	if !r.RepeatedChecked {
		return "n/a"
	}
	return count(r.Repeated)
}

// shown is a count of the displays that went well, and its share of them.
func (r *Result) shown(of func(*drive.Tally) int64) (n int64, share float64) {
	var all int64
	for i := range r.Streams {
		if t := r.Streams[i].Kinds[drive.Display.String()]; t != nil {
			n, all = n+of(t), all+t.OK
		}
	}
	if all == 0 {
		return 0, -1
	}
	return n, float64(n) / float64(all)
}

// price spreads the cost over all that was done.
func (r *Result) price() {
	r.CPUPerOp, r.DiskPerOp, r.GeneratorShare, r.CPUPerOpSettled = -1, -1, -1, -1
	ops := r.ops()
	var cpu, generator float64
	var written int64
	system := false
	for _, u := range r.Roles {
		cpu += u.CPU
		if u.Role == cost.Generator {
			generator += u.CPU
			continue
		}
		system = true
		if u.Written < 0 || written < 0 {
			written = -1
			continue
		}
		written += u.Written
	}
	if cpu > 0 {
		r.GeneratorShare = generator / cpu
	}
	if ops == 0 || !system {
		return
	}
	r.CPUPerOp = cpu * 1e6 / float64(ops)
	if len(r.Settled) > 0 {
		r.CPUPerOpSettled = 0
		for _, u := range r.Settled {
			r.CPUPerOpSettled += r.CPUOf(u)
		}
	}
	if written >= 0 {
		r.DiskPerOp = float64(written) / float64(ops)
	}
}

// ops is how many tests and displays were done.
func (r *Result) ops() int64 {
	var n int64
	for i := range r.Streams {
		n += r.Streams[i].Units.Acked
	}
	return n
}

// CPUOf is the processor time of one role, in µs per operation; -1 where there
// was no operation.
func (r *Result) CPUOf(u cost.Usage) float64 {
	ops := r.ops()
	if ops == 0 {
		return -1
	}
	return u.CPU * 1e6 / float64(ops)
}

// Save writes the result as JSON.
func (r *Result) Save(path string) error {
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// Load reads a result, or result.json in a directory.
func Load(path string) (*Result, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "result.json")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Result)
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(r.Streams) == 0 {
		return nil, fmt.Errorf("%s is not the result of a load run", path)
	}
	return r, nil
}
