package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"qianma/cluster/leaktest"
	"qianma/loadtest/internal/fake"
	"qianma/loadtest/report"
)

// A generator that the command starts is this binary again.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "load" {
		leaktest.Main(m)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := command(ctx, os.Stdout, os.Stderr, os.Args[1:]...)
	stop()
	if err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error())
	}
	os.Exit(exitCode(err))
}

func command(ctx context.Context, stdout, stderr io.Writer, args ...string) error {
	var cli struct {
		Load Command `cmd:""`
	}
	parser, err := kong.New(&cli, kong.BindTo(ctx, (*context.Context)(nil)), kong.Writers(stdout, stderr), kong.Exit(func(int) {}))
	if err != nil {
		return err
	}
	k, err := parser.Parse(args)
	if err != nil {
		return err
	}
	return k.Run()
}

func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	var wrong *kong.ParseError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		return Usage // as qianma does
	case errors.As(err, &coded):
		return coded.ExitCode()
	}
	return 1 // as the command itself does
}

// run makes the command's run and returns what it printed and its exit code.
func runCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	err := command(t.Context(), &out, &errs, append([]string{"load"}, args...)...)
	if err != nil && exitCode(err) == 70 {
		t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	return out.String(), errs.String(), exitCode(err)
}

// loose lets a busy machine miss every objective of time.
var loose = []string{"--max-p99=10s", "--max-visible=20s", "--min-achieved=0.1"}

func TestTheDefaultRunPrintsTwoNumbersAndTheVerdict(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	out, _, code := runCommand(t, append(loose, "--data="+p.Dir, "--rate=200", "--duration=1s", "--people=1000", "--quiet")...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code == report.InvalidRun {
		t.Skip("this machine is too busy for a valid run")
	}
	if code != report.Held || len(lines) != 5 || !strings.Contains(lines[0], "tests/s   response p99") || lines[1] != "scan: objectives held" ||
		!strings.Contains(lines[2], " at unicom and mobile = visible 200; lost 0, wrong 0, repeated 0") || !strings.HasPrefix(lines[3], "facts: acknowledged ") ||
		!strings.HasPrefix(lines[4], "report: ") {
		t.Errorf("code %d:\n%s", code, out)
	}
	page, err := os.ReadFile(strings.TrimPrefix(lines[4], "report: "))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "objectives held", "visible at the other carrier", "processors by role"} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, never := range []string{"http://", "https://", "<script", "NaN", "%!"} {
		if bytes.Contains(page, []byte(never)) {
			t.Errorf("the page contains %q", never)
		}
	}
}

// The names of these fields are promised to programs.
var stable = strings.Fields(`profile offered_per_s achieved_per_s duration_s sent acked failed unknown dropped valid response_ms
	visible_ms lost repeated cpu_us_per_op disk_bytes_per_op generator_cpu_share machine commit
	not_measured retries refusals found_share stale_share cpu_us_per_op_settled settled_s facts`)

func TestJSONHasItsStableFields(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	out, _, _ := runCommand(t, "batch", "--data="+p.Dir, "--rate=1000", "--duration=1s", "--batch=100", "--quiet", "-o", "json")
	var got map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, f := range stable {
		if _, ok := got[f]; !ok {
			t.Errorf("no field %q", f)
		}
	}
	for _, f := range []string{"p50", "p90", "p99", "p999", "max"} {
		if !bytes.Contains(got["response_ms"], []byte(`"`+f+`"`)) {
			t.Errorf("response_ms has no %q", f)
		}
	}
}

func TestExitCodesTellMissedFromBroken(t *testing.T) {
	honest, liar := fake.New(t, fake.Lies{}), fake.New(t, fake.Lies{LoseEvery: 50})
	small := []string{"--rate=200", "--duration=1s", "--people=1000", "--quiet", "--settle=500ms"}
	if _, _, code := runCommand(t, append(small, "--data="+honest.Dir, "--max-p99=1us")...); code != report.Missed && code != report.InvalidRun {
		t.Errorf("an objective that cannot be kept: code %d", code)
	}
	out, _, code := runCommand(t, append(small, "--data="+liar.Dir, "--watch=-1")...)
	if code != report.LedgerBroke {
		t.Errorf("a liar: code %d\n%s", code, out)
	}
}

