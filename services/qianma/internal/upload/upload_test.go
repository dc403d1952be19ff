package upload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// site is a stand-in for one carrier: it keeps rows by tube and person, and
// keys with the receipt of then, as the API promises.
type site struct {
	*httptest.Server
	mu     sync.Mutex
	rows   map[string]int    // row -> how often it became a fact
	keys   map[string]string // key -> answer
	before func(n int, w http.ResponseWriter) bool
	after  func(n int) (lose bool)
	level  string
	posts  int
}

func newSite(t *testing.T) *site {
	s := &site{rows: map[string]int{}, keys: map[string]string{}, level: levelReplicated}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posts++
	if s.before != nil && s.before(s.posts, w) {
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if s.keys[key] == "" {
		s.keys[key] = s.commit(body)
	}
	if s.after != nil && s.after(s.posts) {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprint(w, strings.Replace(s.keys[key], "LEVEL", s.level, 1))
}

func (s *site) commit(body []byte) string {
	var in struct{ Rows []json.RawMessage }
	if err := json.Unmarshal(body, &in); err != nil {
		panic(err)
	}
	var accepted, duplicate int
	var bad []string
	for i, row := range in.Rows {
		switch {
		case strings.Contains(string(row), "refuse-me"):
			bad = append(bad, fmt.Sprintf(`{"row":%d,"status":"rejected","code":"tube_full","message":"m","fix":"f"}`, i))
		case s.rows[string(row)] > 0:
			duplicate++
		default:
			s.rows[string(row)]++
			accepted++
		}
	}
	return fmt.Sprintf(`{"receipt":{"level":"LEVEL"},"accepted":%d,"duplicate":%d,"conflict":0,"rejected":%d,"rows":[%s]}`,
		accepted, duplicate, len(bad), strings.Join(bad, ","))
}

const header = "tube,pool,site,document_kind,document_number,sampled_at\n"

// file writes n good rows, one the server refuses, and one that is not a time.
func file(t *testing.T, n int) string {
	var b strings.Builder
	b.WriteString(header)
	for i := range n {
		fmt.Fprintf(&b, "T%08d,10,s1,resident,5201%014d,2022-01-10 08:30:00\n", i/10, i)
	}
	b.WriteString("refuse-me,10,s1,resident,1,2022-01-10 08:30:00\n")
	b.WriteString("T1,10,s1,resident,1,yesterday\n")
	path := filepath.Join(t.TempDir(), "registrations.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func config(path, spool string, sites ...*site) Config {
	cfg := Config{Kind: Kinds["registrations"], File: path, Spool: spool, Workers: 3, Settle: 2 * time.Minute}
	for i, s := range sites {
		cfg.Carriers = append(cfg.Carriers, Carrier{Name: fmt.Sprintf("c%d", i), URLs: []string{s.URL}})
	}
	return cfg
}

func check(t *testing.T, got Totals, rows int) {
	t.Helper()
	if got.Decided() != got.Rows || got.Rows != rows+2 || got.Rejected != 2 || len(got.Rejects) != 2 || got.Replicated != got.Rows {
		t.Errorf("totals %+v, want %d rows of which 2 rejected", got, rows+2)
	}
}

func TestRowsAddUp(t *testing.T) {
	s := newSite(t)
	cfg := config(file(t, 1700), t.TempDir(), s)
	cfg.Rejected = filepath.Join(t.TempDir(), "rejected.csv")
	got, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, 1700)
	saved, err := os.ReadFile(cfg.Rejected)
	if err != nil || strings.Count(string(saved), "\n") != 3 || !strings.Contains(string(saved), "refuse-me,10,s1,resident,1,2022-01-10 08:30:00,1701,tube_full,m,f") {
		t.Errorf("rejected rows: %v\n%s", err, saved)
	}
	if got.Rejects[0].Row != 1701 || got.Rejects[0].Code != "tube_full" || got.Rejects[1].Row != 1702 {
		t.Errorf("rejects %+v", got.Rejects)
	}
}

// Killing the uploader at any moment neither loses nor repeats a row: it is
// stopped after every possible number of answers, each time with the next
// answer lost on its way, and then run again.
func TestKilledAnywhere(t *testing.T) {
	path := file(t, 2200)
	for stop := 1; stop <= 6; stop++ {
		s := newSite(t)
		spool := t.TempDir()
		ctx, kill := context.WithCancel(t.Context())
		s.after = func(n int) bool {
			if n == stop {
				kill()
			}
			return n == stop
		}
		if _, err := Run(ctx, config(path, spool, s)); stop < 5 && !errors.Is(err, ErrSpooled) {
			t.Fatalf("stopped after %d: error %v, want ErrSpooled", stop, err)
		}
		s.mu.Lock()
		s.after = nil
		s.mu.Unlock()
		got, err := Run(t.Context(), config(path, spool, s))
		if err != nil {
			t.Fatal(err)
		}
		check(t, got, 2200)
		if got.Accepted != 2200 || len(s.rows) != 2200 {
			t.Errorf("stopped after %d: %d accepted, %d held, want 2200", stop, got.Accepted, len(s.rows))
		}
		kill()
	}
}

// A journal whose last line was cut off by a crash is read up to there.
func TestTornJournal(t *testing.T) {
	s := newSite(t)
	path, spool := file(t, 1200), t.TempDir()
	s.before = func(n int, w http.ResponseWriter) bool {
		if n > 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n > 1
	}
	cfg := config(path, spool, s)
	cfg.GiveUp, cfg.Workers = time.Nanosecond, 1 // the first batch is in the journal before the second is refused
	if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrSpooled) {
		t.Fatal(err)
	}
	journals, err := filepath.Glob(filepath.Join(spool, "*", "journal"))
	if err != nil || len(journals) != 1 {
		t.Fatal(journals, err)
	}
	raw, err := os.ReadFile(journals[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(journals[0], raw[:len(raw)-5], 0o600); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.before = nil
	s.mu.Unlock()
	got, err := Run(t.Context(), config(path, spool, s))
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, 1200)
	if len(s.rows) != 1200 {
		t.Errorf("%d rows held, want 1200", len(s.rows))
	}
}

// A carrier that is gone costs nothing: the other takes the batch.
func TestFailover(t *testing.T) {
	dead, alive := newSite(t), newSite(t)
	dead.Close()
	got, err := Run(t.Context(), config(file(t, 900), t.TempDir(), dead, alive))
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, 900)
}

// TestAPausedNodeHoldsABatchShortly: a node that takes a request and never
// answers, as a stopped process does, costs a batch a little more than the
// wait it had asked for, and the batch goes to the next one. How long it is held
// is read from the request itself: a busy machine adds to every clock.
func TestAPausedNodeHoldsABatchShortly(t *testing.T) {
	stop, asked := make(chan struct{}), make(chan string, 1)
	paused := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Query().Get("wait"):
		default:
		}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	defer paused.Close()
	defer close(stop)
	s := newSite(t)
	cfg := config(file(t, 300), t.TempDir(), s)
	cfg.Carriers[0].URLs = []string{paused.URL, s.URL}
	got, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, 300)
	if d := <-asked; d != wait.String() || requestLimit > wait+3*time.Second {
		t.Errorf("asked to wait %s, held for %s", d, requestLimit)
	}
}

