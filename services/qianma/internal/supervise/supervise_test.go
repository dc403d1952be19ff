package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qianma/cluster/leaktest"
	"qianma/cluster/problem"
	"qianma/cluster/topology/topologytest"
	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/fake"
)

func TestMain(m *testing.M) {
	fake.Main()
	fake.Own()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // a fake daemon that leaves does so at once
	leaktest.Main(m)
}

// brisk are waits for tests: short, but every outcome is waited for as a fact.
var brisk = Tuning{
	BackoffMin: 5 * time.Millisecond, BackoffMax: 40 * time.Millisecond,
	ProbeFast: 5 * time.Millisecond, ProbeSlow: 20 * time.Millisecond,
	Tick: 10 * time.Millisecond, Grace: time.Minute,
}

// house is a directory of fake daemons and the supervisor over them.
type house struct {
	*testing.T
	dir   string
	specs []Spec
	said  *lines
	*Supervisor
}

// build writes fake daemons for names like "unicom-nucleic-1"; the stage is 0
// for backbones, 1 for the rest.
func build(t *testing.T, names ...string) *house {
	t.Helper()
	h := &house{T: t, dir: t.TempDir(), said: &lines{}}
	for _, name := range names {
		h.specs = append(h.specs, h.spec(name))
	}
	return h
}

func (h *house) spec(name string) Spec {
	part := strings.Split(name, "-")
	dir := filepath.Join(h.dir, part[0], name)
	s := Spec{
		Name: name, Carrier: part[0], Subsystem: part[1], Path: exe(h.T), Dir: dir,
		ConfigFile: filepath.Join(dir, "config.json"), Log: filepath.Join(h.dir, name+".log"), HTTP: freeAddr(h.T),
	}
	if s.Early = part[1] == "backbone"; !s.Early {
		s.Stage = 1
	}
	raw, err := json.Marshal(fake.Config{Name: name, Dir: dir, HTTP: s.HTTP})
	h.must(err)
	s.Prepare = func() error {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return os.WriteFile(s.ConfigFile, raw, 0o600)
	}
	return s
}

func (h *house) open(cfg Config) *house {
	h.Helper()
	cfg.Specs, cfg.Province = h.specs, "test"
	if cfg.Tuning == (Tuning{}) {
		cfg.Tuning = brisk
	}
	cfg.Logger = slog.New(slog.NewTextHandler(h.said, nil))
	s, err := Open(cfg)
	h.must(err)
	h.Supervisor = s
	h.Cleanup(func() { h.must(s.Close(h.bounded())) })
	return h
}

func (h *house) up(cfg Config) *house {
	h.Helper()
	h.open(cfg)
	h.must(h.Start(h.bounded()))
	h.must(h.Wait(h.bounded(), nil))
	return h
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// bounded is a context that ends long after everything should have happened.
func (h *house) bounded() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	h.Cleanup(cancel)
	return ctx
}

// known waits until the kernel shows the arguments of a process just started.
func (h *house) known(pid int) {
	h.Helper()
	for ctx := h.bounded(); configOf(pid) == ""; runtime.Gosched() {
		h.must(ctx.Err())
	}
}

// eventually waits until the process satisfies the condition.
func (h *house) eventually(name string, what string, holds func(control.Process) bool) control.Process {
	h.Helper()
	var p control.Process
	if err := h.until(h.bounded(), func() bool { p = h.find(name).snapshot(); return holds(p) }); err != nil {
		h.Fatalf("%s never %s; it is %+v; said:\n%s", name, what, p, h.said)
	}
	return p
}

