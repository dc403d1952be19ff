// Package status looks at a whole province and says how it is: every process
// with its role, what it leads, how far it holds each origin, and which
// breakers are not closed.
//
// It promises an answer within a few seconds whatever is dead: it asks
// everybody at once, waits for each only so long, and says of whom it heard
// nothing. It works without a supervisor, and from elsewhere with nothing but
// endpoints.
package status

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/supervise"
)

// Bounds of one look.
const (
	askMax    = 2 * time.Second // for one answer
	askAtOnce = 16
	answerMax = 8 << 20
)

// Report is the answer of `qianma status -o json`. Its fields are stable.
type Report struct {
	Province   string      `json:"province"`
	Data       string      `json:"data,omitempty"`
	At         time.Time   `json:"at"`
	Healthy    bool        `json:"healthy"` // every process that should run is ready, nothing lags, every breaker is closed
	Supervisor *Supervisor `json:"supervisor"`
	Processes  []Process   `json:"processes"`
	Origins    []Origin    `json:"origins"`
	Breakers   []Breaker   `json:"breakers"` // that are not closed
}

// Supervisor is who keeps the processes; null when there is none.
type Supervisor struct {
	PID   int            `json:"pid"`
	Since time.Time      `json:"since"`
	Holds []control.Hold `json:"holds"`
}

