//go:build system

package systemtest

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if bin = os.Getenv("QIANMA_BIN"); bin != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "qianma-bin-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+"/", "qianma/services/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the binaries: %v\n%s", err, out)
		return 1
	}
	bin = dir
	return m.Run()
}

// world is one running province.
type world struct {
	t    *testing.T
	data string
}

// start brings a province up and takes it down with the test.
func start(t *testing.T, args ...string) *world {
	t.Helper()
	w := &world{t: t, data: filepath.Join(t.TempDir(), "data")}
	t.Cleanup(func() {
		if t.Failed() {
			w.explain()
		}
		if out, err := w.try("down", "--wait", patience.String()); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	w.must(append([]string{"up", "--detach", "--wait", patience.String()}, args...)...)
	return w
}

// patience is how long what must come may take, and limit bounds every command a
// test types. They cost nothing where it comes.
const (
	patience = 3 * time.Minute
	limit    = 8 * time.Minute
)

func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(bin, "qianma"), append(args, "--data", w.data)...)
	c.Env = append(os.Environ(), "NO_COLOR=1")
	return c
}

func (w *world) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := w.command(ctx, args...)
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

func (w *world) must(args ...string) string {
	w.t.Helper()
	out, err := w.try(args...)
	if err != nil {
		w.t.Fatalf("qianma %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// explain prints what an operator would look at first.
func (w *world) explain() {
	out, err := w.try("status")
	w.t.Logf("status: %v\n%s", err, out)
	if raw, err := os.ReadFile(filepath.Join(w.data, "logs", "supervisor.log")); err == nil {
		w.t.Logf("supervisor.log ends:\n%s", tail(raw, 4000))
	}
}

func tail(raw []byte, n int) []byte { return raw[max(0, len(raw)-n):] }

// background is a command that runs while the test breaks things.
type background struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu  sync.Mutex
	out bytes.Buffer
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

func (b *background) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}

func (w *world) background(args ...string) *background {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	b := &background{t: w.t, name: strings.Join(args, " "), cmd: w.command(ctx, args...), done: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = b, b
	if err := b.cmd.Start(); err != nil {
		cancel()
		w.t.Fatal(err)
	}
	go func() {
		defer cancel()
		b.err = b.cmd.Wait()
		close(b.done)
	}()
	return b
}

// finish waits for the command and wants it to have succeeded.
func (b *background) finish() string {
	b.t.Helper()
	<-b.done
	if b.err != nil {
		b.t.Fatalf("qianma %s: %v\n%s", b.name, b.err, b.text())
	}
	return b.text()
}

// eventually waits until fact holds; it is how a test waits, never by a guess.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !fact(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// day invents a testing day and returns its directory.
func (w *world) day(people, seed int) string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), fmt.Sprintf("day-%d", seed))
	c := exec.Command(filepath.Join(bin, "qianma"), "sample-day", "--people", fmt.Sprint(people), "--seed", fmt.Sprint(seed), "--out", dir)
	if out, err := c.CombinedOutput(); err != nil {
		w.t.Fatalf("sample-day: %v\n%s", err, out)
	}
	return dir
}

// equal wants every replica of both carriers to hold the same facts.
func (w *world) equal() {
	w.t.Helper()
	out, err := w.try("verify", "--wait", patience.String(), "-o", "json")
	var verdict struct {
		Equal bool   `json:"equal"`
		Facts uint64 `json:"facts"`
	}
	if json.Unmarshal([]byte(out), &verdict) != nil || !verdict.Equal || err != nil {
		w.t.Fatalf("verify: %v\n%s", err, out)
	}
	w.t.Logf("equal: %d facts", verdict.Facts)
}

// totals checks the sum that has to add up, and returns it.
func totals(t *testing.T, out string) (accepted, duplicate, conflict, rejected, rows int) {
	t.Helper()
	i := strings.LastIndex(out, "accepted ")
	if i < 0 {
		t.Fatalf("no totals in %q", out)
	}
	var decided int
	if _, err := fmt.Sscanf(out[i:], "accepted %d + duplicate %d + conflict %d + rejected %d = %d of %d rows", &accepted, &duplicate, &conflict, &rejected, &decided, &rows); err != nil {
		t.Fatalf("totals: %v in %q", err, out[i:])
	}
	if accepted+duplicate+conflict+rejected != rows || decided != rows {
		t.Fatalf("the rows do not add up: %s", out[i:])
	}
	return accepted, duplicate, conflict, rejected, rows
}

// document is how a person is named on the command line.
type document struct{ kind, number, country string }

var kinds = map[string]string{"居民身份证": "resident", "护照": "passport", "港澳居民来往内地通行证": "hk_macau_permit"}

// people picks n documents of a day.
func people(t *testing.T, dir string, n int) []document {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "registrations.csv"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var out []document
	rng := rand.New(rand.NewPCG(1, 2))
	for len(out) < n {
		r := rows[1+rng.IntN(len(rows)-1)]
		if kind, ok := kinds[r[3]]; ok {
			out = append(out, document{kind, r[4], r[5]})
		}
	}
	return out
}

// answer is the part of GET /v1/code that must be the same at both carriers.
type answer struct {
	Colour  string `json:"colour"`
	Level   string `json:"level"`
	Reasons []struct {
		Code string `json:"code"`
	} `json:"reasons"`
	Nucleic *struct {
		Status    string `json:"status"`
		SampledAt string `json:"sampled_at"`
	} `json:"nucleic"`
	Data struct {
		Source string `json:"source"`
		Stale  bool   `json:"stale"`
	} `json:"data"`
	Token string `json:"token"`
}

func (a answer) gist() string {
	s := a.Colour + "/" + a.Level
	for _, r := range a.Reasons {
		s += "," + r.Code
	}
	if a.Nucleic != nil {
		s += "/" + a.Nucleic.Status + "@" + a.Nucleic.SampledAt
	}
	return s
}

// code asks both carriers for a person's code.
func (w *world) code(d document) (map[string]answer, error) {
	out, err := w.try("code", "show", "--kind", d.kind, "--number", d.number, "--country", d.country, "-o", "json")
	if err != nil {
		return nil, err
	}
	var both struct {
		Carriers map[string]answer `json:"carriers"`
	}
	return both.Carriers, json.Unmarshal([]byte(out), &both)
}

// leader names the process that leads a subsystem at a carrier.
func (w *world) leader(carrier, subsystem string) string {
	w.t.Helper()
	var name string
	eventually(w.t, "a leader of "+subsystem+" at "+carrier, func() bool {
		for i := 1; i <= 3; i++ {
			p := fmt.Sprintf("%s-%s-%d", carrier, subsystem, i)
			if l := w.marks(p).leader(); l != "" {
				name = l
				return true
			}
		}
		return false
	})
	return name
}