func (h *house) tell(name, path string, form url.Values) {
	h.Helper()
	res, err := http.Post("http://"+h.find(name).spec.HTTP+"/fake/"+path+"?"+form.Encode(), "", nil)
	if err == nil { // one that was told to exit hangs up
		res.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
}

func is(states ...control.State) func(control.Process) bool {
	return func(p control.Process) bool { return slices.Contains(states, p.State) }
}

func reborn(old control.Process) func(control.Process) bool {
	return func(p control.Process) bool { return p.State == control.Ready && p.PID != old.PID }
}

func exe(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// freeAddr is an address nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	return topologytest.Addrs(t, 1)[0]
}

func TestWhatDiesIsStartedAgain(t *testing.T) {
	h := build(t, "unicom-backbone-1", "unicom-nucleic-1", "unicom-nucleic-2").up(Config{})
	before := h.find("unicom-nucleic-1").snapshot()
	other := h.find("unicom-nucleic-2").snapshot()

	after, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Kill)
	h.must(err)
	if after.PID == before.PID {
		t.Fatal("kill returned while the process still ran")
	}
	now := h.eventually("unicom-nucleic-1", "came back", reborn(before))
	if now.Restarts != 1 {
		t.Errorf("restarts = %d, want 1", now.Restarts)
	}
	if !strings.Contains(h.said.String(), "unicom-nucleic-1 killed by SIGKILL; starts again in") {
		t.Errorf("the log does not say so:\n%s", h.said)
	}
	if p := h.find("unicom-nucleic-2").snapshot(); p.PID != other.PID {
		t.Error("a bystander was restarted")
	}
}

func TestADeathTellsItsLastWords(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	before := h.find("unicom-nucleic-1").snapshot()
	h.tell("unicom-nucleic-1", "exit", url.Values{"code": {"7"}, "words": {"fsync failed: no space left"}})
	h.eventually("unicom-nucleic-1", "came back", reborn(before))
	if want := "left with exit code 7: fsync failed: no space left; starts again in"; !strings.Contains(h.said.String(), want) {
		t.Errorf("want %q in:\n%s", want, h.said)
	}
}

func TestAHoldKeepsTheDeadDown(t *testing.T) {
	h := build(t, "unicom-nucleic-1", "mobile-nucleic-1", "unicom-display-1").up(Config{})
	h.Hold(control.Selector{Subsystem: "nucleic"}, 0)
	before := h.find("unicom-display-1").snapshot()
	_, err := h.DoEach(h.bounded(), control.Selector{}, control.Kill)
	h.must(err)
	// The one that is not held comes back; by then the others had every chance.
	h.eventually("unicom-display-1", "came back", reborn(before))
	for _, name := range []string{"unicom-nucleic-1", "mobile-nucleic-1"} {
		h.eventually(name, "was held", is(control.Held))
	}
	h.Release(control.Selector{Carrier: "unicom"}) // does not cover the hold: changes nothing
	if p := h.eventually("unicom-nucleic-1", "stayed held", is(control.Held)); p.PID != 0 {
		t.Errorf("held with pid %d", p.PID)
	}
	h.Release(control.Selector{Subsystem: "nucleic"})
	for _, name := range []string{"unicom-nucleic-1", "mobile-nucleic-1"} {
		h.eventually(name, "was released", is(control.Ready))
	}
}

// TestAStartUnderWayIsNotOwedTwice: a start that is asked for while the process
// is being started is that start. It must not bring the process back from its
// next death, through a hold.
func TestAStartUnderWayIsNotOwedTwice(t *testing.T) {
	const name, other = "unicom-nucleic-1", "unicom-display-1"
	h := build(t, name, other)
	prepare, again := h.specs[0].Prepare, false
	asked := make(chan error, 1)
	h.specs[0].Prepare = func() error {
		if again {
			k := h.find(name)
			go func() { asked <- k.start(h.bounded()) }()
			for owed := false; !owed; { // until the request has been taken
				k.mu.Lock()
				owed = k.atOnce
				k.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
			again = false
		}
		return prepare()
	}
	h.up(Config{})
	sel := control.Selector{Name: name}
	h.Hold(sel, 0)
	_, err := h.Do(h.bounded(), name, control.Kill)
	h.must(err)
	h.eventually(name, "was held", is(control.Held))
	again = true
	h.Release(sel)
	h.eventually(name, "came back", is(control.Ready))
	h.must(<-asked)
	h.Hold(sel, 0)
	_, err = h.Do(h.bounded(), name, control.Kill)
	h.must(err)
	before := h.find(other).snapshot()
	_, err = h.Do(h.bounded(), other, control.Kill)
	h.must(err)
	h.eventually(other, "came back", reborn(before)) // by then the one that is held had every chance
	if p := h.find(name).snapshot(); p.State != control.Held {
		t.Errorf("it is %s, in spite of the hold", p.State)
	}
}

func TestAHoldWithALeaseLetsGoByItself(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	before := h.find("unicom-nucleic-1").snapshot()
	h.Hold(control.Selector{Name: "unicom-nucleic-1"}, 50*time.Millisecond)
	_, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Kill)
	h.must(err)
	h.eventually("unicom-nucleic-1", "came back", reborn(before))
}