// Process is one process, as far as anybody knows.
type Process struct {
	Name      string    `json:"name"`
	Carrier   string    `json:"carrier"`
	Subsystem string    `json:"subsystem"`
	URL       string    `json:"url"`
	State     string    `json:"state"` // the supervisor's word, else "running" or "down"
	PID       int       `json:"pid"`
	Started   time.Time `json:"started,omitzero"`
	Restarts  int       `json:"restarts"`
	RSS       int64     `json:"rss"`
	CPU       float64   `json:"cpu"`
	Answers   bool      `json:"answers"` // over HTTP
	Ready     bool      `json:"ready"`
	Checks    []Check   `json:"checks,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Version   string    `json:"version,omitempty"`
	Shards    []Shard   `json:"shards,omitempty"`
	Lag       uint64    `json:"lag"` // facts that others hold and this one, which should, does not
	Marks     Marks     `json:"origins,omitempty"`
	Backbone  *Backbone `json:"backbone,omitempty"` // what a backbone says of its servers
	// Status is the process's own GET /v1/status, as it stands.
	Status json.RawMessage `json:"status,omitempty"`
}

// Check is one named check of /readyz.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Shard is what a process says of one replicated group.
type Shard struct {
	Shard   int    `json:"shard"`
	Role    string `json:"role"`
	Leader  string `json:"leader"`
	Term    uint64 `json:"term"`
	Applied uint64 `json:"applied"`
}

// Marks is how far a process holds each origin.
type Marks map[string]Mark

// Backbone is what a backbone says of its servers and of the line to others.
type Backbone struct {
	NATS struct {
		Running bool `json:"running"`
		Streams []struct {
			Name string `json:"name"`
			Lag  uint64 `json:"lag"` // behind the stream it is sourced from
		} `json:"streams"`
	} `json:"nats"`
	Etcd struct {
		Ready  bool `json:"ready"`
		Leader bool `json:"leader"`
	} `json:"etcd"`
	Links []struct {
		Other     string `json:"other"`
		Connected bool   `json:"connected"`
		QuietMS   int64  `json:"quiet_ms"`
	} `json:"links"`
}

// Mark is a sequence number and the digest there.
type Mark struct {
	Seq    uint64 `json:"seq"`
	Digest string `json:"digest"`
}

// Origin is one origin over all its holders.
type Origin struct {
	Origin  string            `json:"origin"`
	Newest  uint64            `json:"newest"`
	Holders int               `json:"holders"` // that should hold it and answered
	Level   int               `json:"level"`   // of those, how many hold everything
	Lag     map[string]uint64 `json:"lag"`     // of the others, by process
}

// Breaker is a breaker that is not closed.
type Breaker struct {
	Process  string `json:"process"`
	Peer     string `json:"peer"`
	Kind     string `json:"kind"`
	State    string `json:"state"`
	Fallback string `json:"fallback,omitempty"`
}

// follows says whose facts each subsystem holds.
var follows = map[string][]string{
	"nucleic": {"nucleic"}, "vaccine": {"vaccine"}, "display": {"display"}, "middlestore": {"nucleic", "vaccine"},
}

// Gather looks at the province once.
func Gather(ctx context.Context, p *province.Province) Report {
	r := Report{Province: p.Name, Data: p.Data, At: time.Now()}
	r.list(p)
	r.supervised(ctx, p)
	client := &http.Client{Timeout: askMax, Transport: &http.Transport{DisableKeepAlives: true}}
	turn := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for i := range r.Processes {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			r.Processes[i].ask(ctx, client)
		})
	}
	wg.Wait()
	r.weigh()
	return r
}

// list names every process: from the topology where there is one, else from
// the endpoints.
func (r *Report) list(p *province.Province) {
	if t, err := p.Topology(); err == nil && t != nil {
		for _, proc := range t.Processes {
			r.Processes = append(r.Processes, Process{Name: proc.Name, Carrier: proc.Carrier, Subsystem: proc.Subsystem, URL: "http://" + proc.HTTP})
		}
		return
	}
	for _, carrier := range p.Names() {
		for _, subsystem := range province.Subsystems {
			for _, url := range p.URLs(carrier, subsystem) {
				r.Processes = append(r.Processes, Process{Name: url, Carrier: carrier, Subsystem: subsystem, URL: url})
			}
		}
	}
}

// supervised adds what the supervisor knows; without one, what /proc shows.
func (r *Report) supervised(ctx context.Context, p *province.Province) {
	if p.Data == "" {
		return
	}
	if _, err := os.Stat(p.Data); err != nil {
		return // on another machine
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	if c, err := control.NewClient(p.Data).Processes(ctx, control.Selector{}); err == nil {
		r.Supervisor = &Supervisor{PID: c.PID, Since: c.Since, Holds: c.Holds}
		for _, s := range c.Processes {
			r.kept(s)
		}
		return
	}
	r.unkept(p)
}

func (r *Report) kept(s control.Process) {
	i := slices.IndexFunc(r.Processes, func(p Process) bool { return p.Name == s.Name })
	if i < 0 { // the links of a province that are proxied stand in no topology
		i = len(r.Processes)
		r.Processes = append(r.Processes, Process{Name: s.Name, Carrier: s.Carrier, Subsystem: s.Subsystem, URL: "http://" + s.HTTP})
	}
	p := &r.Processes[i]
	p.State, p.PID, p.Started, p.Restarts, p.RSS, p.CPU, p.Reason = string(s.State), s.PID, s.Started, s.Restarts, s.RSS, s.CPU, s.Reason
}

func (r *Report) unkept(p *province.Province) {
	t, err := p.Topology()
	if err != nil {
		return
	}
	l, err := province.At(p.Data)
	if err != nil {
		return
	}
	found, err := supervise.Find(province.Configs(l, t))
	if err != nil {
		return
	}
	for i := range r.Processes {
		p := &r.Processes[i]
		p.State = "down"
		if id, ok := found[p.Name]; ok {
			p.State, p.PID, p.Started, p.RSS = "running", id.PID, id.Started(), id.RSS()
		}
	}
}

// ask fills in what the process says of itself.
func (p *Process) ask(ctx context.Context, client *http.Client) {
	code, body := get(ctx, client, p.URL+"/readyz?verbose")
	p.Answers, p.Ready = code != 0, code == http.StatusOK
	p.Checks = readChecks(body)
	if !p.Answers {
		if p.State == "" {
			p.State = "silent"
		}
		return
	}
	if p.State == "" {
		p.State = "running"
	}
	if code, body := get(ctx, client, p.URL+"/v1/marks"); code == http.StatusOK {
		p.readMarks(body)
	}
	if code, body := get(ctx, client, p.URL+"/v1/status"); code == http.StatusOK && json.Valid(body) {
		p.Status = body
		p.readStatus()
	}
}

// readStatus takes from the process's own words what is shown beside others.
func (p *Process) readStatus() {
	var v struct {
		Process string `json:"process"`
		Version string `json:"version"`
	}
	if json.Unmarshal(p.Status, &v) == nil {
		p.Name, p.Version = cmp.Or(v.Process, p.Name), v.Version
	}
	if b := new(Backbone); p.Subsystem == "backbone" && json.Unmarshal(p.Status, b) == nil {
		p.Backbone = b
	}
}

func (p *Process) readMarks(body []byte) {
	var m struct {
		Process string  `json:"process"`
		Origins Marks   `json:"origins"`
		Shards  []Shard `json:"shards"`
	}
	if json.Unmarshal(body, &m) != nil {
		return
	}
	p.Marks, p.Shards = m.Origins, m.Shards
	if m.Process != "" {
		p.Name = m.Process
	}
}

// get returns the status code and the body; 0 when nobody answered.
func get(ctx context.Context, client *http.Client, url string) (code int, body []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return 0, nil
	}
	return res.StatusCode, body
}

// readChecks reads the lines of /readyz?verbose: "[+]leader ok",
// "[-]broker failed: cannot be reached".
func readChecks(body []byte) []Check {
	var out []Check
	lines := bufio.NewScanner(strings.NewReader(string(body)))
	for lines.Scan() {
		line := lines.Text()
		ok := strings.HasPrefix(line, "[+]")
		if !ok && !strings.HasPrefix(line, "[-]") {
			continue
		}
		name, detail, _ := strings.Cut(strings.TrimSpace(line[3:]), " ")
		detail = strings.TrimPrefix(detail, "failed: ")
		if ok {
			detail = ""
		}
		out = append(out, Check{Name: strings.TrimSuffix(name, ":"), OK: ok, Detail: detail})
	}
	return out
}

// weigh compares what the processes hold, and judges the whole.
func (r *Report) weigh() {
	newest := map[string]uint64{}
	for _, p := range r.Processes {
		for o, m := range p.Marks {
			newest[o] = max(newest[o], m.Seq)
		}
	}
	for o, seq := range newest {
		r.Origins = append(r.Origins, r.origin(o, seq))
	}
	slices.SortFunc(r.Origins, func(a, b Origin) int { return cmp.Compare(a.Origin, b.Origin) })
	r.Healthy = true
	for i := range r.Processes {
		p := &r.Processes[i]
		r.Breakers = append(r.Breakers, p.openBreakers()...)
		if (p.State != string(control.Stopped) && !p.Ready) || p.Lag > 0 {
			r.Healthy = false
		}
	}
	if len(r.Breakers) > 0 {
		r.Healthy = false
	}
}

// origin compares all who should hold an origin, and adds to their lag.
func (r *Report) origin(name string, newest uint64) Origin {
	o := Origin{Origin: name, Newest: newest, Lag: map[string]uint64{}}
	part := strings.Split(name, "/")
	for i := range r.Processes {
		p := &r.Processes[i]
		if p.Marks == nil || len(part) < 2 || !slices.Contains(follows[p.Subsystem], part[1]) {
			continue
		}
		o.Holders++
		if lag := newest - p.Marks[name].Seq; lag > 0 {
			o.Lag[p.Name] = lag
			p.Lag += lag
		} else {
			o.Level++
		}
	}
	return o
}

func (p *Process) openBreakers() []Breaker {
	var s struct {
		Breakers []Breaker `json:"breakers"`
	}
	if p.Status == nil || json.Unmarshal(p.Status, &s) != nil {
		return nil
	}
	var out []Breaker
	for _, b := range s.Breakers {
		if b.State != "" && b.State != "closed" {
			b.Process = p.Name
			out = append(out, b)
		}
	}
	return out
}
