package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/leaktest"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// newServer is one that does not look whether the machine is busy: that it is
// must not turn away what a test asks.
func newServer(tb testing.TB, cfg Config) *Server {
	tb.Helper()
	cfg.Addr = "127.0.0.1:0"
	if cfg.Name == "" {
		cfg.Name = "unicom-display-1"
	}
	s, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s.load.next.Store(math.MaxInt64)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

// serve runs the server on its port and returns a client of it.
func serve(tb testing.TB, s *Server) (url string, c *http.Client) {
	tb.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	tr := &http.Transport{}
	tb.Cleanup(func() {
		tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.Close(ctx)
		if err := <-done; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	return "http://" + s.Addr().String(), &http.Client{Transport: tr, Timeout: 3 * time.Minute}
}

// do sends a request straight to the handlers.
func do(s *Server, method, target string, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r.Body = http.NoBody
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// told is a problem as a client reads it.
type told struct {
	Code, Message, Fix, Side string
	RetryAfterMS             int64  `json:"retry_after_ms"`
	RequestID                string `json:"request_id"`
	Receipt                  *struct {
		Level, Origin string
		First, Last   uint64
		Replayed      bool
	}
}

func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, code problem.Code) told {
	t.Helper()
	var p told
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("status %d: %q is not a problem: %v", w.Code, w.Body, err)
	}
	if w.Code != status || p.Code != string(code) || p.Message == "" || p.Fix == "" || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") {
		t.Fatalf("status %d, %+v; want %d %s with words and an id", w.Code, p, status, code)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Fatalf("content type %q", got)
	}
	return p
}

func TestAnswersAndProblems(t *testing.T) {
	s := newServer(t, Config{})
	s.Handle("GET /v1/ok", func(w http.ResponseWriter, r *http.Request) error {
		return WriteJSON(w, http.StatusOK, map[string]string{"a": "b"})
	})
	s.Handle("GET /v1/full/{tube}", func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("op: %w", problem.New("tube_full", `the tube holds 10 "people"`, "open another").After(1200*time.Millisecond))
	})
	s.Handle("GET /v1/late", func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("op: %w", context.DeadlineExceeded)
	})
	s.Handle("GET /v1/fault", func(http.ResponseWriter, *http.Request) error { return errors.New("secret") })

	w := do(s, "GET", "/v1/ok", "")
	if w.Code != 200 || w.Body.String() != `{"a":"b"}` || w.Header().Get("X-Served-By") != "unicom-display-1" || w.Header().Get("X-Request-Id") == "" {
		t.Fatalf("%d %q %v", w.Code, w.Body, w.Header())
	}
	p := wantProblem(t, do(s, "GET", "/v1/full/52", ""), 422, "tube_full")
	if p.RetryAfterMS != 1200 || p.Side != "client" || p.Message != `the tube holds 10 "people"` {
		t.Fatalf("%+v", p)
	}
	if got := do(s, "GET", "/v1/full/52", "").Header().Get("Retry-After"); got != "2" {
		t.Fatalf("Retry-After %q", got)
	}
	w = do(s, "GET", "/v1/fault", "")
	wantProblem(t, w, 500, problem.Internal)
	if strings.Contains(w.Body.String(), "secret") {
		t.Fatal("a cause crossed the wall")
	}
	wantProblem(t, do(s, "GET", "/v1/late", ""), 504, problem.Unknown)
	wantProblem(t, do(s, "GET", "/nothing", ""), 404, problem.NotFound)
	w = do(s, "POST", "/v1/ok", "{}")
	p = wantProblem(t, w, 405, MethodNotAllowed)
	if w.Header().Get("Allow") == "" || !strings.Contains(p.Fix, "GET") {
		t.Fatalf("%v %+v", w.Header(), p)
	}
	if w = do(s, "GET", "/v1//ok", ""); w.Code/100 != 3 || w.Header().Get("Location") != "/v1/ok" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
}