func TestNoRestartHoldsEverything(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{NoRestart: true})
	_, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Kill)
	h.must(err)
	h.eventually("unicom-nucleic-1", "was held", is(control.Held))
	p, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Start)
	h.must(err)
	if p.PID == 0 {
		t.Error("start did not start what is held")
	}
}

func TestStopStaysStoppedUntilStart(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	p, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Stop)
	h.must(err)
	if p.State != control.Stopped || p.PID != 0 || p.Restarts != 0 {
		t.Fatalf("after stop: %+v", p)
	}
	p, err = h.Do(h.bounded(), "unicom-nucleic-1", control.Start)
	h.must(err)
	if p.PID == 0 {
		t.Fatalf("after start: %+v", p)
	}
	h.eventually("unicom-nucleic-1", "was ready", is(control.Ready))
}

func TestRestartIsNoDeath(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	before := h.find("unicom-nucleic-1").snapshot()
	_, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Restart)
	h.must(err)
	if p := h.eventually("unicom-nucleic-1", "came back", reborn(before)); p.Restarts != 0 {
		t.Errorf("restarts = %d", p.Restarts)
	}
}

func TestPauseAndResume(t *testing.T) {
	order := filepath.Join(t.TempDir(), "order")
	t.Setenv(fake.OrderFile, order)
	h := build(t, "unicom-nucleic-1").up(Config{})
	p, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Pause)
	h.must(err)
	if p.State != control.Paused {
		t.Fatalf("state %s after pause", p.State)
	}
	p, err = h.Do(h.bounded(), "unicom-nucleic-1", control.Resume)
	h.must(err)
	if p.State == control.Paused {
		t.Fatal("still paused after resume")
	}
	h.eventually("unicom-nucleic-1", "was ready", is(control.Ready))
	_, err = h.Do(h.bounded(), "unicom-nucleic-1", control.Pause)
	h.must(err)
	p, err = h.Do(h.bounded(), "unicom-nucleic-1", control.Stop)
	h.must(err)
	if p.State != control.Stopped {
		t.Fatalf("state %s after stop of a paused process", p.State)
	}
	// It left by itself: it was thawed to read the request, not killed.
	if raw, err := os.ReadFile(order); err != nil || string(raw) != "unicom-nucleic-1\n" {
		t.Errorf("the paused process did not leave in order: %q, %v", raw, err)
	}
}

// Goal: a process is not woken for the sake of microseconds.
func TestProcessesAreUnhurried(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	p := h.find("unicom-nucleic-1").snapshot()
	slack, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", p.PID))
	h.must(err)
	if got := strings.TrimSpace(string(slack)); got != fmt.Sprint(timerSlack.Nanoseconds()) {
		t.Errorf("its timers may be %s ns late, want %s", got, timerSlack)
	}
}

// Goal: a process that is to give way does, and no other.
func TestAProcessGivesWay(t *testing.T) {
	h := build(t, "unicom-display-1", "unicom-nucleic-1")
	h.specs[0].Nice = 2
	h.up(Config{})
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	h.must(err)
	for name, steps := range map[string]int{"unicom-display-1": 2, "unicom-nucleic-1": 0} {
		got, err := unix.Getpriority(unix.PRIO_PROCESS, h.find(name).snapshot().PID)
		h.must(err)
		if want := max(1, own-steps); got != want { // the system call counts down
			t.Errorf("%s has niceness %d, want %d", name, 20-got, 20-want)
		}
	}
}

