package link

import (
	"encoding/json"
	"net/http"
	"time"
)

// bodyMax bounds a request.
const bodyMax = 64 << 10

// Request is a rule as it is posted; For is its lease.
type Request struct {
	Rule
	For string `json:"for,omitempty"` // duration, such as 60s; empty: until removed
}

// Traffic is what went through one link.
type Traffic struct {
	Link
	Connections int64 `json:"connections"`
	Refused     int64 `json:"refused"`
	Bytes       int64 `json:"bytes"`
}

// Handler is the control API:
//
//	GET /readyz            it listens
//	GET /rules             rules in force
//	POST /rules            set one (Request)
//	DELETE /rules          remove all
//	DELETE /rules/{id}     remove one
//	GET /links             links with their traffic
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready\n")) })
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, _ *http.Request) { write(w, p.Rules()) })
	mux.HandleFunc("POST /rules", p.post)
	mux.HandleFunc("DELETE /rules", func(w http.ResponseWriter, _ *http.Request) { p.Remove(""); write(w, p.Rules()) })
	mux.HandleFunc("DELETE /rules/{id}", func(w http.ResponseWriter, r *http.Request) {
		p.Remove(r.PathValue("id"))
		write(w, p.Rules())
	})
	mux.HandleFunc("GET /links", func(w http.ResponseWriter, _ *http.Request) { write(w, p.Traffic()) })
	return mux
}

// Traffic counts what went through each link so far.
func (p *Proxy) Traffic() []Traffic {
	out := make([]Traffic, 0, len(p.gates))
	for _, g := range p.gates {
		out = append(out, Traffic{g.Link, g.connections.Load(), g.refused.Load(), g.bytes.Load()})
	}
	return out
}

func (p *Proxy) post(w http.ResponseWriter, r *http.Request) {
	var req Request
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyMax))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if err == nil && req.For != "" {
		var lease time.Duration
		if lease, err = time.ParseDuration(req.For); err == nil {
			req.Until = time.Now().Add(lease)
		}
	}
	if err == nil {
		err = p.Set(req.Rule)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	write(w, p.Rules())
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
