package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"qianma/cluster/problem"
)

// NotRunning is the code of the problem that there is no supervisor.
const NotRunning problem.Code = "supervisor_not_running"

// answerMax bounds what is read of an answer.
const answerMax = 4 << 20

// Client talks to the supervisor of one data directory. It is safe for
// concurrent use and holds no connection between calls.
type Client struct {
	data string
	http *http.Client
}

// NewClient returns a client of the supervisor of that data directory, which
// need not run yet.
func NewClient(data string) *Client {
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, data)
		},
	}
	return &Client{data: data, http: &http.Client{Transport: t}}
}

// Processes returns what the supervisor sees, of the processes picked.
func (c *Client) Processes(ctx context.Context, s Selector) (Report, error) {
	q := url.Values{}
	for name, value := range map[string]string{"name": s.Name, "carrier": s.Carrier, "subsystem": s.Subsystem} {
		if value != "" {
			q.Set(name, value)
		}
	}
	var r Report
	err := c.call(ctx, http.MethodGet, "/processes?"+q.Encode(), nil, &r)
	return r, err
}

// Do applies the verb to one process and returns it as it is afterwards.
func (c *Client) Do(ctx context.Context, name string, v Verb) (Process, error) {
	var p Process
	err := c.call(ctx, http.MethodPost, "/processes/"+url.PathEscape(name)+"/"+string(v), nil, &p)
	return p, err
}

// DoEach applies the verb to all processes picked, at once.
func (c *Client) DoEach(ctx context.Context, s Selector, v Verb) ([]Process, error) {
	var r Report
	err := c.call(ctx, http.MethodPost, "/each/"+string(v), s, &r)
	return r.Processes, err
}

// HoldRequest is the body of POST /hold.
type HoldRequest struct {
	Selector
	For string `json:"for,omitempty"` // duration after which it lets go; empty: never
}

// Hold keeps the processes picked from being started after they die; d bounds
// the hold, 0: until Release.
func (c *Client) Hold(ctx context.Context, s Selector, d time.Duration) ([]Hold, error) {
	req := HoldRequest{Selector: s}
	if d > 0 {
		req.For = d.String()
	}
	var r Report
	err := c.call(ctx, http.MethodPost, "/hold", req, &r)
	return r.Holds, err
}

// Release ends the holds that the selector covers.
func (c *Client) Release(ctx context.Context, s Selector) ([]Hold, error) {
	var r Report
	err := c.call(ctx, http.MethodPost, "/release", s, &r)
	return r.Holds, err
}

// Shutdown asks the supervisor to stop everything and leave. It returns when
// the request is taken, not when it is done.
func (c *Client) Shutdown(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/shutdown", nil, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return readProblem(raw, res.Status)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

func (c *Client) explain(err error) error {
	if absent(err) {
		return problem.Wrap(err, NotRunning, "no supervisor runs on "+c.data, "start it with: qianma up --data "+c.data)
	}
	return err
}

// Fault is a problem as the control socket writes it.
type Fault struct {
	Code    problem.Code `json:"code"`
	Message string       `json:"message"`
	Fix     string       `json:"fix"`
}

func readProblem(raw []byte, status string) error {
	var f Fault
	if json.Unmarshal(raw, &f) != nil || f.Code == "" {
		return errors.New("supervisor: " + status)
	}
	return problem.New(f.Code, f.Message, f.Fix)
}