func TestAStubbornProcessIsKilled(t *testing.T) {
	tune := brisk
	tune.Grace = 20 * time.Millisecond
	h := build(t, "unicom-nucleic-1").up(Config{Tuning: tune})
	h.tell("unicom-nucleic-1", "stubborn", nil)
	p, err := h.Do(t.Context(), "unicom-nucleic-1", control.Stop)
	h.must(err)
	if p.State != control.Stopped {
		t.Fatalf("state %s", p.State)
	}
}

func TestReadinessIsFollowed(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	h.tell("unicom-nucleic-1", "unready", nil)
	p := h.eventually("unicom-nucleic-1", "was unready", is(control.Unready))
	if !strings.Contains(p.Reason, "leader: none known") {
		t.Errorf("reason %q", p.Reason)
	}
	h.tell("unicom-nucleic-1", "ready", nil)
	h.eventually("unicom-nucleic-1", "was ready", is(control.Ready))
}

// A data directory that is deleted under a running process would swallow what
// the process acknowledges: the process must be started again on an empty one.
func TestADeletedDirectoryMeansAFreshStart(t *testing.T) {
	h := build(t, "unicom-nucleic-1", "mobile-nucleic-1").up(Config{})
	dir := h.find("unicom-nucleic-1").spec.Dir
	born, err := os.ReadFile(filepath.Join(dir, "born"))
	h.must(err)
	before := h.find("unicom-nucleic-1").snapshot()
	other := h.find("mobile-nucleic-1").snapshot()
	// Out of the way at once, and then deleted: the new process may come before
	// the last of the old directory is gone.
	lost := filepath.Join(h.dir, "lost")
	h.must(errors.Join(os.Rename(filepath.Join(h.dir, "unicom"), lost), os.RemoveAll(lost)))
	h.eventually("unicom-nucleic-1", "came back", reborn(before))
	again, err := os.ReadFile(filepath.Join(dir, "born"))
	h.must(err)
	if string(again) == string(born) {
		t.Error("the new process did not start empty")
	}
	if p := h.find("mobile-nucleic-1").snapshot(); p.PID != other.PID {
		t.Error("the other carrier was restarted")
	}
}

func TestCloseStopsTheDoorsBeforeTheCellar(t *testing.T) {
	order := filepath.Join(t.TempDir(), "order")
	t.Setenv(fake.OrderFile, order)
	h := build(t, "unicom-backbone-1", "unicom-nucleic-1", "unicom-display-1")
	h.specs[2].Stage = 2
	h.up(Config{})
	h.must(h.Close(h.bounded()))
	h.must(h.Close(h.bounded())) // again: nothing happens
	raw, err := os.ReadFile(order)
	h.must(err)
	if got := strings.Fields(string(raw)); !slices.Equal(got, []string{"unicom-display-1", "unicom-nucleic-1", "unicom-backbone-1"}) {
		t.Errorf("stopped in the order %v", got)
	}
	if _, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Start); !problem.Is(err, problem.Unavailable) {
		t.Errorf("start after Close: %v", err)
	}
}

// What an earlier supervisor left running is taken over, not doubled; its end
// is seen although it is nobody's child here.
func TestOrphansAreAdopted(t *testing.T) {
	h := build(t, "unicom-nucleic-1")
	h.must(h.specs[0].Prepare())
	orphan, err := spawn(&h.specs[0])
	h.must(err)
	// Its files that close on exec are closed, and so spawn returns, a moment
	// before the kernel shows the arguments by which it is found.
	h.known(orphan.PID)
	h.open(Config{})
	if p := h.find("unicom-nucleic-1").snapshot(); p.PID != orphan.PID {
		t.Fatalf("adopted pid %d, want %d", p.PID, orphan.PID)
	}
	h.must(h.Start(h.bounded()))
	h.eventually("unicom-nucleic-1", "was ready", is(control.Ready))
	before := h.find("unicom-nucleic-1").snapshot()
	h.must(orphan.process.Kill())
	<-orphan.gone
	p := h.eventually("unicom-nucleic-1", "came back", reborn(before))
	if p.Restarts != 1 {
		t.Errorf("restarts = %d", p.Restarts)
	}
}

