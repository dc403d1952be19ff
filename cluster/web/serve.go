package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"qianma/cluster/problem"
)

// HandlerFunc answers a request, or returns why it cannot. After an error it
// must have written nothing.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// MethodNotAllowed is the code of a path that exists under another method.
const MethodNotAllowed problem.Code = "method_not_allowed"

// Handle makes h answer a pattern of http.ServeMux as class Normal.
func (s *Server) Handle(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
	s.HandleClass(Normal, pattern, h)
}

// HandleClass is Handle with a class.
func (s *Server) HandleClass(class Class, pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
	s.mux.Handle(pattern, &endpoint{s: s, class: class, pattern: pattern, h: h, meter: s.meter.endpoint(pattern)})
}

// ServeHTTP implements http.Handler, so that tests can do without a port.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := recorders.Get().(*recorder)
	*rec = recorder{ResponseWriter: w, id: s.ids.take(r), held: true}
	s.flying.Add(1)
	defer func() {
		s.flying.Add(-1)
		*rec = recorder{}
		recorders.Put(rec)
	}()
	h := w.Header()
	h["X-Request-Id"] = []string{rec.id}
	h["X-Served-By"] = s.servedBy
	s.mux.ServeHTTP(rec, r)
	if rec.held {
		s.unmatched(rec)
	}
}

// unmatched answers what no endpoint did. The mux has said why in its own
// words, which the recorder has held back.
func (s *Server) unmatched(rec *recorder) {
	s.meter.unmatched.Inc()
	status := rec.status
	rec.held, rec.status = false, 0
	switch {
	case status == http.StatusMethodNotAllowed:
		allow := strings.ReplaceAll(rec.Header().Get("Allow"), " ", "")
		p := problem.New(MethodNotAllowed, "this path is not asked with that method", "use one of: "+allow)
		writeProblem(rec, p, http.StatusMethodNotAllowed)
	case status >= 300 && status < 400:
		rec.WriteHeader(status)
	case status == http.StatusBadRequest:
		writeProblem(rec, problem.New(problem.Malformed, "the request cannot be read", "check the path and the headers"), http.StatusBadRequest)
	default:
		writeProblem(rec, problem.New(problem.NotFound, "there is nothing at this path", "see /openapi.yaml for what there is"), http.StatusNotFound)
	}
}

// endpoint is one pattern with its handler.
type endpoint struct {
	s       *Server
	class   Class
	pattern string
	h       HandlerFunc
	meter   *endpointMeter
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := w.(*recorder)
	rec.held = false
	start := time.Now()
	defer func() {
		took := time.Since(start)
		if rec.status == 0 { // a handler that writes nothing says 200
			rec.status = http.StatusOK
		}
		e.meter.done(rec.status, took)
		if l := e.s.cfg.Logger; l.Enabled(r.Context(), slog.LevelDebug) {
			l.Debug("request", "pattern", e.pattern, "status", rec.status, "bytes", rec.bytes, "took", took, "request_id", rec.id)
		}
	}()
	if err := e.admit(rec, r); err != nil {
		e.fail(rec, err)
	}
}

// admit finds the request a place and answers it.
func (e *endpoint) admit(rec *recorder, r *http.Request) (err error) {
	g := e.s.gates[e.class]
	if e.s.sheds(e.class) || !g.enter(r.Context()) {
		e.s.meter.shed[e.class].Inc()
		return busy(e.class)
	}
	b := e.s.lend(r, g)
	defer b.giveBack()
	defer func() {
		if v := recover(); v != nil {
			err = e.panicked(rec, v)
		}
	}()
	return e.h(rec, r)
}

// remnant is what is left of the places of the normal class while the process is
// crowded: one in so many. A lab's results and a restriction are shed before a
// code, but they are few, and a result makes the tests of a whole tube done. With
// one in eight a province that was asked for twice its capacity bound the swabs
// and refused half of the results: a quarter of the tests were done.
const remnant = 2

// sheds reports whether a class is turned away before it asks for a place: the
// process has more to do than it can, or vital requests that wait for long.
func (s *Server) sheds(c Class) bool {
	if c == Vital || c == Operations || !s.gates[Vital].late() && !s.load.sheds(c) {
		return false
	}
	taken, _ := s.gates[c].full()
	return c == Optional || taken >= s.gates[c].limit.Concurrent/remnant
}

func (e *endpoint) panicked(rec *recorder, v any) error {
	if v == http.ErrAbortHandler {
		panic(v)
	}
	e.s.meter.panics.Inc()
	// The value may hold what was sent; its type and the stack do not.
	e.s.cfg.Logger.Error("handler panicked", "pattern", e.pattern, "request_id", rec.id,
		"kind", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	return problem.New(problem.Internal, "something went wrong on our side", "try again; if it stays, tell operations the time and the request id")
}

// fail answers with a problem, or cuts the connection when an answer had begun.
func (e *endpoint) fail(rec *recorder, err error) {
	err = settle(err)
	p := problem.From(err)
	if p.Code == problem.Internal {
		e.s.cfg.Logger.Error("request failed", "pattern", e.pattern, "request_id", rec.id, "error", err)
	}
	if rec.status != 0 {
		panic(http.ErrAbortHandler)
	}
	var f *refusal
	if errors.As(err, &f) {
		writeRefusal(rec, p, f)
		return
	}
	writeProblem(rec, p, p.Status())
}

// settle gives an end of time its meaning: what was asked for may have been
// done. It is no fault of ours either, so it is not logged as one.
func settle(err error) error {
	var p *problem.Problem
	if !errors.As(err, &p) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return problem.Wrap(err, problem.Unknown, "no answer came in time", "it may have been done: repeat with the same Idempotency-Key")
	}
	return err
}

// recorder keeps what became of an answer.
type recorder struct {
	http.ResponseWriter
	id     string
	status int
	bytes  int64
	held   bool // no endpoint has been found: it is the mux that speaks
}

var recorders = sync.Pool{New: func() any { return new(recorder) }}

// WriteHeader notes the status, and holds back what the mux says in its own words.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	if !r.held {
		r.ResponseWriter.WriteHeader(status)
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.held {
		return len(p), nil
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// RequestID is the id of the request that w answers; "" outside a Server.
func RequestID(w http.ResponseWriter) string {
	if v := w.Header()["X-Request-Id"]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// retryAfter is the header's value: whole seconds, never less than asked for.
func retryAfter(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