func TestAKeptLedgerCanBeCheckedAgain(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	runCommand(t, "--data="+p.Dir, "--rate=100", "--duration=1s", "--people=1000", "--quiet", "--out="+dir)
	out, _, code := runCommand(t, "check", dir, "--data="+p.Dir)
	if code != report.Held || !strings.Contains(out, "acknowledged 100, read back 100 of them at unicom and mobile = visible 100; lost 0") {
		t.Errorf("code %d: %s", code, out)
	}
	other := fake.New(t, fake.Lies{}) // knows nothing of that run
	raw, err := os.ReadFile(filepath.Join(p.Dir, "secrets", "person.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other.Dir, "secrets", "person.key"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, code = runCommand(t, "check", dir, "--data="+other.Dir, "--settle=100ms", "-o", "json")
	if code != report.LedgerBroke || !strings.Contains(out, `"lost":100`) {
		t.Errorf("code %d: %s", code, out)
	}
}

// Goal: three generators make one run: their tests are different people in
// different tubes, their counts add up, and the joint ledger is exact.
func TestSeveralGeneratorsMakeOneRun(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	out, _, code := runCommand(t, append(loose, "--data="+p.Dir, "--rate=300", "--duration=2s", "--people=10000", "--quiet", "--generators=3", "--out="+dir, "-o", "json")...)
	var res report.Result
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if res.Parts != 3 || res.Acked != 600 || res.OfferedPerS < 299 || res.OfferedPerS > 301 || res.Lost+res.Repeated+res.Wrong != 0 || res.Ledger.Visible != 600 {
		t.Errorf("code %d, parts %d, acked %d, offered %v, ledger %+v", code, res.Parts, res.Acked, res.OfferedPerS, res.Ledger)
	}
	if p.Swabs() != 600 {
		t.Errorf("the province holds %d swabs, want 600", p.Swabs())
	}
	merged := t.TempDir()
	out, _, _ = runCommand(t, "merge", dir+"/generator-1", dir+"/generator-2", dir+"/generator-3", "--data="+p.Dir, "--out="+merged, "-o", "json", "--min-achieved=0")
	var again report.Result
	if err := json.Unmarshal([]byte(out), &again); err != nil || again.Acked != 600 || again.Ledger.Visible != 600 {
		t.Errorf("merged by hand: %v %+v", err, again.Ledger)
	}
}

// Goal: a generator makes the run that was asked for: whatever can be said of a
// run's shape and of how to reach the province, its command line says again.
func TestAGeneratorIsToldAllOfTheRun(t *testing.T) {
	c := RunCommand{Quiet: true, Pprof: true}
	c.Positive, c.Cold, c.Plan, c.Mix = .25, .75, "7:8s", "10:1"
	c.Profile, c.Ack, c.Format, c.Split, c.Carriers = "batch", "replicated", "ndjson", []float64{.25, .75}, []string{"mobile", "unicom"}
	ours := map[string]bool{"ReadBack": true, "Settle": true} // the parent's own work
	each := func(of reflect.Value, do func(name string, v reflect.Value)) {
		for i := range of.NumField() {
			if name := of.Type().Field(i).Name; !ours[name] && name != "Target" && !strings.HasPrefix(name, "Peer") { // no generator starts a peer
				do(name, of.Field(i))
			}
		}
	}
	n := int64(2)
	fill := func(_ string, v reflect.Value) {
		if n++; !v.IsZero() {
			return
		}
		switch v.Kind() {
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Float64:
			v.SetFloat(float64(n) + .5)
		case reflect.Int, reflect.Int64:
			v.SetInt(n)
		case reflect.Uint32, reflect.Uint64:
			v.SetUint(uint64(n))
		case reflect.String:
			v.SetString("word")
		default:
			t.Fatalf("the test cannot fill in a %v", v.Type())
		}
	}
	each(reflect.ValueOf(&c.Shape).Elem(), fill)
	each(reflect.ValueOf(&c.Reach).Elem(), fill)
	var told RunCommand
	parser, err := kong.New(&told)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append(c.again(), "--unmetered")); err != nil {
		t.Fatal(err)
	}
	same := func(a, b reflect.Value) {
		each(a, func(name string, v reflect.Value) {
			if got := b.FieldByName(name); !reflect.DeepEqual(v.Interface(), got.Interface()) {
				t.Errorf("%s is %v here and %v for a generator", name, v, got)
			}
		})
	}
	same(reflect.ValueOf(c.Shape), reflect.ValueOf(told.Shape))
	same(reflect.ValueOf(c.Reach), reflect.ValueOf(told.Reach))
	if !told.Quiet || !told.Pprof {
		t.Errorf("quiet %v, pprof %v", told.Quiet, told.Pprof)
	}
}

// Goal: what an earlier run left in the directory is never taken for this one's.
func TestNothingOfAnEarlierRunIsMerged(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	small := []string{"--data=" + p.Dir, "--rate=100", "--duration=1s", "--quiet", "--generators=2", "--out=" + dir}
	runCommand(t, append([]string{"scan"}, small...)...)
	if err := emptied(dir); err != nil { // somebody removed that run, but not its generators'
		t.Fatal(err)
	}
	runCommand(t, append([]string{"display"}, small...)...)
	for _, d := range []string{".", "generator-1", "generator-2"} {
		if _, err := os.Stat(filepath.Join(dir, d, "ledger")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s has the ledger of a run that wrote nothing: %v", d, err)
		}
	}
	c := RunCommand{Generators: 2, Out: dir} // whose generators leave nothing
	dirs, err := c.children(t.Context(), "/bin/true", time.Now(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := mergeParts(dirs); err == nil {
		t.Error("results of an earlier run were merged")
	}
}

// Goal: a surge of several generators is one surge, and its report shows the
// whole of what was asked.
func TestSeveralGeneratorsMakeOneSurge(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{RefuseEvery: 3})
	out, _, _ := runCommand(t, "surge", "--data="+p.Dir, "--rate=300", "--duration=5s", "--people=10000", "--quiet", "--generators=2", "--draw=77", "--quantum=2ms", "--out="+t.TempDir(), "-o", "json")
	var res report.Result
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var refusals, bindings int64
	for _, s := range res.Streams {
		for kind, k := range s.Kinds {
			refusals += k.Refusal.Count()
			if kind == "register" {
				bindings += k.Refused
			}
		}
	}
	if s := res.Surge; s == nil || bindings == 0 || s.BindingRefused != bindings || s.RefusalMS.Count != refusals {
		t.Errorf("surge %+v; %d bindings were refused, in all there were %d refusals", s, bindings, refusals)
	}
	for name, want := range map[string]any{"gather_ms": .5, "timeout_s": 5., "patience_s": 5., "tries": 8., "generators": 2., "spread": false, "shared": false, "plan": "", "displays_per_s": 0.} {
		if got := res.Settings[name]; got != want {
			t.Errorf("the report has %s %v, want %v", name, got, want)
		}
	}
	if command, _ := res.Settings["command"].(string); command != asked(os.Args) {
		t.Errorf("the report was asked for by %q, and says %q", asked(os.Args), command)
	}
	if res.Settings["rate"] != 300. || res.Settings["draw"] != 77. || res.Settings["quantum_ms"] != 2. {
		t.Errorf("the report shows a rate of %v, drawn by %v, arrivals made together within %v ms", res.Settings["rate"], res.Settings["draw"], res.Settings["quantum_ms"])
	}
}

// Goal: of what several generators say, whoever waits reads a line at a time, and
// an error has the end of it.
func TestGeneratorsAreHeard(t *testing.T) {
	var heard []string
	said := &relay{one: new(sync.Mutex), say: func(s string) { heard = append(heard, s) }, name: "generator 2"}
	for _, piece := range []string{"ten\ntwen", "ty", "\nwhy\n"} { // as a pipe may cut it
		if n, err := said.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := []string{"generator 2: ten", "generator 2: twenty", "generator 2: why"}; !slices.Equal(heard, want) {
		t.Errorf("heard %q, want %q", heard, want)
	}
	if !strings.HasSuffix(string(said.last), "why\n") {
		t.Errorf("the end is %q", said.last)
	}
}

// Goal: a try of a search asks other people than the one before it, even where the
// draw was given, and says whom. Method: the reports of a search's tries, which are
// two at least whether a busy machine lets them be valid or not.
func TestFindMaxDrawsAnewForEachTry(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	runCommand(t, append([]string{"preload", "--data=" + p.Dir, "--people=1000", "--quiet", "--read-back=-1"}, loose...)...) // a display of nobody holds nothing
	runCommand(t, append([]string{"find-max", "display", "--data=" + p.Dir, "--out=" + dir, "--rate=50", "--ceiling=50", "--confirm=2", "--probe=1s", "--people=1000", "--draw=5", "--quiet"}, loose...)...)
	tries, err := filepath.Glob(filepath.Join(dir, "*", "result.json"))
	if err != nil || len(tries) < 2 {
		t.Fatalf("%d tries, %v", len(tries), err)
	}
	drawn := map[any]string{}
	for _, path := range tries {
		res, err := report.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		draw := res.Settings["draw"]
		if other, twice := drawn[draw]; twice || draw == nil {
			t.Errorf("%s drew %v, as %s", path, draw, other)
		}
		drawn[draw] = path
	}
}

func TestComparePrintsRatios(t *testing.T) {
	out, _, code := runCommand(t, "compare", result(t, "display", 100), result(t, "display", 200))
	if code != 0 || !strings.Contains(out, "offered per s                       100          200     2.00") {
		t.Errorf("code %d:\n%s", code, out)
	}
}

// Goal: a profile that does not exist is a mistake in the command line, found
// before anything is made. Method: it is asked for, and the directory looked at.
func TestAMisspeltProfileMakesNothing(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"load", "scann"}, {"load", "find-max", "scann"}} {
		var out bytes.Buffer
		var wrong *kong.ParseError
		if err := command(t.Context(), &out, &out, append(args, "--data="+dir)...); !errors.As(err, &wrong) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
}

// panicky panics at the first word.
type panicky struct {
	bytes.Buffer
	done bool
}

func (w *panicky) Write(p []byte) (int, error) {
	if !w.done {
		w.done = true
		panic("on purpose")
	}
	return w.Buffer.Write(p)
}

// Goal: a panic of the generator is not taken for a broken ledger, whose code
// Go gives to panics too.
func TestAPanicIsNoVerdict(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	var errs panicky
	err := command(t.Context(), io.Discard, &errs, "load", "--data="+p.Dir, "--rate=50", "--duration=1s", "--people=100")
	if exitCode(err) != CouldNotRun || !strings.Contains(errs.String(), "on purpose (a fault of qianma load") {
		t.Errorf("%v, code %d:\n%s", err, exitCode(err), errs.String())
	}
}

// Goal: whoever asked for less than the whole proof is told what is missing.
func TestWhatWasNotMeasuredIsNamed(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	out, _, _ := runCommand(t, append(loose, "--data="+p.Dir, "--rate=100", "--duration=1s", "--people=1000", "--quiet", "--watch=-1", "--read-back=-1", "--carriers=unicom")...)
	for _, want := range []string{"not measured: ", "visible at the one carrier there is p99 ms (no test was watched)", "the ledger was not read back"} {
		if !strings.Contains(out, want) {
			t.Errorf("no word of %q:\n%s", want, out)
		}
	}
}

func TestHelpNamesTheExitCodes(t *testing.T) {
	for _, args := range [][]string{{"load", "--help"}, {"load", "run", "--help"}, {"load", "find-max", "--help"}} {
		var out bytes.Buffer
		_ = command(t.Context(), &out, &out, args...) // whatever it makes of an exit that does not exit
		if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, "64 the command line cannot be read; 70 the run could not be made") {
			t.Errorf("%v:\n%s", args, out.String())
		}
	}
}

// Goal: a run whose output nobody reads any more ends as any other, with its report
// and its ledger read back. Method: a process whose terminal is a pipe to nobody.
func TestARunOutlivesItsReader(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	nobody, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	defer pipe.Close()
	cmd := exec.CommandContext(t.Context(), self, "load", "scan", "--data="+p.Dir, "--rate=100", "--duration=1s", "--people=1000", "--out="+dir)
	cmd.Stdout, cmd.Stderr = pipe, pipe
	_ = cmd.Run() // how it ended is in what it left
	if res, err := report.Load(dir); err != nil || res.Ledger == nil || res.Acked == 0 {
		t.Errorf("%v: %+v, %v", cmd.ProcessState, res, err)
	}
}
