package cost

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Supervisor lists the processes of the province in a data directory, from
// its control socket: by subsystem, and the supervisor itself.
func Supervisor(data string) Source {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		// A socket's path may be too long for its address; its directory,
		// entered through /proc, is short.
		dir, err := os.Open(data)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join("/proc/self/fd", fmt.Sprint(dir.Fd()), "control.sock"))
	}
	hc := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	return func() ([]Process, error) {
		res, err := hc.Get("http://supervisor/processes")
		if err != nil {
			return nil, err
		}
		defer res.Body.Close()
		var report struct {
			PID       int `json:"pid"`
			Processes []struct {
				Name      string `json:"name"`
				Subsystem string `json:"subsystem"`
				PID       int    `json:"pid"`
			} `json:"processes"`
		}
		if err := json.NewDecoder(io.LimitReader(res.Body, 4<<20)).Decode(&report); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
		var out []Process
		for _, p := range report.Processes {
			if p.PID > 0 {
				out = append(out, Process{Name: p.Name, Role: p.Subsystem, PID: p.PID})
			}
		}
		if report.PID > 0 {
			out = append(out, Process{Name: "supervisor", Role: "supervisor", PID: report.PID, Parent: true})
		}
		return out, nil
	}
}

// Every asks a source at most once in a period and repeats its last answer in
// between: asking costs the supervisor too.
func Every(period time.Duration, s Source) Source {
	var last []Process
	var at time.Time
	return func() ([]Process, error) {
		if last != nil && time.Since(at) < period {
			return last, nil
		}
		got, err := s()
		if err == nil {
			last, at = got, time.Now()
		}
		return got, err
	}
}

// Self is the generator.
func Self() Process { return Process{Name: "generator", Role: Generator, PID: os.Getpid()} }

// Generator is the role of whoever makes the load.
const Generator = "generator"

// With adds processes to a source.
func With(s Source, more ...Process) Source {
	return func() ([]Process, error) {
		if s == nil {
			return more, nil
		}
		out, err := s()
		return append(out, more...), err
	}
}
