package cost

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"qianma/cluster/leaktest"
)

func TestMain(m *testing.M) {
	if runtime.GOOS != "linux" {
		println("cost reads /proc: nothing to test here")
		os.Exit(0)
	}
	leaktest.Main(m)
}

func TestStatIsReadPastAnyName(t *testing.T) {
	got, err := parseStat([]byte("7 (a) b) R) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 9 9 20 0 1 0 1 1 1"))
	if err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v; want 2s", got, err)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S 1"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// Goal: what a process burns is what the meter says. Method: burn, until the
// kernel itself says that we burned, in both of its accounts: a process is
// charged to the nanosecond and the machine by the tick, so that either may
// lag behind the other.
func TestBurnedTimeIsCountedForItsRole(t *testing.T) {
	m, err := Begin(With(nil, Self()))
	if err != nil {
		t.Fatal(err)
	}
	const burn = 200 * time.Millisecond
	start, _ := m.readOne(os.Getpid())
	x := 0
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); x++ {
		if x%1000 == 0 {
			own, _ := m.readOne(os.Getpid())
			all, _ := readMachine()
			if own.cpu-start.cpu >= burn && all.busy-m.began.busy >= burn {
				break
			}
		}
	}
	if err := m.Sample(); err != nil {
		t.Fatal(err)
	}
	u := m.Usage()
	if len(u) != 1 || u[0].Role != Generator || u[0].CPU < burn.Seconds() || u[0].RSS == 0 || u[0].PeakRSS < u[0].RSS || u[0].Processes != 1 {
		t.Errorf("%+v", u)
	}
	if m.Machine() < burn {
		t.Errorf("the machine was busy for %v only", m.Machine())
	}
}

// Goal: a process that dies keeps what it used, and its successor, which began
// during the run, counts from zero.
func TestBothLivesOfAProcessCount(t *testing.T) {
	m := &Meter{lives: map[int]*life{}, spent: map[string]*Usage{}}
	a, b := Process{Role: "r", PID: 1}, Process{Role: "r", PID: 2}
	m.take(a, reading{cpu: 10 * time.Second, written: 100}, false)
	m.take(a, reading{cpu: 13 * time.Second, written: 150}, true)
	m.bury(m.lives[1])
	delete(m.lives, 1)
	m.take(b, reading{cpu: 2 * time.Second, written: 30, rss: 5}, true)
	u := m.Usage()
	if len(u) != 1 || u[0].CPU != 5 || u[0].Written != 80 || u[0].Processes != 1 {
		t.Errorf("%+v", u)
	}
}

func TestTheSupervisorIsAskedThroughItsSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a-directory-with-a-name-so-long-that-the-path-of-a-socket-inside-it-cannot-be-spelled-in-an-address")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ln, err := net.Listen("unix", filepath.Join("/proc/self/fd", itoa(d.Fd()), "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"pid": 9, "processes": []map[string]any{
			{"name": "unicom-nucleic-1", "subsystem": "nucleic", "pid": 7}, {"name": "unicom-nucleic-2", "subsystem": "nucleic", "pid": 0}}})
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	defer wg.Wait()
	defer srv.Close()
	got, err := Supervisor(dir)()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != (Process{Name: "unicom-nucleic-1", Role: "nucleic", PID: 7}) || got[1].PID != 9 {
		t.Errorf("%+v", got)
	}
}

func itoa(n uintptr) string {
	raw, _ := json.Marshal(n)
	return string(raw)
}
