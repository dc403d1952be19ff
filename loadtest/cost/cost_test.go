package cost

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
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

// Goal: whoever starts processes and reaps them is billed for what it writes
// itself, and for nothing that they wrote. Method: this process is metered while a
// child of it writes, and then it writes itself, both to the disk.
func TestNobodyIsBilledForWhatItsDeadChildrenWrote(t *testing.T) {
	const childs, own = 4 << 20, 2 << 20
	m, err := Begin(With(nil, Process{Role: "r", PID: os.Getpid(), Parent: true}))
	if err != nil {
		t.Fatal(err)
	}
	written := func() int64 {
		if err := m.Sample(); err != nil {
			t.Fatal(err)
		}
		return m.Usage()[0].Written
	}
	dir := t.TempDir()
	before, err := m.readOne(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dd := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(dir, "child"), "bs=1M", "count=4", "conv=fsync")
	if out, err := dd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after, err := m.readOne(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.written-before.written < childs {
		t.Skip("the kernel accounts for no writes here: temporary files are on no disk, or may not be looked at")
	}
	if n := written(); n >= childs/4 {
		t.Errorf("its child wrote %d bytes, and %d are on its own bill", childs, n)
	}
	f, err := os.Create(filepath.Join(dir, "own"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(make([]byte, own))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if n := written(); n < own || n >= own+childs/4 {
		t.Errorf("it wrote %d bytes, and %d are on its bill", own, n)
	}
}

// Goal: a source that fails costs its own processes' figures, not those of the
// others, and nobody is taken for dead or for new because of it.
func TestASourceThatFailsHidesNobodyElse(t *testing.T) {
	var failing error
	parent := Process{Role: "system", PID: os.Getppid()}
	m, err := Begin(With(func() ([]Process, error) {
		if failing != nil {
			return nil, failing
		}
		return []Process{parent}, nil
	}, Self()))
	if err != nil {
		t.Fatal(err)
	}
	failing = errors.New("on purpose")
	m.lives[os.Getpid()].last.rss = -1
	if err := m.Sample(); !errors.Is(err, failing) {
		t.Errorf("the failure is %v", err)
	}
	if own := m.lives[os.Getpid()]; own.last.rss <= 0 {
		t.Error("the generator was not read")
	}
	failing = nil
	if err := m.Sample(); err != nil {
		t.Fatal(err)
	}
	if l := m.lives[os.Getppid()]; l == nil || l.fresh || len(m.spent) > 0 {
		t.Errorf("%+v, buried %v: it has lived all along", l, m.spent)
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
	if len(got) != 2 || got[0] != (Process{Name: "unicom-nucleic-1", Role: "nucleic", PID: 7}) || got[1].PID != 9 || !got[1].Parent {
		t.Errorf("%+v", got)
	}
}

func itoa(n uintptr) string {
	raw, _ := json.Marshal(n)
	return string(raw)
}