func TestRequestIDs(t *testing.T) {
	s := newServer(t, Config{})
	seen := map[string]bool{}
	for range 100 {
		id := do(s, "GET", "/livez", "").Header().Get("X-Request-Id")
		if seen[id] || len(id) < 10 {
			t.Fatalf("id %q again, or short", id)
		}
		seen[id] = true
	}
	if got := do(s, "GET", "/livez", "", "X-Request-Id", "phone-17").Header().Get("X-Request-Id"); got != "phone-17" {
		t.Fatalf("the caller's id became %q", got)
	}
	for _, bad := range []string{"", "a b", "a\nb", "é", strings.Repeat("x", maxID+1)} {
		if got := do(s, "GET", "/livez", "", "X-Request-Id", bad).Header().Get("X-Request-Id"); got == bad {
			t.Fatalf("id %q was taken over", bad)
		}
	}
}

func TestPanicCostsOneRequest(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	s.Handle("GET /v1/panic", func(http.ResponseWriter, *http.Request) error { panic("110101202311012176") })
	half := func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("late")
	}
	s.Handle("GET /v1/half", half)
	s.Handle("GET /half", half)
	wantProblem(t, do(s, "GET", "/v1/panic", ""), 500, problem.Internal)
	if !strings.Contains(log.String(), "stack=") || strings.Contains(log.String(), "1101012") {
		t.Fatalf("log: %s", log.String())
	}
	if n, _ := s.gates[Normal].full(); n != 0 {
		t.Fatalf("a panic keeps %d places", n)
	}
	// An answer that had begun is cut, so that the reader sees it is not whole; of
	// one that leaves whole nothing has left.
	url, c := serve(t, s)
	if res, err := c.Get(url + "/v1/half"); err == nil {
		t.Fatalf("half an answer left: %s", res.Status)
	}
	res, err := c.Get(url + "/half")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Fatal("half an answer passed for a whole one")
	}
	res.Body.Close()
}

// Logs name patterns, never what people are named by.
func TestAccessLog(t *testing.T) {
	var log bytes.Buffer
	logger := func(l slog.Level) *slog.Logger {
		return slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: l}))
	}
	s := newServer(t, Config{Logger: logger(slog.LevelDebug)})
	s.Handle("POST /v1/persons/{person}", func(w http.ResponseWriter, r *http.Request) error {
		_, err := Body(r)
		return err
	})
	do(s, "POST", "/v1/persons/p_secret?person=p_secret", `"p_secret"`)
	if got := log.String(); !strings.Contains(got, `pattern="POST /v1/persons/{person}"`) || strings.Contains(got, "secret") {
		t.Fatal(got)
	}
	log.Reset()
	s = newServer(t, Config{Logger: logger(slog.LevelInfo)})
	s.Handle("GET /v1/x", func(w http.ResponseWriter, r *http.Request) error { return nil })
	do(s, "GET", "/v1/x", "")
	if log.Len() != 0 {
		t.Fatalf("logged at info: %s", log.String())
	}
}

