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
	last    []cost.Usage
	notes   []string
}

func observe(meter *cost.Meter, e *province.Endpoints, carriers []string) *observer {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{meter: meter, endpoints: e, carriers: carriers, stop: cancel,
		http: &http.Client{Timeout: 2 * time.Second}}
	o.last = meter.Usage()
	o.wg.Go(func() { o.run(ctx) })
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
			var answer struct {
				Origins map[string]struct {
					Seq uint64 `json:"seq"`
				} `json:"origins"`
			}
			if o.get(ctx, base+"/v1/marks", &answer) != nil {
				continue // the next node knows as much
			}
			seen := map[string]uint64{}
			for origin, m := range answer.Origins {
				seen[origin] = m.Seq
			}
			out[c] = seen
			break
		}
	}
	return out
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

// committed is how many facts all origins hold, each counted where it was born.
func committed(marks map[string]map[string]uint64) int64 {
	most := map[string]uint64{}
	for _, origins := range marks {
		for origin, seq := range origins {
			most[origin] = max(most[origin], seq)
		}
	}
	var n int64
	for _, seq := range most {
		n += int64(seq)
	}
	return n
}

// seen is the newest moment, and all of them.
func (o *observer) seen() (newest report.Moment, all []report.Moment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.moments); n > 0 {
		newest = o.moments[n-1]
	}
	return newest, o.moments
}

// Close stops the watching and waits for it.
func (o *observer) Close() {
	o.stop()
	o.wg.Wait()
	o.http.CloseIdleConnections()
}
