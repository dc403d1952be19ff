package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

type row struct {
	Tube     string    `json:"tube"`
	Pool     int       `json:"pool"`
	At       time.Time `json:"at"`
	Document *struct {
		Kind string `json:"kind"`
	} `json:"document"`
}

func post(body string, headers ...string) *http.Request {
	r := httptest.NewRequest("POST", "/v1/rows", strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestReadJSON(t *testing.T) {
	var v row
	if err := ReadJSON(post(`{"tube":"52","pool":10,"at":"2022-01-05T07:30:00+08:00","document":{"kind":"passport"}}`+"\n "), &v); err != nil {
		t.Fatal(err)
	}
	if v.Tube != "52" || v.Pool != 10 || v.Document.Kind != "passport" || v.At.UTC().Hour() != 23 {
		t.Fatalf("%+v", v)
	}
	for _, ct := range []string{"application/json; charset=utf-8", "application/x-www-form-urlencoded"} {
		if err := ReadJSON(post(`{}`, "Content-Type", ct), &v); err != nil {
			t.Errorf("%s: %v", ct, err)
		}
	}
	for _, c := range []struct {
		body string
		code problem.Code
		word string
	}{
		{``, problem.Malformed, "no JSON value"},
		{" \n", problem.Malformed, "no JSON value"},
		{`null`, problem.Malformed, "no JSON value"},
		{`[]`, problem.Malformed, "type"},
		{`"x"`, problem.Malformed, "type"},
		{`{"tube":"52","nope":1}`, problem.UnknownField, "/nope"},
		{`{"Tube":"52"}`, problem.UnknownField, "/Tube"},
		{`{"document":{"name":"x"}}`, problem.UnknownField, "/document/name"},
		{`{"张三":1}`, problem.UnknownField, "field that this endpoint does not have ("},
		{`{"tube":52}`, problem.Malformed, "/tube"},
		{`{"pool":"10"}`, problem.Malformed, "/pool"},
		{`{"pool":99999999999999999999}`, problem.Malformed, "/pool"},
		{`{"pool":1.5}`, problem.Malformed, "/pool"},
		{`{"at":"yesterday"}`, problem.Malformed, "/at"},
		{`{"tube":"1","tube":"2"}`, problem.Malformed, "twice at /tube"},
		{`{"tube":"1"`, problem.Malformed, "byte 11"},
		{`{"tube":"1"}}`, problem.Malformed, "byte 12"},
		{`{"tube":"1"} {}`, problem.Malformed, "byte 13"},
		{"{\"tube\":\"\xff\"}", problem.Malformed, "UTF-8"},
		{`{"tube":"` + strings.Repeat("x", MaxJSON) + `"}`, problem.TooLarge, "bound"},
	} {
		err := ReadJSON(post(c.body), new(row))
		p := problem.From(err)
		if err == nil || p.Code != c.code || !strings.Contains(p.Message+" ("+p.Fix, c.word) || p.Fix == "" {
			t.Errorf("%.40s: %v; want %s about %q", c.body, err, c.code, c.word)
		}
		if strings.Contains(fmt.Sprint(err), "yesterday") || strings.Contains(fmt.Sprint(err), "张三") {
			t.Errorf("the error tells what was sent: %v", err)
		}
	}
	if err := ReadJSON(post(`{}`, "Content-Type", "text/xml"), &v); !problem.Is(err, problem.Malformed) {
		t.Errorf("text/xml: %v", err)
	}
}

// A body may be asked for again, with another bound.
func TestBodyIsReadOnce(t *testing.T) {
	s := newServer(t, Config{})
	s.Handle("POST /v1/rows", func(w http.ResponseWriter, r *http.Request) error {
		o, err := WriteOptions(r)
		if err != nil {
			return err
		}
		var v row
		if err := ReadJSON(r, &v); err != nil {
			return err
		}
		if !o.HasKey || v.Tube != "52" {
			return fmt.Errorf("%+v %+v", o, v)
		}
		if rest, err := io.ReadAll(r.Body); err != nil || len(rest) != 0 {
			return fmt.Errorf("%d more bytes, %v", len(rest), err)
		}
		return nil
	})
	for range 3 { // buffers are used again
		if w := do(s, "POST", "/v1/rows", `{"tube":"52"}`, "Idempotency-Key", "k"); w.Code != 200 {
			t.Fatal(w.Body)
		}
	}
	if s.held.Load() != 0 {
		t.Fatalf("%d bytes are held by nobody", s.held.Load())
	}
}

// cutReader breaks off in the middle.
type cutReader struct{ io.Reader }

func (c cutReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestBodyBounds(t *testing.T) {
	r := httptest.NewRequest("POST", "/v1/rows", cutReader{strings.NewReader(`{"tube":"52"}`)})
	if err := ReadJSON(r, new(row)); !problem.Is(err, problem.Malformed) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("truncated: %v", err)
	}
	// Over the bound, declared or not: refused without being kept.
	for _, declared := range []int64{MaxBatch + 1, -1} {
		n := &counter{Reader: io.LimitReader(zeros{}, 1<<30)}
		r := httptest.NewRequest("POST", "/v1/rows", n)
		r.ContentLength = declared
		if _, err := Body(r); !problem.Is(err, problem.TooLarge) {
			t.Fatalf("declared %d: %v", declared, err)
		}
		if n.n > 2*MaxBatch+firstStep {
			t.Fatalf("declared %d: %d bytes were read", declared, n.n)
		}
	}
	r = httptest.NewRequest("POST", "/v1/rows", bytes.NewReader(make([]byte, MaxBatch)))
	if raw, err := Body(r); err != nil || len(raw) != MaxBatch {
		t.Fatalf("at the bound: %d, %v", len(raw), err)
	}
	if _, err := bodyOf(r).load(MaxJSON); !problem.Is(err, problem.TooLarge) {
		t.Fatalf("asked for less: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counter struct {
	io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// All bodies together stay within the server's budget, and it comes back.
func TestBodiesTogetherAreBounded(t *testing.T) {
	s := newServer(t, Config{BodyBytes: 1000})
	h := newHeld()
	s.HandleClass(Vital, "POST /v1/rows", func(w http.ResponseWriter, r *http.Request) error {
		if _, err := Body(r); err != nil {
			return err
		}
		return h.handle(w, r)
	})
	body := strings.Repeat("x", 600)
	first := make(chan int)
	go func() { first <- do(s, "POST", "/v1/rows", body).Code }()
	<-h.began
	p := wantProblem(t, do(s, "POST", "/v1/rows", body), 429, problem.Overloaded)
	if p.RetryAfterMS == 0 {
		t.Fatalf("%+v", p)
	}
	close(h.free)
	if got := <-first; got != 200 {
		t.Fatal(got)
	}
	if w := do(s, "POST", "/v1/rows", body); w.Code != 200 || s.held.Load() != 0 {
		t.Fatalf("%d, %d bytes held", w.Code, s.held.Load())
	}
}

func rows(t testing.TB, r *http.Request, maxRows int) ([]string, error) {
	t.Helper()
	var got []string
	err := EachRow(r, maxRows, func(i int, raw []byte) error {
		if i != len(got) {
			t.Fatalf("row %d after %d", i, len(got))
		}
		got = append(got, string(raw))
		return nil
	})
	return got, err
}

func TestEachRow(t *testing.T) {
	for _, c := range []struct {
		mime, body string
		want       []string
		code       problem.Code
	}{
		{JSON, `{"rows":[{"a":1},{"b":[2,"]}"]}]}`, []string{`{"a":1}`, `{"b":[2,"]}"]}`}, ""},
		{JSON, " {\n\"rows\" : [ 1 , null ]\n} \n", []string{`1`, `null`}, ""},
		{JSON, `{"rows":[1,2,3,4]}`, nil, problem.TooLarge},
		{JSON, `{"rows":[]}`, nil, problem.Malformed},
		{JSON, `{"rows":[1],"x":2}`, nil, problem.UnknownField},
		{JSON, `{"x":2,"rows":[1]}`, nil, problem.UnknownField},
		{JSON, `{"rows":[1],"rows":[2]}`, nil, problem.Malformed},
		{JSON, `{"rows":{"a":1}}`, nil, problem.Malformed},
		{JSON, `[1]`, nil, problem.Malformed},
		{JSON, `{}`, nil, problem.Malformed},
		{JSON, ``, nil, problem.Malformed},
		{JSON, `{"rows":[1,]}`, nil, problem.Malformed},
		{JSON, `{"rows":[1 2]}`, nil, problem.Malformed},
		{JSON, `{"rows":[1]`, nil, problem.Malformed},
		{JSON, `{"rows":[{"a":1}`, nil, problem.Malformed},
		{JSON, `{"rows":[1]} x`, nil, problem.Malformed},
		{JSON, `{"rows":[1]}{"rows":[1]}`, nil, problem.Malformed},
		{JSON, `{"rows":[{"a":1,"a":2}]}`, nil, problem.Malformed},
		{JSON, `{"rows":["` + strings.Repeat("x", MaxRow) + `"]}`, nil, problem.TooLarge},
		{NDJSON, "{\"a\":1}\r\n\n  {broken\n", []string{`{"a":1}`, `{broken`}, ""},
		{NDJSON, `1`, []string{`1`}, ""},
		{NDJSON, "1\n2\n3\n4", nil, problem.TooLarge},
		{NDJSON, "\n \n", nil, problem.Malformed},
		{NDJSON, strings.Repeat("x", MaxRow+1), nil, problem.TooLarge},
		{"text/csv", "1", nil, problem.Malformed},
	} {
		got, err := rows(t, post(c.body, "Content-Type", c.mime), 3)
		if c.code == "" {
			if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%s %.40q: %q, %v", c.mime, c.body, got, err)
			}
		} else if !problem.Is(err, c.code) {
			t.Errorf("%s %.40q: %v; want %s", c.mime, c.body, err, c.code)
		}
	}
	stop := errors.New("enough")
	for _, mime := range []string{JSON, NDJSON} {
		n := 0
		err := EachRow(post(map[string]string{JSON: `{"rows":[1,2]}`, NDJSON: "1\n2"}[mime], "Content-Type", mime), 9, func(int, []byte) error { n++; return stop })
		if !errors.Is(err, stop) || n != 1 {
			t.Errorf("%s: %d rows, %v", mime, n, err)
		}
	}
}

func TestEachFact(t *testing.T) {
	body := []byte{}
	for _, f := range []string{"one", "", "three"} {
		body = append(binary.AppendUvarint(body, uint64(len(f))), f...)
	}
	facts := func(body []byte, mime string, maxRows int) (got []string, err error) {
		err = EachFact(post(string(body), "Content-Type", mime), maxRows, func(_ int, f []byte) error {
			got = append(got, string(f))
			return nil
		})
		return got, err
	}
	if got, err := facts(body, Facts, 3); err != nil || fmt.Sprintf("%q", got) != `["one" "" "three"]` {
		t.Fatalf("%q %v", got, err)
	}
	for name, c := range map[string]struct {
		body []byte
		mime string
		max  int
		code problem.Code
	}{
		"too many":  {body, Facts, 2, problem.TooLarge},
		"cut":       {body[:len(body)-1], Facts, 9, problem.Malformed},
		"overflow":  {bytes.Repeat([]byte{0xff}, 11), Facts, 9, problem.Malformed},
		"empty":     {nil, Facts, 9, problem.Malformed},
		"wrong":     {body, JSON, 9, problem.Malformed},
		"large row": {append(binary.AppendUvarint(nil, MaxRow+1), make([]byte, MaxRow+1)...), Facts, 9, problem.TooLarge},
	} {
		if _, err := facts(c.body, c.mime, c.max); !problem.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriteOptions(t *testing.T) {
	options := func(target, body string, keys ...string) (Options, error) {
		r := httptest.NewRequest("POST", target, strings.NewReader(body))
		for _, k := range keys {
			r.Header.Add("Idempotency-Key", k)
		}
		return WriteOptions(r)
	}
	must := func(target, body string, keys ...string) Options {
		t.Helper()
		o, err := options(target, body, keys...)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		return o
	}
	if o := must("/v1/x", "body"); o.HasKey || o.Ack != machine.Committed || o.Wait != 0 {
		t.Errorf("%+v", o)
	}
	if o := must("/v1/x?ack=replicated", ""); o.Ack != machine.Replicated || o.Wait != DefaultWait {
		t.Errorf("%+v", o)
	}
	if o := must("/v1/x?ack=replicated&wait=250ms", ""); o.Wait != 250*time.Millisecond {
		t.Errorf("%+v", o)
	}
	if o := must("/v1/x?ack=committed&wait=30s&other=1", ""); o.Ack != machine.Committed {
		t.Errorf("%+v", o)
	}
	for _, q := range []string{"ack=", "wait="} {
		must("/v1/x?"+q, "")
	}
	for _, q := range []string{"ack=both", "ack=replicated&wait=31s", "wait=-1s", "wait=5", "ack=committed&ack=replicated", "wait=1s&wait=2s"} {
		if _, err := options("/v1/x?"+q, ""); problem.From(err) == nil || problem.From(err).Side() != problem.Client {
			t.Errorf("%s: %v", q, err)
		}
	}
	a := must("/v1/x?wait=1s", "body", "key")
	if want := sha256.Sum256([]byte("key")); a.Key != [16]byte(want[:16]) || !a.HasKey {
		t.Errorf("%+v", a)
	}
	if want := sha256.Sum256([]byte("POST\x00/v1/x\x00body")); a.Body != [16]byte(want[:16]) {
		t.Errorf("%+v", a)
	}
	if b := must("/v1/x?wait=2s&ack=replicated", "body", "key"); b.Key != a.Key || b.Body != a.Body {
		t.Error("a repeat that waits longer is taken for another request")
	}
	for _, b := range []Options{must("/v1/x", "bodY", "key"), must("/v1/y", "body", "key")} {
		if b.Body == a.Body {
			t.Error("another request has the same digest")
		}
	}
	for _, keys := range [][]string{{""}, {"a", "b"}, {"a b"}, {"é"}, {strings.Repeat("k", MaxKey+1)}} {
		if _, err := options("/v1/x", "", keys...); !problem.Is(err, problem.Malformed) {
			t.Errorf("%q: %v", keys, err)
		}
	}
	must("/v1/x", "", strings.Repeat("k", MaxKey))
}

func FuzzReadJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"tube":"1","pool":2,"at":"2022-01-05T07:30:00Z","document":{"kind":"x"}}`, `null`, `{"x":`, `[[[[`, "\xff", `{"pool":1e5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v row
		err := ReadJSON(httptest.NewRequest("POST", "/", bytes.NewReader(in)), &v)
		if err != nil {
			if p := problem.From(err); p.Side() != problem.Client || p.Fix == "" {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		// What the strict reader takes, the standard one takes to mean the same.
		var std row
		if err := json.Unmarshal(in, &std); err != nil || std.Tube != v.Tube || std.Pool != v.Pool || !std.At.Equal(v.At) {
			t.Fatalf("%q: %+v, the standard library says %+v, %v", in, v, std, err)
		}
	})
}

func FuzzEachRow(f *testing.F) {
	for _, s := range []string{`{"rows":[1,{"a":[]},"x"]}`, "1\n2\n", `{"rows":[`, `{"rows":[1]}}`, ""} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, lines bool) {
		mime := JSON
		if lines {
			mime = NDJSON
		}
		r := httptest.NewRequest("POST", "/", bytes.NewReader(in))
		r.Header.Set("Content-Type", mime)
		got, err := rows(t, r, 10)
		if err != nil {
			if problem.From(err).Side() != problem.Client {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if len(got) == 0 || len(got) > 10 {
			t.Fatalf("%q: %d rows", in, len(got))
		}
		if lines {
			return
		}
		var std struct{ Rows []json.RawMessage }
		if err := json.Unmarshal(in, &std); err != nil || len(std.Rows) != len(got) {
			t.Fatalf("%q: %d rows, the standard library says %d, %v", in, len(got), len(std.Rows), err)
		}
		for i := range got {
			if got[i] != string(std.Rows[i]) {
				t.Fatalf("%q: row %d is %q, the standard library says %q", in, i, got[i], std.Rows[i])
			}
		}
	})
}

func FuzzEachFact(f *testing.F) {
	f.Add([]byte("\x03one\x00"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(in))
		r.Header.Set("Content-Type", Facts)
		n := 0
		err := EachFact(r, 10, func(_ int, fact []byte) error { n += 1 + len(fact); return nil })
		if err == nil && (n == 0 || n > len(in)) {
			t.Fatalf("%q: %d bytes of facts", in, n)
		}
	})
}

func FuzzWriteOptions(f *testing.F) {
	f.Add("ack=replicated&wait=5s", "key", []byte("body"))
	f.Add("ack=%zz;wait=1h", "\x00", []byte(nil))
	f.Fuzz(func(t *testing.T, query, key string, body []byte) {
		r := httptest.NewRequest("POST", "/v1/x", bytes.NewReader(body))
		r.URL.RawQuery = query
		r.Header["Idempotency-Key"] = []string{key}
		o, err := WriteOptions(r)
		if err != nil {
			if problem.From(err).Side() != problem.Client {
				t.Fatal(err)
			}
			return
		}
		if !o.HasKey || o.Wait < 0 || o.Wait > MaxWait || (o.Ack != machine.Committed && o.Ack != machine.Replicated) {
			t.Fatalf("%q %q: %+v", query, key, o)
		}
	})
}

func BenchmarkServe(b *testing.B) {
	s := newServer(b, Config{})
	answer := bytes.Repeat([]byte{'x'}, 800)
	s.HandleClass(Vital, "GET /v1/code", func(w http.ResponseWriter, r *http.Request) error {
		WriteRaw(w, 200, answer)
		return nil
	})
	plain := http.NewServeMux()
	plain.HandleFunc("GET /v1/code", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})
	for name, h := range map[string]http.Handler{"web": s, "plain": plain} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v1/code?person=p_aebagbaaaaaaaaaaaaaaaaaaaa", nil)
			r.Body = http.NoBody
			w := &nullWriter{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}

type nullWriter struct{ h http.Header }

func (w *nullWriter) Header() http.Header         { return w.h }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *nullWriter) WriteHeader(int)             {}

func BenchmarkBatch(b *testing.B) {
	const one = `{"tube":"52010012345678","pool":10,"at":"2022-01-05T07:30:00+08:00","document":{"kind":"resident"}}`
	body := `{"rows":[` + strings.Repeat(one+",", 999) + one + `]}`
	s := newServer(b, Config{})
	s.Handle("POST /v1/rows", func(w http.ResponseWriter, r *http.Request) error {
		if _, err := WriteOptions(r); err != nil {
			return err
		}
		var v row
		return EachRow(r, 1000, func(_ int, raw []byte) error { return Decode(raw, &v) })
	})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if w := do(s, "POST", "/v1/rows", body, "Idempotency-Key", "k"); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
}
