// Package world is a running province as a drill sees and touches it: through
// its supervisor's socket, the public status of each process, and the control
// of its links.
//
// It promises to report what the system shows now and to keep nothing of its
// own between calls, so that whether a fault is undone is asked of the system.
// Every call ends within its context or its own bound. It decides nothing.
package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"qianma/chaos/link"
	"qianma/chaos/wire"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
)

// Process is one process as its supervisor sees it.
type Process struct {
	Name      string    `json:"name"`
	Carrier   string    `json:"carrier"`
	Subsystem string    `json:"subsystem"`
	PID       int       `json:"pid"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Restarts  int       `json:"restarts"`
	Reason    string    `json:"reason"`
	RSS       int64     `json:"rss"`
	HTTP      string    `json:"http"`
	Log       string    `json:"log"`
	Dir       string    `json:"dir"`
}

// Ready is the state of a process that serves.
const Ready = "ready"

// Selector picks processes; an empty field matches all.
type Selector struct {
	Name      string `json:"name,omitempty"`
	Carrier   string `json:"carrier,omitempty"`
	Subsystem string `json:"subsystem,omitempty"`
}

// Hold keeps what it picks down.
type Hold struct {
	Selector
	Until time.Time `json:"until,omitzero"`
}

// Report is what the supervisor sees.
type Report struct {
	Province  string    `json:"province"`
	PID       int       `json:"pid"` // of the supervisor
	Closing   bool      `json:"closing"`
	Holds     []Hold    `json:"holds"`
	Processes []Process `json:"processes"`
}

// Mark is how far a process holds an origin.
type Mark struct {
	Seq    uint64 `json:"seq"`
	Digest string `json:"digest"`
}

// Shard is what a process says of one of its groups.
type Shard struct {
	Shard  int    `json:"shard"`
	Role   string `json:"role"`
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`
}

// Marks is GET /v1/marks of a process.
type Marks struct {
	Process string          `json:"process"`
	Origins map[string]Mark `json:"origins"`
	Shards  []Shard         `json:"shards"`
}

// World is a province on this machine. It is safe for concurrent use.
type World struct {
	Data     string
	Topology *topology.Topology
	control  *http.Client
	public   *http.Client
	proxy    *http.Client // of the links
	links    string       // base URL of the links' control; "" when links are direct
	wire     wire.Line    // between the carriers' namespaces; nil when they have none
}

// Bounds of what is asked.
const (
	answerMax = 8 << 20
	askMax    = 3 * time.Second
	ruleMax   = 20 * time.Second
	verbMax   = 70 * time.Second
)

// Open finds the province of a data directory. It need not run yet.
func Open(data string) (*World, error) {
	data, err := filepath.Abs(data)
	if err == nil {
		data, err = filepath.EvalSymlinks(data)
	}
	if err != nil {
		return nil, absent(err, data)
	}
	t, err := topology.Load(filepath.Join(data, "topology.json"))
	if err != nil {
		return nil, absent(err, data)
	}
	w := &World{Data: data, Topology: t}
	if w.links, err = linksOf(data); err != nil {
		return nil, err
	}
	if w.wire, err = wireOf(data); err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, data) }
	w.control = &http.Client{Timeout: verbMax, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	w.public = &http.Client{Timeout: askMax, Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 10 * time.Second}}
	// A process that hangs is part of a drill and must not hold up who looks; the
	// links never hang, and a rule that was given up may take hold all the same.
	w.proxy = &http.Client{Timeout: ruleMax, Transport: w.public.Transport}
	return w, nil
}

func absent(err error, data string) error {
	return problem.Wrap(err, problem.NotFound, "there is no province in "+data, "start one with: qianma up --data "+data)
}