// A batch that was committed but never replicated stays in the spool, and is
// carried to the surviving carrier later.
func TestKeptUntilReplicated(t *testing.T) {
	burning, other := newSite(t), newSite(t)
	burning.level = levelCommitted
	path, spool := file(t, 600), t.TempDir()
	cfg := config(path, spool, burning)
	cfg.Settle = time.Millisecond
	got, err := Run(t.Context(), cfg)
	if !errors.Is(err, ErrSpooled) || got.Decided() != got.Rows {
		t.Fatalf("%+v, %v: want every row decided and ErrSpooled", got, err)
	}
	burning.Close()
	got, files, err := Resume(t.Context(), config("", spool), func(string) []Carrier {
		return []Carrier{{Name: "burned", URLs: []string{burning.URL}}, {Name: "other", URLs: []string{other.URL}}}
	})
	if err != nil || files != 1 {
		t.Fatal(files, err)
	}
	check(t, got, 600)
	if len(other.rows) != 600 {
		t.Errorf("the surviving carrier holds %d rows, want 600", len(other.rows))
	}
}

// Nothing answers: the uploader says what is wrong and goes on by itself.
func TestSaysWhatIsWrongAndGoesOn(t *testing.T) {
	s := newSite(t)
	said := make(chan string, 1)
	var healed sync.Once
	down := true
	s.before = func(_ int, w http.ResponseWriter) bool {
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"code":"unavailable","message":"no leader","fix":"wait"}`)
		}
		return down
	}
	cfg := config(file(t, 40), t.TempDir(), s)
	cfg.Progress = func(p Progress) {
		if p.Trouble == "" {
			return
		}
		healed.Do(func() {
			said <- p.Trouble
			go func() { s.mu.Lock(); down = false; s.mu.Unlock() }()
		})
	}
	got, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, got, 40)
	if text := <-said; !strings.Contains(text, "no leader") || !strings.Contains(text, "spool") {
		t.Errorf("said %q", text)
	}
}

// The same rows as a Chinese lab's GB18030 export and as UTF-8 become the same
// JSON.
func TestChineseExports(t *testing.T) {
	export := "试管编号,检测机构,版本,结果,接收时间,检测时间,报告时间,方法,审核人\n" +
		"5201,贵阳市第一实验室,1,阴性,2022-01-10 10:00:00,2022-01-10 12:00:00,2022/1/10 13:00:00,RT-PCR,王\n"
	gb, err := simplifiedchinese.GB18030.NewEncoder().String(export)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"lab":"贵阳市第一实验室","method":"RT-PCR","operator":"王","outcome":"negative","received_at":"2022-01-10T10:00:00+08:00","reported_at":"2022-01-10T13:00:00+08:00","revision":1,"tested_at":"2022-01-10T12:00:00+08:00","tube":"5201"}`
	for name, text := range map[string]string{"utf-8": export, "utf-8 with mark": "\ufeff" + export, "gb18030": gb} {
		path := filepath.Join(t.TempDir(), "results.csv")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := eachRow(path, Kinds["results"], func(r row) error { got = string(r.json); return nil }); err != nil {
			t.Fatal(name, err)
		}
		if got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(header + "T1,10,s1,resident,1,2022-01-10 08:30:00\n"))
	f.Add([]byte(`{"tube":"T1"}` + "\n{"))
	f.Add([]byte("\xff\xfe,\"\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		last := 0
		_ = eachRow(path, Kinds["registrations"], func(r row) error {
			if r.number != last+1 || (r.reject == nil) == (r.json == nil) && r.reject == nil {
				t.Fatalf("row %+v behind %d", r, last)
			}
			last = r.number
			if r.reject == nil && !json.Valid(r.json) {
				t.Fatalf("row %d is not JSON: %q", r.number, r.json)
			}
			return nil
		})
	})
}
