package supervise

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"qianma/cluster/problem"
	"qianma/services/qianma/internal/control"
)

// Bounds of the control socket.
const (
	bodyMax = 64 << 10
	verbMax = 60 * time.Second // no call takes longer
)

// Handler answers the control socket. shutdown is called when somebody asks
// for the province to be taken down; it must not block.
func (s *Supervisor) Handler(shutdown func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /processes", answer(func(r *http.Request) (any, error) {
		q := r.URL.Query()
		return s.Report(control.Selector{Name: q.Get("name"), Carrier: q.Get("carrier"), Subsystem: q.Get("subsystem")}), nil
	}))
	mux.HandleFunc("POST /processes/{name}/{verb}", answer(func(r *http.Request) (any, error) {
		return s.Do(r.Context(), r.PathValue("name"), control.Verb(r.PathValue("verb")))
	}))
	mux.HandleFunc("POST /each/{verb}", answer(func(r *http.Request) (any, error) {
		var sel control.Selector
		if err := decode(r, &sel); err != nil {
			return nil, err
		}
		ps, err := s.DoEach(r.Context(), sel, control.Verb(r.PathValue("verb")))
		return control.Report{Processes: ps}, err
	}))
	mux.HandleFunc("POST /hold", answer(s.serveHold))
	mux.HandleFunc("POST /release", answer(func(r *http.Request) (any, error) {
		var sel control.Selector
		if err := decode(r, &sel); err != nil {
			return nil, err
		}
		return control.Report{Holds: s.Release(sel)}, nil
	}))
	mux.HandleFunc("POST /shutdown", answer(func(*http.Request) (any, error) {
		shutdown()
		return struct{}{}, nil
	}))
	return mux
}

func (s *Supervisor) serveHold(r *http.Request) (any, error) {
	var req control.HoldRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if len(s.pick(req.Selector)) == 0 {
		return nil, problem.New(problem.NotFound, "no process matches "+req.String(), "qianma processes lists names, carriers and subsystems")
	}
	var d time.Duration
	if req.For != "" {
		var err error
		if d, err = time.ParseDuration(req.For); err != nil || d <= 0 {
			return nil, problem.Wrap(err, problem.Invalid, "the hold's length cannot be read: "+req.For, "write it as 90s or 5m")
		}
	}
	return control.Report{Holds: s.Hold(req.Selector, d)}, nil
}

func decode(r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, bodyMax))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return problem.Wrap(err, problem.Malformed, "the request's body cannot be read", "send one JSON object")
	}
	return nil
}

func answer(fn func(r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), verbMax)
		defer cancel()
		v, err := fn(r.WithContext(ctx))
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			p := problem.From(err)
			w.WriteHeader(p.Status())
			v = control.Fault{Code: p.Code, Message: p.Message, Fix: p.Fix}
			if p.Code == problem.Internal { // the socket is for who runs the province: no need to hide the cause
				v = control.Fault{Code: p.Code, Message: err.Error(), Fix: "look at the supervisor's log"}
			}
		}
		_ = json.NewEncoder(w).Encode(v) // a caller that hung up has its own error
	}
}
