package loadtest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/internal/crash"
	"qianma/loadtest/province"
	"qianma/loadtest/report"
)

// observer watches the system from beside the run: what its processes use, how
// far one carrier is behind the other. It has its own goroutine, so that
// reading /proc never makes an arrival late.
type observer struct {
	meter     *cost.Meter
	endpoints *province.Endpoints // nil: no marks to read
	carriers  []string
	http      *http.Client
	stop      context.CancelFunc
	wg        sync.WaitGroup

	mu      sync.Mutex
	moments []report.Moment
	known   report.Moment // the newest with lag and breakers, which are not read every second
	last    []cost.Usage
	notes   []string
}

func observe(meter *cost.Meter, e *province.Endpoints, carriers []string) *observer {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{meter: meter, endpoints: e, carriers: carriers, stop: cancel,
		http: &http.Client{Timeout: 2 * time.Second}}
	o.last = meter.Usage()
	o.wg.Go(func() {
		defer crash.Guard()
		o.run(ctx)
	})
	return o
}

func (o *observer) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for second := 1; ; second++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m := o.moment(ctx, second)
		o.mu.Lock()
		o.moments = append(o.moments, m)
		if o.endpoints != nil && second%2 == 0 {
			o.known = m
		}
		o.mu.Unlock()
	}
}

func (o *observer) moment(ctx context.Context, second int) report.Moment {
	m := report.Moment{At: second, CPU: map[string]float64{}}
	o.mu.Lock()
	if err := o.meter.Sample(); err != nil {
		o.note("processes could not be metered in some seconds: " + err.Error())
	}
	before := map[string]float64{}
	for _, u := range o.last {
		before[u.Role] = u.CPU
	}
	o.last = o.meter.Usage()
	for _, u := range o.last {
		m.CPU[u.Role] = max(0, u.CPU-before[u.Role])
	}
	o.mu.Unlock()
	if o.endpoints != nil && second%2 == 0 {
		m.Lag = lag(o.marks(ctx), o.carriers)
		m.Breakers = o.breakers(ctx)
	}
	return m
}

// breakers counts those that are not closed, as each carrier's display says.
func (o *observer) breakers(ctx context.Context) int {
	open := 0
	for _, c := range o.carriers {
		var status struct {
			Breakers []struct {
				State string `json:"state"`
			} `json:"breakers"`
		}
		for _, base := range o.endpoints.Carriers[c]["display"] {
			if o.get(ctx, base+"/v1/status", &status) == nil {
				break
			}
		}
		for _, b := range status.Breakers {
			if b.State != "closed" {
				open++
			}
		}
	}
	return open
}

func (o *observer) note(text string) {
	for _, n := range o.notes {
		if n == text {
			return
		}
	}
	o.notes = append(o.notes, text)
}

// marks reads how far each carrier is with each nucleic origin.
func (o *observer) marks(ctx context.Context) map[string]map[string]uint64 {
	out := map[string]map[string]uint64{}
	for _, c := range o.carriers {
		for _, base := range o.endpoints.Carriers[c]["nucleic"] {
			seen, err := o.marksOf(ctx, base)
			if err != nil {
				continue // the next node knows as much
			}
			out[c] = seen
			break
		}
	}
	return out
}

// marksOf is how far one process is with each nucleic origin.
func (o *observer) marksOf(ctx context.Context, base string) (map[string]uint64, error) {
	var answer struct {
		Origins map[string]struct {
			Seq uint64 `json:"seq"`
		} `json:"origins"`
	}
	if err := o.get(ctx, base+"/v1/marks", &answer); err != nil {
		return nil, err
	}
	seen := map[string]uint64{}
	for origin, m := range answer.Origins {
		if strings.Contains(origin, "/nucleic/") {
			seen[origin] = m.Seq
		}
	}
	return seen, nil
}

// everyMark asks every process of a subsystem; whoever does not answer is not
// in it. why names a carrier of which nobody answered.
func (o *observer) everyMark(ctx context.Context, subsystem string) (all []map[string]uint64, why string) {
	for _, c := range o.carriers {
		before := len(all)
		for _, base := range o.endpoints.Carriers[c][subsystem] {
			if seen, err := o.marksOf(ctx, base); err == nil {
				all = append(all, seen)
			}
		}
		if len(all) == before {
			why = "no " + subsystem + " node of " + c + " said what it has committed"
		}
	}
	return all, why
}

// committed is how many facts all origins hold, as the process says that is
// furthest with each, or why that is not known.
func (o *observer) committed(ctx context.Context) (n int64, why string) {
	all, why := o.everyMark(ctx, "nucleic")
	for _, seq := range furthest(all) {
		n += int64(seq)
	}
	return n, why
}

func furthest(all []map[string]uint64) map[string]uint64 {
	most := map[string]uint64{}
	for _, origins := range all {
		for origin, seq := range origins {
			most[origin] = max(most[origin], seq)
		}
	}
	return most
}

// level says whether every replica of nucleic and every middle store that
// answers holds every fact.
func (o *observer) level(ctx context.Context) bool {
	all, why := o.everyMark(ctx, "nucleic")
	stores, _ := o.everyMark(ctx, "middlestore")
	all = append(all, stores...)
	most := furthest(all)
	for _, origins := range all {
		for origin, seq := range most {
			if origins[origin] < seq {
				return false
			}
		}
	}
	return why == ""
}

func (o *observer) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := o.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(into)
}

// lag is how many facts of each carrier's own the other carriers still miss.
func lag(marks map[string]map[string]uint64, carriers []string) map[string]int64 {
	out := map[string]int64{}
	for _, c := range carriers {
		for _, other := range carriers {
			if other == c || marks[c] == nil || marks[other] == nil {
				continue
			}
			var behind int64
			for origin, seq := range marks[c] {
				if strings.HasPrefix(origin, c+"/") {
					behind += max(0, int64(seq)-int64(marks[other][origin]))
				}
			}
			out[c] = max(out[c], behind)
		}
	}
	return out
}

// seen is the newest moment, with lag and breakers as they were last read, and
// all of them as they were read.
func (o *observer) seen() (newest report.Moment, all []report.Moment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.moments); n > 0 {
		newest = o.moments[n-1]
	}
	newest.Lag, newest.Breakers = o.known.Lag, o.known.Breakers
	return newest, o.moments
}

// Close stops the watching and waits for it.
func (o *observer) Close() {
	o.stop()
	o.wg.Wait()
	o.http.CloseIdleConnections()
}
