package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"qianma/cluster/clock"
	"qianma/cluster/identity"
	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/api"
	"qianma/nucleic/rules"
)

// Every answer that a test here gets is held against openapi.yaml.

// noon is when the doors of these tests stand, until a test moves the clock.
var noon = time.Date(2022, 1, 19, 4, 0, 0, 0, time.UTC)

// calm is the clock of the server below the doors: it stands, so that a busy
// machine is not taken for a process that has more to do than it can, which
// would turn requests away.
var calm = clock.NewManual(noon)

func stamp(d time.Duration) string { return noon.Add(d).Format(time.RFC3339) }

type door struct {
	t        testing.TB
	proposer *machinetest.Proposer
	clock    *clock.Manual
	server   *web.Server
	api      *api.API
	router   routers.Router
	hasher   *identity.Hasher
}

func newRules(int) machine.Machine { return rules.New(1 << 20) }

func newDoor(t testing.TB, shards int) *door {
	t.Helper()
	d := &door{t: t, proposer: machinetest.NewProposer(shards, newRules), clock: clock.NewManual(noon)}
	d.proposer.Now = func() int64 { return d.clock.Now().UnixNano() }
	d.hasher = newHasher(t)
	d.api = api.New(api.Config{Proposer: d.proposer, Hasher: d.hasher, Clock: d.clock, Leader: func(int) string { return leaderAddr }})
	d.server = newServer(t, d.api)
	d.router = contract(t)
	return d
}

// leaderAddr is where every test's shards are led.
const leaderAddr = "http://203.0.113.7:80"

func newHasher(t testing.TB) *identity.Hasher {
	t.Helper()
	h, err := identity.NewHasher(bytes.Repeat([]byte{7}, identity.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newServer(t testing.TB, a *api.API) *web.Server {
	t.Helper()
	s, err := web.New(web.Config{Addr: "127.0.0.1:0", Name: "test-nucleic-1", Clock: calm})
	if err != nil {
		t.Fatal(err)
	}
	a.Register(s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func loadContract(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return doc
}

func contract(t testing.TB) routers.Router {
	t.Helper()
	for _, media := range []string{web.NDJSON, web.Facts, "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(media, openapi3filter.FileBodyDecoder)
	}
	r, err := legacy.NewRouter(loadContract(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// answer is what came back.
type answer struct {
	status int
	body   []byte
	json   map[string]any
	header http.Header
}

func (a *answer) str(path ...string) string {
	v := any(a.json)
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return fmt.Sprint(v)
}

// do sends a request and holds the answer against the contract. The body is a
// string sent as it is, or anything else as JSON.
func (d *door) do(method, path string, body any, headers ...string) *answer {
	d.t.Helper()
	var raw []byte
	switch b := body.(type) {
	case nil:
	case string:
		raw = []byte(b)
	case []byte:
		raw = b
	default:
		var err error
		if raw, err = json.Marshal(b); err != nil {
			d.t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(raw))
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.server.ServeHTTP(w, r)
	a := &answer{status: w.Code, body: w.Body.Bytes(), header: w.Header()}
	_ = json.Unmarshal(a.body, &a.json)
	d.validate(r, raw, a)
	return a
}

func (d *door) validate(r *http.Request, raw []byte, a *answer) {
	d.t.Helper()
	r.Body = io.NopCloser(bytes.NewReader(raw))
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		if a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed {
			d.t.Fatalf("%s %s is not in the contract: %v", r.Method, r.URL, err)
		}
		return
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	if a.status == http.StatusOK {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil && !d.partial(a) {
			d.t.Fatalf("%s %s was taken, but the contract refuses it: %v", r.Method, r.URL, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: a.status, Header: a.header, Options: in.Options}
	out.SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(context.Background(), out); err != nil {
		d.t.Fatalf("%s %s answered %d %s\nwhich the contract does not allow: %v", r.Method, r.URL, a.status, a.body, err)
	}
}

// partial reports whether a batch has refused some of its rows: then the
// contract may refuse them too.
func (d *door) partial(a *answer) bool {
	return a.json["rejected"] != nil && a.json["rejected"].(float64) > 0
}

func (d *door) ok(method, path string, body any, headers ...string) *answer {
	d.t.Helper()
	a := d.do(method, path, body, headers...)
	if a.status != http.StatusOK {
		d.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	return a
}

func (d *door) refused(status int, code, method, path string, body any, headers ...string) *answer {
	d.t.Helper()
	a := d.do(method, path, body, headers...)
	if a.status != status || a.str("code") != code {
		d.t.Fatalf("%s %s: %d %s, want %d %s", method, path, a.status, a.body, status, code)
	}
	return a
}

type m = map[string]any

// someone is the pseudonym of an invented passport.
func (d *door) someone(n int) string {
	doc, _, err := identity.Document{Kind: identity.Passport, Number: fmt.Sprintf("P%07d", n), Country: "GBR"}.Normalize()
	if err != nil {
		d.t.Fatal(err)
	}
	return d.hasher.Person(doc).String()
}

func (d *door) registration(tube string, n int, change ...any) m {
	return with(m{"tube": tube, "pool": "10", "site": "GY-1", "person": d.someone(n), "sampled_at": stamp(-5 * time.Hour), "channel": "code", "operator": "op-1", "device": "pad-1"}, change...)
}

func result(tube string, change ...any) m {
	return with(m{"tube": tube, "lab": "lab-1", "revision": 1, "outcome": "negative", "received_at": stamp(-3 * time.Hour), "tested_at": stamp(-2 * time.Hour), "reported_at": stamp(-time.Hour)}, change...)
}

// with sets fields; nil takes one out.
func with(row m, change ...any) m {
	for i := 0; i < len(change); i += 2 {
		row[change[i].(string)] = change[i+1]
		if change[i+1] == nil {
			delete(row, change[i].(string))
		}
	}
	return row
}

func coded(err error) *problem.Problem {
	var p *problem.Problem
	if !errors.As(err, &p) {
		return nil
	}
	return p
}