func TestHealth(t *testing.T) {
	at := clock.NewManual(time.Unix(1e9, 0))
	s := newServer(t, Config{Clock: at})
	if w := do(s, "GET", "/livez", ""); w.Code != 200 {
		t.Fatal(w.Code)
	}
	if w := do(s, "GET", "/readyz", ""); w.Code != 200 {
		t.Fatal(w.Code)
	}
	var disk error
	looks := 0
	s.Check("raft", func(context.Context) error { return nil })
	s.Check("disk", func(context.Context) error { looks++; return disk })
	w := do(s, "GET", "/readyz?verbose", "")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "[+] raft ok") || !strings.Contains(w.Body.String(), "[+] disk ok") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	disk = errors.New("no room\nleft")
	do(s, "GET", "/readyz", "")
	if looks != 1 {
		t.Fatalf("a crowd of probes cost %d looks", looks)
	}
	at.Advance(checkFor)
	for _, path := range []string{"/readyz", "/readyz?verbose"} {
		w = do(s, "GET", path, "")
		if w.Code != 503 || !strings.Contains(w.Body.String(), "[-] disk: no room; left\n") {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if got := strings.Contains(w.Body.String(), "raft"); got != strings.Contains(path, "verbose") {
			t.Fatalf("%s: %s", path, w.Body)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := newServer(t, Config{Version: "v1"})
	s.Handle("GET /v1/x", func(w http.ResponseWriter, r *http.Request) error { return nil })
	s.Handle("GET /v1/y/{id}", func(http.ResponseWriter, *http.Request) error { return problem.New(problem.NotFound, "m", "f") })
	do(s, "GET", "/v1/x", "")
	do(s, "GET", "/v1/x", "")
	do(s, "GET", "/v1/y/secret", "")
	do(s, "GET", "/secret", "")
	got := do(s, "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`qianma_http_requests_total{pattern="GET /v1/x",status="200"} 2`,
		`qianma_http_requests_total{pattern="GET /v1/y/{id}",status="404"} 1`,
		`qianma_http_seconds_count{pattern="GET /v1/x"} 2`,
		`qianma_http_unmatched_total 1`,
		`qianma_http_in_flight{class="vital"} 0`,
		`qianma_build_info{`, `name="unicom-display-1"`, `version="v1"`, `go_goroutines`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(got, "secret") {
		t.Error("a path is in the metrics")
	}
}

func TestPprofIsForTheMachineItself(t *testing.T) {
	s := newServer(t, Config{})
	ask := func(from string) int {
		r := httptest.NewRequest("GET", "/debug/pprof/cmdline", nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	if got := ask("127.0.0.1:99"); got != 200 {
		t.Errorf("loopback: %d", got)
	}
	for _, from := range []string{"192.0.2.1:99", "[2001:db8::1]:99", "nonsense"} {
		if got := ask(from); got != 404 {
			t.Errorf("%s: %d", from, got)
		}
	}
	s.Handle("GET /", func(http.ResponseWriter, *http.Request) error { return nil }) // does not clash
}

// --- admission

// held is a handler that stays until it is let go.
type held struct {
	began chan struct{}
	free  chan struct{}
}

func newHeld() *held { return &held{make(chan struct{}, 64), make(chan struct{})} }

func (h *held) handle(http.ResponseWriter, *http.Request) error {
	h.began <- struct{}{}
	<-h.free
	return nil
}

func TestFullClassIsShedAtOnce(t *testing.T) {
	at := clock.NewManual(time.Unix(1e9, 0))
	s := newServer(t, Config{Clock: at, Limits: map[Class]Limit{Optional: {Concurrent: 1, Queue: 1, Wait: time.Second}}})
	h := newHeld()
	s.HandleClass(Optional, "GET /v1/history", h.handle)
	s.HandleClass(Vital, "GET /v1/code", func(http.ResponseWriter, *http.Request) error { return nil })
	var wg sync.WaitGroup
	codes := make(chan int, 2)
	for range 2 { // one at work, one waiting
		wg.Go(func() { codes <- do(s, "GET", "/v1/history", "").Code })
	}
	<-h.began
	until(t, func() bool { _, waiting := s.gates[Optional].full(); return waiting == 1 && at.Waiting() == 1 })
	p := wantProblem(t, do(s, "GET", "/v1/history", ""), 429, problem.Overloaded)
	if p.RetryAfterMS == 0 || p.Side != "server" {
		t.Fatalf("%+v", p)
	}
	if got := do(s, "GET", "/v1/code", "").Code; got != 200 {
		t.Fatalf("the vital was turned away: %d", got)
	}
	at.Advance(time.Second) // the one that waits has waited long enough
	if got := <-codes; got != 429 {
		t.Fatalf("after its wait: %d", got)
	}
	close(h.free)
	if got := <-codes; got != 200 {
		t.Fatalf("the one at work: %d", got)
	}
	wg.Wait()
	if got := do(s, "GET", "/v1/history", "").Code; got != 200 {
		t.Fatalf("once there is room: %d", got)
	}
	if !strings.Contains(do(s, "GET", "/metrics", "").Body.String(), `qianma_http_shed_total{class="optional"} 2`) {
		t.Fatal("shedding is not counted")
	}
}

func TestPressureShedsInOrder(t *testing.T) {
	s := newServer(t, Config{Limits: map[Class]Limit{Normal: {Concurrent: 1}}}) // too few for a remnant
	for _, c := range []struct {
		level                   int32
		vital, normal, optional bool
	}{{0, false, false, false}, {1, false, false, true}, {2, false, true, true}} {
		s.load.level.Store(c.level)
		if s.sheds(Vital) != c.vital || s.sheds(Normal) != c.normal || s.sheds(Optional) != c.optional {
			t.Errorf("level %d sheds vital %v, normal %v, optional %v", c.level, s.sheds(Vital), s.sheds(Normal), s.sheds(Optional))
		}
	}
}

func TestPressureIsTheSlowTwentieth(t *testing.T) {
	buckets := []float64{0, .001, optionalAt, normalAt, 1}
	for _, c := range []struct {
		counts []uint64
		want   int32
	}{
		{[]uint64{1000, 0, 0, 0}, 0},
		{[]uint64{960, 0, 40, 0}, 0}, // fewer than one in twenty
		{[]uint64{940, 0, 60, 0}, 1},
		{[]uint64{940, 0, 10, 60}, 2},
		{[]uint64{0, 0, 0, 49}, 0}, // too few to tell
	} {
		if got := judge(buckets, c.counts, make([]uint64, 4)); got != c.want {
			t.Errorf("%v: level %d, want %d", c.counts, got, c.want)
		}
		if got := judge(buckets, c.counts, c.counts); got != 0 {
			t.Errorf("%v: nothing new, level %d", c.counts, got)
		}
	}
	if got := judge(buckets, []uint64{0, 0, 0, 100}, nil); got != 0 {
		t.Errorf("first look: level %d", got)
	}
	p := pressure{clock: clock.Real}
	p.look()
	p.look()
	if len(p.before) == 0 {
		t.Error("the runtime gave no record")
	}
}

// --- bounds of a connection

func TestHeadersAreBounded(t *testing.T) {
	s := newServer(t, Config{})
	url, c := serve(t, s)
	r, err := http.NewRequest("GET", url+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Big", strings.Repeat("x", 2*maxHeader))
	var res *http.Response
	until(t, func() bool { // the server does not wait for long until its answer is read before it hangs up
		res, err = c.Do(r)
		return err == nil
	})
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Fatal(res.Status)
	}
}

func TestSlowHeadersAreCut(t *testing.T) {
	s := newServer(t, Config{})
	if h := s.http; h.ReadHeaderTimeout <= 0 || h.ReadTimeout <= 0 || h.WriteTimeout < MaxWait || h.IdleTimeout <= 0 {
		t.Fatal("a connection has no end")
	}
	s.http.ReadHeaderTimeout = 30 * time.Millisecond
	serve(t, s)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n") // and no more
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Minute))
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("not cut: %v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	s := newServer(t, Config{Connections: 1})
	url, c := serve(t, s)
	first, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return len(s.lis.slots) == 1 })
	got := make(chan error, 1)
	go func() {
		res, err := c.Get(url + "/livez")
		if err == nil {
			res.Body.Close()
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("a second connection was served: %v", err)
	case <-time.After(50 * time.Millisecond): // long enough to catch the fault, never to fail a good run
	}
	first.Close()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestCloseDrains(t *testing.T) {
	s := newServer(t, Config{})
	h := newHeld()
	s.Handle("GET /v1/slow", h.handle)
	url, c := serve(t, s)
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := c.Get(url + "/v1/slow")
		if err != nil || res.StatusCode != 200 {
			t.Errorf("%v %v", res, err)
			return
		}
		res.Body.Close()
	})
	<-h.began
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	until(t, func() bool { return s.draining.Load() })
	if w := do(s, "GET", "/readyz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), "draining") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	close(h.free)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestCloseCutsWhatDoesNotEnd(t *testing.T) {
	s := newServer(t, Config{})
	began := make(chan struct{})
	s.Handle("GET /v1/slow", func(_ http.ResponseWriter, r *http.Request) error {
		close(began)
		<-r.Context().Done()
		return r.Context().Err()
	})
	url, c := serve(t, s)
	var wg sync.WaitGroup
	wg.Go(func() {
		if res, err := c.Get(url + "/v1/slow"); err == nil {
			res.Body.Close()
		}
	})
	<-began
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Close: %v", err)
	}
	if s.flying.Load() != 0 {
		t.Fatal("Close returned before the handler")
	}
	wg.Wait()
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		<-time.After(time.Millisecond)
	}
}

// --- receipts

func explainTube(code string) *problem.Problem {
	switch code {
	case "tube_full":
		return problem.New("tube_full", "the tube is full", "open another")
	case "result_conflict":
		return problem.New("result_conflict", "another outcome is held", "call the lab")
	}
	return nil
}

func receiptOf(rows ...machine.Row) machine.Receipt {
	return machine.Receipt{Origin: "unicom/nucleic/0/1f", First: 7, Last: 9, Level: machine.Committed, Rows: rows}
}

func TestWriteReceipt(t *testing.T) {
	w := httptest.NewRecorder()
	err := WriteReceipt(w, []machine.Receipt{receiptOf(
		machine.Row{Status: machine.Accepted}, machine.Row{Status: machine.Duplicate, Code: "again"},
		machine.Row{Status: machine.Rejected, Code: "tube_full"}, machine.Row{Status: machine.Conflicts, Code: "result_conflict"},
		machine.Row{Status: machine.Rejected, Code: "novel"}, machine.Row{Status: machine.Accepted, Code: "result_conflict"},
	)}, explainTube)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"receipt":{"level":"committed","origin":"unicom/nucleic/0/1f","first":7,"last":9,"replayed":false},` +
		`"accepted":2,"duplicate":1,"conflict":1,"rejected":2,"rows":[` +
		`{"row":2,"status":"rejected","code":"tube_full","message":"the tube is full","fix":"open another"},` +
		`{"row":3,"status":"conflict","code":"result_conflict","message":"another outcome is held","fix":"call the lab"},` +
		`{"row":4,"status":"rejected","code":"novel","message":"the row breaks a rule","fix":"look the code up in /openapi.yaml"},` +
		`{"row":5,"status":"accepted","code":"result_conflict","message":"another outcome is held","fix":"call the lab"}]}` + "\n"
	if w.Body.String() != want {
		t.Fatalf("got  %s\nwant %s", w.Body, want)
	}
	w = httptest.NewRecorder()
	if err := WriteRows(w, []machine.Receipt{receiptOf(), receiptOf()}, []Outcome{
		{Problem: problem.New(problem.Malformed, "m", "f")}, {Status: machine.Accepted}, {},
	}, nil); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Receipts                     []struct{ Level string }
		Accepted, Rejected, Conflict int
		Rows                         []struct {
			Row  int
			Code string
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Receipts) != 2 || got.Accepted != 1 || got.Rejected != 2 || len(got.Rows) != 2 || got.Rows[0].Code != "malformed" || got.Rows[1].Row != 2 {
		t.Fatalf("%+v", got)
	}
}

func TestWriteOne(t *testing.T) {
	s := newServer(t, Config{})
	var row machine.Row
	s.Handle("POST /v1/one", func(w http.ResponseWriter, r *http.Request) error { return WriteOne(w, receiptOf(row), explainTube) })
	for _, st := range []machine.Status{machine.Accepted, machine.Duplicate} {
		row = machine.Row{Status: st}
		if w := do(s, "POST", "/v1/one", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"`+st.String()+`":1`) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	row = machine.Row{Status: machine.Rejected, Code: "tube_full"}
	p := wantProblem(t, do(s, "POST", "/v1/one", ""), 422, "tube_full")
	if p.Receipt == nil || p.Receipt.Level != "committed" {
		t.Fatalf("%+v", p)
	}
	row = machine.Row{Status: machine.Conflicts, Code: "result_conflict"}
	p = wantProblem(t, do(s, "POST", "/v1/one", ""), 409, "result_conflict")
	if p.Receipt == nil || p.Receipt.First != 7 || !strings.Contains(p.Message, "is kept") {
		t.Fatalf("%+v", p)
	}
}

func TestTextIsQuoted(t *testing.T) {
	s := newServer(t, Config{})
	s.Handle("GET /v1/x", func(http.ResponseWriter, *http.Request) error {
		return problem.New(problem.Invalid, "quotes \" and \\ and \n and 中文 and \xff", "</script>")
	})
	p := wantProblem(t, do(s, "GET", "/v1/x", ""), 422, problem.Invalid)
	if p.Message != "quotes \" and \\ and \n and 中文 and \ufffd" {
		t.Fatalf("%q", p.Message)
	}
}