// A supervisor that gives up on what it adopted leaves no goroutine behind.
func TestAdoptingCanBeGivenUp(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	c, err := adopt(ctx, h.find("unicom-nucleic-1").current().Identity)
	h.must(err)
	cancel()
	<-c.gone
	if !c.Alive() {
		t.Error("the process ended with the watch over it")
	}
}

func TestFindIgnoresStrangers(t *testing.T) {
	h := build(t, "unicom-nucleic-1").up(Config{})
	found, err := Find(map[string]string{"/elsewhere/config.json": "unicom-nucleic-1"})
	h.must(err)
	if len(found) != 0 {
		t.Errorf("found %v by another file", found)
	}
	id := h.find("unicom-nucleic-1").current().Identity
	stranger := Identity{id.PID, id.Ticks + 1}
	if stranger.Alive() || stranger.Signal(os.Kill) == nil {
		t.Error("a reused pid was taken for the process")
	}
	if !id.Alive() {
		t.Error("the process itself is not known")
	}
}

func TestWhatCannotStartIsTriedAgain(t *testing.T) {
	h := build(t, "unicom-nucleic-1")
	h.specs[0].Path = filepath.Join(h.dir, "nucleicd")
	h.open(Config{})
	h.must(h.Start(h.bounded()))
	p := h.eventually("unicom-nucleic-1", "was tried twice", func(p control.Process) bool { return p.Restarts > 1 })
	if !strings.Contains(p.Reason, "cannot be started") {
		t.Errorf("reason %q", p.Reason)
	}
	if _, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Start); !problem.Is(err, problem.Unavailable) {
		t.Errorf("start: %v", err)
	}
	h.must(os.Symlink(exe(t), h.specs[0].Path))
	h.eventually("unicom-nucleic-1", "was ready", is(control.Ready))
}

func TestVerbsOnNobody(t *testing.T) {
	h := build(t, "unicom-nucleic-1").open(Config{})
	if _, err := h.Do(h.bounded(), "unicom-nucleic-9", control.Kill); !problem.Is(err, problem.NotFound) {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := h.DoEach(h.bounded(), control.Selector{Carrier: "telecom"}, control.Kill); !problem.Is(err, problem.NotFound) {
		t.Errorf("unknown carrier: %v", err)
	}
	if _, err := h.Do(h.bounded(), "unicom-nucleic-1", "explode"); !problem.Is(err, problem.Unsupported) {
		t.Errorf("unknown verb: %v", err)
	}
	if _, err := h.Do(h.bounded(), "unicom-nucleic-1", control.Pause); !problem.Is(err, problem.Unavailable) {
		t.Errorf("pause of what does not run: %v", err)
	}
}

func TestBackoffGrowsWithinItsBound(t *testing.T) {
	for n := range 100 {
		nominal := min(15*time.Second, 500*time.Millisecond<<min(n, 20))
		least, most := backoff(n, 500*time.Millisecond, 15*time.Second, 0), backoff(n, 500*time.Millisecond, 15*time.Second, 0.999999)
		if least != nominal*3/4 || most > nominal*5/4 || most < nominal*5/4-time.Millisecond {
			t.Fatalf("after %d deaths: %s to %s, want a quarter around %s", n, least, most, nominal)
		}
	}
}

func TestLogsStayWithinTheirBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	write := func(s string) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, _ = io.WriteString(f, s)
	}
	for i := range 5 {
		write(fmt.Sprintf("run %d\n", i))
		if err := rotate(path, 4, 2); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{path: "", path + ".1": "run 4\n", path + ".2": "run 3\n"} {
		if raw, err := os.ReadFile(name); err != nil || string(raw) != want {
			t.Errorf("%s holds %q (%v), want %q", name, raw, err, want)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("a third rotated log was kept")
	}
}