func linksOf(data string) (string, error) {
	cfg, err := link.Load(filepath.Join(data, "links.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return "http://" + cfg.HTTP, err
}

func wireOf(data string) (wire.Line, error) {
	cfg, err := wire.Load(filepath.Join(data, "wire.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return cfg.Open(), nil
}

// dialControl enters the directory first: a socket's path may be too long for
// its address.
func dialControl(ctx context.Context, data string) (net.Conn, error) {
	dir, err := os.Open(data)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", dir.Fd()))
}

// Close lets go of idle connections.
func (w *World) Close() {
	w.control.CloseIdleConnections()
	w.public.CloseIdleConnections()
}

// Report asks the supervisor for everything it sees.
func (w *World) Report(ctx context.Context) (Report, error) {
	var r Report
	err := w.command(ctx, http.MethodGet, "/processes", nil, &r)
	return r, err
}

// Process returns one process as it is now.
func (w *World) Process(ctx context.Context, name string) (Process, error) {
	var r Report
	if err := w.command(ctx, http.MethodGet, "/processes?name="+url.QueryEscape(name), nil, &r); err != nil {
		return Process{}, err
	}
	if len(r.Processes) != 1 {
		return Process{}, problem.New(problem.NotFound, "no process is called "+name, "qianma processes lists the names")
	}
	return r.Processes[0], nil
}

// Do applies a verb of the supervisor (kill, pause, resume, start, stop,
// restart) to a process.
func (w *World) Do(ctx context.Context, name, verb string) error {
	return w.command(ctx, http.MethodPost, "/processes/"+url.PathEscape(name)+"/"+verb, nil, nil)
}

// Hold keeps a process down once it dies, at most for d.
func (w *World) Hold(ctx context.Context, name string, d time.Duration) error {
	return w.command(ctx, http.MethodPost, "/hold", map[string]string{"name": name, "for": d.String()}, nil)
}

// Release ends the hold on a process.
func (w *World) Release(ctx context.Context, name string) error {
	return w.command(ctx, http.MethodPost, "/release", Selector{Name: name}, nil)
}

func (w *World) command(ctx context.Context, method, path string, in, out any) error {
	err := call(ctx, w.control, method, "http://supervisor"+path, in, out)
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, os.ErrNotExist) {
		return problem.Wrap(err, problem.Unavailable, "no supervisor runs on "+w.Data, "start it with: qianma up --data "+w.Data)
	}
	return err
}

// HasLinks reports whether faults can be put on links.
func (w *World) HasLinks() bool { return w.links != "" }

// SetRule puts a fault on links for at most d.
func (w *World) SetRule(ctx context.Context, r link.Rule, d time.Duration) error {
	return call(ctx, w.proxy, http.MethodPost, w.links+"/rules", link.Request{Rule: r, For: d.String()}, nil)
}

// RemoveRule takes it off. One that is not there is fine.
func (w *World) RemoveRule(ctx context.Context, id string) error {
	return call(ctx, w.proxy, http.MethodDelete, w.links+"/rules/"+url.PathEscape(id), nil, nil)
}

// Rules are those in force on links.
func (w *World) Rules(ctx context.Context) ([]link.Rule, error) {
	if w.links == "" {
		return nil, nil
	}
	var out []link.Rule
	err := call(ctx, w.proxy, http.MethodGet, w.links+"/rules", nil, &out)
	return out, err
}

// Wire is the line between the carriers' namespaces, where faults can be put on
// packets; nil when the carriers have none.
func (w *World) Wire() wire.Line { return w.wire }

// Marks asks a process how far it is.
func (w *World) Marks(ctx context.Context, name string) (Marks, error) {
	var m Marks
	p, ok := w.Topology.Find(name)
	if !ok {
		return m, fmt.Errorf("no process is called %s", name)
	}
	err := call(ctx, w.public, http.MethodGet, "http://"+p.HTTP+"/v1/marks", nil, &m)
	return m, err
}

// Text asks a process for a text page, as in /metrics.
func (w *World) Text(ctx context.Context, name, path string) ([]byte, error) {
	p, ok := w.Topology.Find(name)
	if !ok {
		return nil, fmt.Errorf("no process is called %s", name)
	}
	var raw []byte
	err := call(ctx, w.public, http.MethodGet, "http://"+p.HTTP+path, nil, &raw)
	return raw, err
}

// Get asks a process for a JSON page.
func (w *World) Get(ctx context.Context, name, path string, out any) error {
	p, ok := w.Topology.Find(name)
	if !ok {
		return fmt.Errorf("no process is called %s", name)
	}
	return call(ctx, w.public, http.MethodGet, "http://"+p.HTTP+path, nil, out)
}

// Leader is the leader of a group, as most of its members say; "" if they
// name none.
func (w *World) Leader(ctx context.Context, carrier, subsystem string, shard int) string {
	votes := map[string]int{}
	best := ""
	for _, p := range w.Topology.Select(carrier, subsystem) {
		m, err := w.Marks(ctx, p.Name)
		if err != nil {
			continue
		}
		for _, s := range m.Shards {
			if s.Shard == shard && s.Leader != "" {
				if votes[s.Leader]++; votes[s.Leader] > votes[best] {
					best = s.Leader
				}
			}
		}
	}
	return best
}

// call speaks JSON; an out of *[]byte takes the answer as it is.
func call(ctx context.Context, c *http.Client, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return refusal(res.Status, raw)
	}
	if text, ok := out.(*[]byte); ok {
		*text = raw
		return nil
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

func refusal(status string, raw []byte) error {
	var f struct {
		Code    problem.Code `json:"code"`
		Message string       `json:"message"`
		Fix     string       `json:"fix"`
	}
	if json.Unmarshal(raw, &f) != nil || f.Code == "" {
		return fmt.Errorf("%s: %s", status, bytes.TrimSpace(raw[:min(len(raw), 200)]))
	}
	return problem.New(f.Code, f.Message, f.Fix)
}
