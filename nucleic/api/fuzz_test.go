package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/cluster/web"
	"qianma/nucleic/api"
	"qianma/nucleic/nucleicpb"
)

// Whatever is sent to whatever endpoint: no panic, one of our answers, and in
// it a code and words; a fact that was let in is one the rules can fold.
func FuzzWrites(f *testing.F) {
	d := newDoor(f, 2)
	paths := []string{"/v1/registrations", "/v1/registrations/batch", "/v1/results", "/v1/results/batch", "/v1/tubes", "/v1/tubes/TUBE1/seal", "/v1/boxes", "/v1/receptions", "/v1/corrections", "/v1/sites"}
	media := []string{web.JSON, web.NDJSON, web.Facts}
	seed := func(path, media int, body any) {
		raw, ok := body.([]byte)
		if !ok {
			raw, _ = json.Marshal(body)
		}
		f.Add(uint8(path), uint8(media), raw)
	}
	seed(0, 0, d.registration("TUBE1", 1))
	seed(0, 0, d.registration("TUBE1", 1, "person", nil, "document", m{"kind": "resident", "number": "110101202311012176"}))
	seed(1, 0, m{"rows": []any{d.registration("TUBE1", 1), m{}}})
	seed(1, 1, d.registration("TUBE1", 1))
	seed(1, 2, appendFact(nil, (&nucleicpb.Registered{Tube: []byte("TUBE1"), Person: make([]byte, 16), Pool: 5, Site: []byte("S"), SampledAt: noon.UnixMilli()}).AppendFact(nil)))
	seed(2, 0, result("TUBE1"))
	seed(3, 2, appendFact(nil, (&nucleicpb.Resulted{Tube: []byte("TUBE1"), Lab: []byte("L"), Revision: 1, Outcome: 1, TestedAt: noon.UnixMilli(), ReportedAt: noon.UnixMilli()}).AppendFact(nil)))
	seed(4, 0, m{"tube": "TUBE1", "pool": 10})
	seed(5, 0, m{"count": 1})
	seed(6, 0, m{"box": "B", "tubes": []string{"TUBE1"}})
	seed(7, 0, m{"lab": "L", "box": "B"})
	seed(8, 0, m{"tube": "TUBE1", "person": d.someone(1), "rebind": m{"person": d.someone(2)}, "operator": "o", "reason": "r"})
	seed(9, 0, m{"site": "S"})
	f.Fuzz(func(t *testing.T, path, kind uint8, body []byte) {
		p := machinetest.NewProposer(2, newRules)
		p.Now = func() int64 { return noon.UnixNano() }
		a := api.New(api.Config{Proposer: p, Hasher: d.hasher, Clock: d.clock})
		mux := http.NewServeMux()
		for _, r := range a.Routes() {
			mux.Handle(r.Pattern, plain(t, r.Handler))
		}
		r := httptest.NewRequest("POST", paths[int(path)%len(paths)], bytes.NewReader(body))
		r.Header.Set("Content-Type", media[int(kind)%len(media)])
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if p.Aside(0)+p.Aside(1) != 0 {
			t.Fatal("a fact was let in that the rules cannot fold")
		}
	})
}

// plain is a handler without a server around it: an error must be one of ours.
func plain(t *testing.T, h web.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			if p := coded(err); p == nil || p.Code == "" || p.Message == "" || p.Fix == "" || p.Status() >= 500 {
				t.Fatalf("%v", err)
			}
			return
		}
		if rec := w.(*httptest.ResponseRecorder); !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%s", rec.Body)
		}
	})
}

// ready is a proposer that has committed before it was asked: what is left of
// a request is what the door costs.
type ready struct{ machine.Proposer }

var readyRows = [1000]machine.Row{}

func (ready) Shards() int { return 1 }
func (ready) Propose(_ context.Context, _ int, p machine.Proposal) (machine.Receipt, error) {
	return machine.Receipt{Origin: "unicom/nucleic/0/18c2f0a1b2c3d4e5", First: 1, Last: uint64(len(p.Commands)), Level: machine.Committed, Rows: readyRows[:len(p.Commands)]}, nil
}

// sink is a response that goes nowhere.
type sink struct{ h http.Header }

func (s sink) Header() http.Header         { return s.h }
func (s sink) Write(p []byte) (int, error) { return len(p), nil }
func (s sink) WriteHeader(int)             {}

func benchDoor(b *testing.B) *web.Server {
	for i := range readyRows {
		readyRows[i].Status = machine.Accepted
	}
	h, err := identity.NewHasher(make([]byte, identity.KeySize))
	if err != nil {
		b.Fatal(err)
	}
	return newServer(b, api.New(api.Config{Proposer: ready{}, Hasher: h}))
}

func benchPost(b *testing.B, path, media string, body []byte) {
	s := benchDoor(b)
	b.ReportAllocs()
	for b.Loop() {
		r, _ := http.NewRequest("POST", path, bytes.NewReader(body))
		r.Header["Content-Type"] = []string{media}
		r.Header["Idempotency-Key"] = []string{"0190e2b5-7f53-7a9c-8b1a-5a1f0c6f2d11"}
		s.ServeHTTP(sink{http.Header{}}, r)
	}
}

func benchRow() m {
	return m{"tube": "52010012345678", "pool": "10", "site": "GY-0001", "document": m{"kind": "resident", "number": "110101202311012176"},
		"sampled_at": noon.Add(-time.Hour).Format(time.RFC3339), "channel": "id_card", "operator": "op-17", "device": "pad-3"}
}

func BenchmarkRegister(b *testing.B) {
	body, err := json.Marshal(benchRow())
	if err != nil {
		b.Fatal(err)
	}
	benchPost(b, "/v1/registrations", web.JSON, body)
}

// BenchmarkRegisterBatch is of 500 rows; divide by 500 for one.
func BenchmarkRegisterBatch(b *testing.B) {
	var rows []any
	for range 500 {
		rows = append(rows, benchRow())
	}
	body, err := json.Marshal(m{"rows": rows})
	if err != nil {
		b.Fatal(err)
	}
	benchPost(b, "/v1/registrations/batch", web.JSON, body)
}

func BenchmarkRegisterFacts(b *testing.B) {
	var body []byte
	for range 500 {
		body = appendFact(body, (&nucleicpb.Registered{Tube: []byte("52010012345678"), Person: make([]byte, 16), Pool: 10, Site: []byte("GY-0001"), SampledAt: noon.UnixMilli(), Channel: 2}).AppendFact(nil))
	}
	benchPost(b, "/v1/registrations/batch", web.Facts, body)
}
