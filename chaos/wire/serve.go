package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// bodyMax bounds a request and an answer; askMax the wait for one.
const (
	bodyMax = 64 << 10
	askMax  = 20 * time.Second
)

// request is a rule as it is posted; For is its lease.
type request struct {
	Rule
	For string `json:"for,omitempty"`
}

// Handler is the control API of our own line:
//
//	GET /readyz            packets are carried
//	GET /rules             rules in force
//	POST /rules            set one (a Rule, and for: its lease)
//	DELETE /rules          remove all
//	DELETE /rules/{id}     remove one
//	GET /harm              what became of the packets of each carrier
func (c *Carrier) Handler() http.Handler {
	mux := http.NewServeMux()
	rules := func(w http.ResponseWriter) { write(w, c.Rules()) }
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready\n")) })
	mux.HandleFunc("GET /rules", func(w http.ResponseWriter, _ *http.Request) { rules(w) })
	mux.HandleFunc("POST /rules", c.post)
	mux.HandleFunc("DELETE /rules", func(w http.ResponseWriter, _ *http.Request) { c.Remove(""); rules(w) })
	mux.HandleFunc("DELETE /rules/{id}", func(w http.ResponseWriter, r *http.Request) { c.Remove(r.PathValue("id")); rules(w) })
	mux.HandleFunc("GET /harm", func(w http.ResponseWriter, _ *http.Request) { write(w, c.Harm()) })
	return mux
}

func (c *Carrier) post(w http.ResponseWriter, r *http.Request) {
	var req request
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
		err = c.Set(req.Rule)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	write(w, c.Rules())
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// own is our own line, asked over its control.
type own struct{ *Config }

func (o own) Set(ctx context.Context, r Rule, lease time.Duration) error {
	return o.call(ctx, http.MethodPost, "/rules", request{r, lease.String()}, nil)
}

func (o own) Remove(ctx context.Context, r Rule) error {
	return o.call(ctx, http.MethodDelete, "/rules/"+url.PathEscape(r.ID), nil, nil)
}

func (o own) Rules(ctx context.Context) (out []Rule, err error) {
	return out, o.call(ctx, http.MethodGet, "/rules", nil, &out)
}

// Harm asks our own line what became of packets.
func (o own) Harm(ctx context.Context) (out []Harm, err error) {
	return out, o.call(ctx, http.MethodGet, "/harm", nil, &out)
}

func (o own) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	raw, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+o.HTTP+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(res.Body, bodyMax))
	switch {
	case err != nil:
		return err
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the line: %s: %s", res.Status, bytes.TrimSpace(raw))
	case out == nil:
		return nil
	}
	return json.Unmarshal(raw, out)
}
