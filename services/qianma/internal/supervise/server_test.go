package supervise

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/cluster/problem"
	"qianma/services/qianma/internal/control"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serve puts the supervisor behind a control socket, deep enough in the tree
// that its path does not fit into a socket address.
func (h *house) serve() (client *control.Client, shutdown chan struct{}) {
	h.Helper()
	deep := filepath.Join(h.dir, strings.Repeat("deep/", 30))
	h.must(mkdir(deep))
	l, err := control.Listen(deep)
	h.must(err)
	shutdown = make(chan struct{}, 1)
	server := &http.Server{Handler: h.Handler(func() { shutdown <- struct{}{} })}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	h.Cleanup(func() { server.Close(); <-served })
	return control.NewClient(deep), shutdown
}

// Goal: everything a drill does goes over the control socket, and each answer
// is given when the system shows the fact.
func TestControlSocket(t *testing.T) {
	h := build(t, "unicom-nucleic-1", "mobile-nucleic-1").up(Config{})
	c, shutdown := h.serve()

	var r control.Report
	var err error
	for ctx := h.bounded(); ; { // a probe that had no answer in time makes it unready until the next
		r, err = c.Processes(ctx, control.Selector{Carrier: "unicom"})
		h.must(err)
		if len(r.Processes) != 1 || r.Processes[0].State != control.Unready {
			break
		}
	}
	if len(r.Processes) != 1 || r.Processes[0].State != control.Ready || r.Processes[0].RSS == 0 || r.Province != "test" {
		t.Fatalf("report %+v", r)
	}
	holds, err := c.Hold(h.bounded(), control.Selector{Carrier: "unicom"}, time.Hour)
	h.must(err)
	if len(holds) != 1 || holds[0].Until.IsZero() {
		t.Fatalf("holds %+v", holds)
	}
	ps, err := c.DoEach(h.bounded(), control.Selector{Carrier: "unicom"}, control.Kill)
	h.must(err)
	if len(ps) != 1 || ps[0].PID != 0 {
		t.Fatalf("after kill %+v", ps)
	}
	holds, err = c.Release(h.bounded(), control.Selector{})
	h.must(err)
	if len(holds) != 0 {
		t.Fatalf("holds %+v", holds)
	}
	h.eventually("unicom-nucleic-1", "came back", is(control.Ready))
	p, err := c.Do(h.bounded(), "mobile-nucleic-1", control.Stop)
	h.must(err)
	if p.State != control.Stopped {
		t.Fatalf("after stop %+v", p)
	}
	if _, err := c.Do(h.bounded(), "nobody", control.Stop); !problem.Is(err, problem.NotFound) {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := c.Hold(h.bounded(), control.Selector{Carrier: "telecom"}, 0); !problem.Is(err, problem.NotFound) {
		t.Errorf("hold on nobody: %v", err)
	}
	h.must(c.Shutdown(h.bounded()))
	<-shutdown
}

func TestNobodyOnTheSocketIsSaidPlainly(t *testing.T) {
	h := build(t)
	_, err := control.NewClient(h.dir).Processes(h.bounded(), control.Selector{})
	if !problem.Is(err, control.NotRunning) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(problem.From(err).Fix, "qianma up") {
		t.Errorf("fix %q", problem.From(err).Fix)
	}
}

func mkdir(path string) error { return os.MkdirAll(path, 0o700) }
