package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"qianma/cluster/leaktest"
	"qianma/cluster/topology"
	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/fake"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/status"
	"qianma/services/qianma/internal/supervise"
)

// The test binary plays all parts: started as "qianma" it is the command, as
// `X --config FILE` it is a fake daemon, else it is the test.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "qianma" {
		fake.Belong()
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	fake.Main()
	fake.Own()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // a fake daemon that leaves does so at once
	leaktest.Main(m)
}

// patience is how long what must come may take. It costs nothing where it comes.
const patience = 2 * time.Minute

// town is a data directory, a bin of fake daemons, and the command over them.
type town struct {
	*testing.T
	data, bin string
}

func settle(t *testing.T) *town {
	t.Helper()
	root := t.TempDir()
	w := &town{T: t, data: filepath.Join(root, "data"), bin: filepath.Join(root, "bin")}
	w.must(os.Mkdir(w.bin, 0o755))
	self, err := os.Executable()
	w.must(err)
	for _, s := range province.Subsystems {
		w.must(os.Symlink(self, filepath.Join(w.bin, province.Program(s))))
	}
	w.must(os.Symlink(self, filepath.Join(w.bin, "qianma")))
	return w
}

func (w *town) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// command is `qianma args...` as a process.
func (w *town) command(args ...string) *exec.Cmd {
	self, err := os.Executable()
	w.must(err)
	cmd := exec.Command(self, args...)
	cmd.Args[0] = "qianma"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// qianma runs a command on this town to its end.
func (w *town) qianma(verb string, args ...string) (output string, code int) {
	w.Helper()
	cmd := w.command(append([]string{verb, "--data", w.data}, args...)...)
	raw, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		w.Fatal(err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

// works is qianma for what must succeed.
func (w *town) works(verb string, args ...string) string {
	w.Helper()
	out, code := w.qianma(verb, args...)
	if code != 0 {
		w.Fatalf("qianma %s %s: exit code %d\n%s", verb, strings.Join(args, " "), code, out)
	}
	return out
}

// up brings the town up in the background and takes it down at the end.
func (w *town) up(args ...string) string {
	w.Helper()
	w.Cleanup(func() { w.works("down") })
	return w.works("up", append([]string{"--bin", w.bin, "--detach", "--wait", patience.String()}, args...)...)
}

func (w *town) report() control.Report {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := control.NewClient(w.data).Processes(ctx, control.Selector{})
	w.must(err)
	return r
}

// eventually waits until the supervisor's report satisfies the condition.
func (w *town) eventually(what string, holds func(control.Report) bool) control.Report {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		r := w.report()
		if holds(r) {
			return r
		}
		if time.Now().After(deadline) {
			w.Fatalf("never: %s\n%+v", what, r)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// says looks at the status until it says all of the words: one look waits for
// each process only so long, and on a busy machine that can be too short.
func (w *town) says(words ...string) {
	w.Helper()
	for deadline := time.Now().Add(patience); ; {
		out := w.works("status")
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(out, word) }) {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("the status never says all of %q:\n%s", words, out)
		}
	}
}

func ready(carrier string) func(control.Report) bool {
	return func(r control.Report) bool {
		return !slices.ContainsFunc(r.Processes, func(p control.Process) bool {
			return (carrier == "" || p.Carrier == carrier) && p.State != control.Ready
		})
	}
}

func find(r control.Report, name string) control.Process {
	return r.Processes[slices.IndexFunc(r.Processes, func(p control.Process) bool { return p.Name == name })]
}

// left are the processes of the town that run, whoever keeps them.
func (w *town) left() map[string]supervise.Identity {
	w.Helper()
	t, err := topology.Load(province.Layout(w.data).Topology())
	w.must(err)
	l, err := province.At(w.data)
	w.must(err)
	found, err := supervise.Find(province.Configs(l, t))
	w.must(err)
	return found
}

func TestUpAndDown(t *testing.T) {
	w := settle(t)
	out := w.up()
	for _, want := range []string{"unicom-backbone-1 ready", "ready: 24 processes", "mobile   middlestore", filepath.Join(w.data, "endpoints.json")} {
		if !strings.Contains(out, want) {
			t.Errorf("up did not say %q:\n%s", want, out)
		}
	}
	p, err := province.Find(w.data)
	w.must(err)
	if n := len(p.URLs("unicom", "nucleic")); n != 3 {
		t.Errorf("%d endpoints of nucleic", n)
	}
	out, code := w.qianma("up", "--bin", w.bin)
	if code != 1 || !strings.Contains(out, "runs already") || !strings.Contains(out, "qianma status") {
		t.Errorf("second up: exit code %d\n%s", code, out)
	}
	if out, code = w.qianma("up", "--bin", w.bin, "--detach"); code != 1 || !strings.Contains(out, "runs already") {
		t.Errorf("second up --detach: exit code %d\n%s", code, out)
	}
	w.works("down")
	if left := w.left(); len(left) != 0 {
		t.Errorf("after down there are %v", left)
	}
	if out := w.works("down"); !strings.Contains(out, "nothing of this province runs") {
		t.Errorf("second down: %s", out)
	}
}

// Goal: killing the supervisor kills nothing else, and the next one goes on
// with what runs. Method: kill -9 it, kill one daemon while nobody looks, up.
func TestTheSupervisorIsNoSinglePointOfFailure(t *testing.T) {
	w := settle(t)
	w.up()
	before := w.report()
	w.must(syscall.Kill(before.PID, syscall.SIGKILL))
	for syscall.Kill(before.PID, 0) == nil {
		if u, e := os.ReadFile(fmt.Sprintf("/proc/%d/stat", before.PID)); e == nil && strings.Contains(string(u), ") Z ") {
			break // dead; whoever inherited it has not looked yet
		}
		time.Sleep(time.Millisecond)
	}
	if left := w.left(); len(left) != 24 {
		t.Fatalf("%d of 24 processes outlived their supervisor", len(left))
	}
	w.says("no supervisor", "24 of 24 processes ready")
	victim := find(before, "mobile-vaccine-2")
	w.must(syscall.Kill(victim.PID, syscall.SIGKILL))

	w.works("up", "--bin", w.bin, "--detach", "--wait", patience.String())
	after := w.eventually("everything is ready", ready(""))
	for _, p := range before.Processes {
		now := find(after, p.Name)
		if same := now.PID == p.PID; same != (p.Name != victim.Name) {
			t.Errorf("%s had pid %d and has %d", p.Name, p.PID, now.PID)
		}
	}
}

func TestDownWithoutASupervisor(t *testing.T) {
	w := settle(t)
	w.up()
	w.must(syscall.Kill(w.report().PID, syscall.SIGKILL))
	for {
		if _, err := control.NewClient(w.data).Processes(context.Background(), control.Selector{}); err != nil {
			break
		}
	}
	w.works("down")
	if left := w.left(); len(left) != 0 {
		t.Errorf("after down there are %v", left)
	}
}

func TestHoldKillRelease(t *testing.T) {
	w := settle(t)
	w.up()
	w.works("kill", "--subsystem", "nucleic", "--hold")
	r := w.eventually("nucleic is held", func(r control.Report) bool {
		return !slices.ContainsFunc(r.Processes, func(p control.Process) bool { return p.Subsystem == "nucleic" && p.State != control.Held })
	})
	if len(r.Holds) != 1 {
		t.Errorf("holds %v", r.Holds)
	}
	w.says("restarts held off: nucleic", "18 of 24 processes ready")
	w.works("release", "--subsystem", "nucleic")
	w.eventually("nucleic is back", ready(""))
	if out, code := w.qianma("kill"); code != 1 || !strings.Contains(out, "nothing was picked") {
		t.Errorf("kill of nothing: %d %s", code, out)
	}
}

// Goal: a carrier that lost its disks comes back by itself, empty, as itself.
func TestADeletedCarrierComesBackEmpty(t *testing.T) {
	w := settle(t)
	w.up()
	ca, err := os.ReadFile(filepath.Join(w.data, "ca", "ca.pem"))
	w.must(err)
	born := filepath.Join(w.data, "unicom", "unicom-nucleic-1", "born")
	old, err := os.ReadFile(born)
	w.must(err)
	before := w.report()
	w.works("kill", "--carrier", "unicom", "--hold")
	w.must(os.RemoveAll(filepath.Join(w.data, "unicom")))
	w.works("release", "--all")
	after := w.eventually("unicom is back", ready(""))
	fresh, err := os.ReadFile(born)
	w.must(err)
	if bytes.Equal(old, fresh) {
		t.Error("unicom did not start empty")
	}
	if again, err := os.ReadFile(filepath.Join(w.data, "ca", "ca.pem")); err != nil || !bytes.Equal(ca, again) {
		t.Error("the authority changed")
	}
	for _, p := range before.Processes {
		if now := find(after, p.Name); p.Carrier == "mobile" && now.PID != p.PID {
			t.Errorf("%s was restarted", p.Name)
		}
	}
}

// Goal: with proxied links every process is dialled through a link that faults
// can be put on, and the links are kept like any other part.
func TestProxiedLinks(t *testing.T) {
	w := settle(t)
	if out := w.up("--links", "proxied"); !strings.Contains(out, "ready: 25 processes") {
		t.Errorf("up --links proxied:\n%s", out)
	}
	w.works("kill", "links")
	r := w.eventually("the links are back", func(r control.Report) bool {
		return find(r, "links").Restarts == 1 && find(r, "links").State == control.Ready
	})
	res, err := http.Get("http://" + find(r, "links").HTTP + "/links")
	w.must(err)
	defer http.DefaultClient.CloseIdleConnections()
	defer res.Body.Close()
	var links []struct{ To, Kind, Listen string }
	w.must(json.NewDecoder(res.Body).Decode(&links))
	if len(links) != 22+2*3 {
		t.Errorf("%d links", len(links))
	}
	w.works("down")
	if left := w.left(); len(left) != 0 {
		t.Errorf("after down there are %v", left)
	}
}

func TestOneCarrierThenTheOther(t *testing.T) {
	w := settle(t)
	if out := w.up("--carrier", "unicom"); !strings.Contains(out, "ready: 12 processes") {
		t.Errorf("up --carrier unicom:\n%s", out)
	}
	for _, p := range w.report().Processes {
		if (p.Carrier == "mobile") != (p.State == control.Stopped) {
			t.Errorf("%s is %s", p.Name, p.State)
		}
	}
	w.works("start", "--carrier", "mobile")
	w.eventually("mobile is ready", ready("mobile"))
}

// Goal: two provinces never share a port, and one whose ports were taken while
// it was down moves.
func TestProvincesKeepOffOneAnothersPorts(t *testing.T) {
	one, two := settle(t), settle(t)
	one.up()
	two.up()
	mine, err := topology.Load(province.Layout(one.data).Topology())
	one.must(err)
	theirs, err := topology.Load(province.Layout(two.data).Topology())
	two.must(err)
	seen := map[string]bool{}
	for _, p := range append(mine.Processes, theirs.Processes...) {
		for _, addr := range []string{p.HTTP, p.Node, p.NATS, p.Leaf, p.Cluster, p.Etcd, p.EtcdPeer} {
			_, port, _ := net.SplitHostPort(addr)
			if addr != "" && seen[addr] {
				t.Fatalf("%s is used twice", addr)
			}
			if seen[addr] = true; port >= "32768" {
				t.Errorf("%s %s lies where the kernel lends ports", p.Name, addr)
			}
		}
	}
	one.works("down")
	if stranger, err := net.Listen("tcp", mine.Processes[5].HTTP); err == nil { // else somebody has it, and is the stranger
		defer stranger.Close()
	}
	if out := one.works("up", "--bin", one.bin, "--detach", "--wait", patience.String()); !strings.Contains(out, "ready: 24 processes") {
		t.Errorf("up beside a stranger:\n%s", out)
	}
	moved, err := topology.Load(province.Layout(one.data).Topology())
	one.must(err)
	if moved.Processes[5].HTTP == mine.Processes[5].HTTP {
		t.Error("the province did not move")
	}
	p, err := province.Find(one.data)
	one.must(err)
	if got := p.URLs("unicom", "nucleic")[0]; got != "http://"+moved.Processes[0].HTTP {
		t.Errorf("endpoints.json still says %s", got)
	}
}

func TestForegroundStopsOnASignal(t *testing.T) {
	w := settle(t)
	cmd := w.command("up", "--data", w.data, "--bin", w.bin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr.Setpgid = true
	w.must(cmd.Start())
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		r, err := control.NewClient(w.data).Processes(ctx, control.Selector{})
		cancel()
		if err == nil && len(r.Processes) == 24 && ready("")(r) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("never ready: %v\n%s", err, out.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	// A terminal sends Ctrl-C to the whole group: the daemons must not be in it,
	// or they would not leave in order.
	w.must(syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
	w.must(cmd.Wait())
	if strings.Contains(out.String(), "killed by") {
		t.Errorf("daemons met the signal too:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "stopping: display, then nucleic and vaccine") {
		t.Errorf("said:\n%s", out.String())
	}
	if left := w.left(); len(left) != 0 {
		t.Errorf("after Ctrl-C there are %v", left)
	}
}

// `qianma up | head` must not leave a province without its supervisor.
func TestNobodyNeedsToRead(t *testing.T) {
	w := settle(t)
	cmd := w.command("up", "--data", w.data, "--bin", w.bin)
	r, stdout, err := os.Pipe()
	w.must(err)
	cmd.Stdout = stdout
	w.must(cmd.Start())
	w.Cleanup(func() { _ = cmd.Wait() })
	w.Cleanup(func() { w.works("down") })
	stdout.Close()
	r.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // until the control socket is there
		if _, err := control.NewClient(w.data).Processes(t.Context(), control.Selector{}); err == nil {
			break
		}
	}
	before := w.eventually("everything is ready", ready(""))
	w.works("kill", "unicom-nucleic-1") // has something said about it
	w.eventually("it came back, so somebody looks after it", func(r control.Report) bool {
		return find(r, "unicom-nucleic-1").PID != find(before, "unicom-nucleic-1").PID && ready("")(r)
	})
}

func TestStatusIsJSONForScripts(t *testing.T) {
	w := settle(t)
	w.up()
	w.works("kill", "unicom-display-2", "--hold")
	var r status.Report
	w.must(json.Unmarshal([]byte(w.works("status", "-o", "json")), &r))
	if r.Healthy || r.Supervisor == nil || len(r.Processes) != 24 {
		t.Errorf("report %+v", r)
	}
	if _, code := w.qianma("status", "--check"); code != 1 {
		t.Errorf("--check: exit code %d", code)
	}
}

func TestMistakesAreSaidPlainly(t *testing.T) {
	w := settle(t)
	for _, c := range []struct {
		verb string
		args []string
		code int
		says string
	}{
		{"status", nil, 1, "there is no province in"},
		{"kill", []string{"--all"}, 1, "there is no province in"},
		{"up", []string{"--bin", w.data}, 1, "make build"},
		{"up", []string{"--bin", w.bin, "--backbone", "2"}, 1, "use --backbone 1 or --backbone 3"},
		{"up", []string{"--bin", w.bin, "--carrier", "telecom"}, 1, "the carriers are unicom and mobile"},
		{"up", []string{"--bin", w.bin, "--shards", "display=0"}, 1, "use 1 to 64"},
		{"up", []string{"--bin", w.bin, "--nats", "unicom=nats://h:1"}, 1, "give both for every carrier"},
		{"fly", nil, 2, "qianma --help"},
		{"load", []string{"--nonsense"}, 64, "qianma --help"}, // 2 is the word for a broken ledger
		{"load", nil, 70, "start one with: qianma up"},
	} {
		out, code := w.qianma(c.verb, c.args...)
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("qianma %s %v: exit code %d, want %d and %q\n%s", c.verb, c.args, code, c.code, c.says, out)
		}
	}
}
