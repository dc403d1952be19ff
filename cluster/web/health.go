package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"qianma/cluster/problem"
)

// checkTimeout bounds one named check, and checkFor is how long the outcome is
// good for: a crowd of probes costs one look.
const (
	checkTimeout = 2 * time.Second
	checkFor     = 100 * time.Millisecond
)

type checks struct {
	mu   sync.Mutex // held through a look, so that there is one at a time
	list []check
	at   time.Time
	last []outcome
}

type check struct {
	name string
	fn   func(context.Context) error
}

type outcome struct {
	name string
	err  error
	took time.Duration
}

// Check adds a named condition to /readyz: the process is ready while every
// one returns nil. An error is shown to whoever asks for ?verbose, so it must
// not hold a secret.
func (s *Server) Check(name string, fn func(ctx context.Context) error) {
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	s.checks.list = append(s.checks.list, check{name, fn})
	s.checks.at = time.Time{}
}

// run makes every check at once and returns the outcomes in the order the
// checks were added.
func (c *checks) run(ctx context.Context, now time.Time) []outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() && now.Sub(c.at) < checkFor && now.Sub(c.at) >= 0 {
		return c.last
	}
	// A probe that hangs up must not spoil the outcome for the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	out := make([]outcome, len(c.list))
	done := make(chan int, len(c.list))
	for i, k := range c.list {
		out[i] = outcome{name: k.name, err: context.DeadlineExceeded, took: checkTimeout}
		go func() {
			start := time.Now()
			err := k.fn(ctx)
			out[i] = outcome{k.name, err, time.Since(start)}
			done <- i
		}()
	}
	// A check that does not keep to its context is waited for all the same:
	// to leave it running would pile up one for each probe.
	for range c.list {
		<-done
	}
	c.at, c.last = now, out
	return out
}

// health registers what every process answers. These do not pass admission:
// a process under load must still say that it lives.
func (s *Server) health() {
	s.mux.HandleFunc("GET /livez", s.plain(func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") }))
	s.mux.HandleFunc("GET /readyz", s.plain(s.readyz))
	metrics := promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	s.mux.HandleFunc("GET /metrics", s.plain(metrics.ServeHTTP))
	for path, h := range map[string]http.HandlerFunc{
		"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace,
	} {
		s.mux.HandleFunc("GET "+path, s.plain(local(h)))
	}
}

// plain marks a request as matched without passing admission.
func (s *Server) plain(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.(*recorder).held = false
		h(w, r)
	}
}

// local hides what only the machine's own people may see.
func local(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			writeProblem(w, problem.New(problem.NotFound, "there is nothing at this path", "see /openapi.yaml for what there is"), http.StatusNotFound)
			return
		}
		h(w, r)
	}
}

// readyz says yes or no, and with ?verbose why: one line a check.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	outcomes := s.checks.run(r.Context(), s.cfg.Clock.Now())
	if s.draining.Load() {
		outcomes = append(slices.Clone(outcomes), outcome{name: "draining", err: fmt.Errorf("this process is being stopped")})
	}
	failed := slices.DeleteFunc(slices.Clone(outcomes), func(o outcome) bool { return o.err == nil })
	status := http.StatusOK
	if len(failed) > 0 {
		status = http.StatusServiceUnavailable
		w.Header()["Retry-After"] = []string{"1"}
	}
	var b strings.Builder
	if _, verbose := r.URL.Query()["verbose"]; !verbose {
		outcomes = failed
	}
	for _, o := range outcomes {
		if o.err == nil {
			fmt.Fprintf(&b, "[+] %s ok (%v)\n", o.name, o.took.Round(time.Microsecond))
		} else {
			fmt.Fprintf(&b, "[-] %s: %s\n", o.name, problemLine(o.err))
		}
	}
	if status == http.StatusOK {
		b.WriteString("ready\n")
	} else {
		b.WriteString("not ready\n")
	}
	text(w, status, b.String())
}

// problemLine keeps a check's reason on its line.
func problemLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header()["Cache-Control"] = noStore
	w.WriteHeader(status)
	_, _ = w.Write([]byte(s))
}
