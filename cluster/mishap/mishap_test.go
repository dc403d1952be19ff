package mishap

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/leaktest"
)

// The test binary plays the process that a mishap befalls.
const playEnv = "QIANMA_MISHAP_PLAY"

func TestMain(m *testing.M) {
	if play := plays[os.Getenv(playEnv)]; play != nil {
		play(os.Args[len(os.Args)-1])
		os.Exit(0)
	}
	leaktest.Main(m)
}

var quiet = slog.New(slog.DiscardHandler)

// plays are programs, by name; each is given its directory.
var plays = map[string]func(dir string){
	"files":  playFiles,
	"pebble": func(dir string) { playPebble(dir, pebble.Sync, false) },
	"hasty":  func(dir string) { playPebble(dir, pebble.NoSync, false) },
	"liar":   func(dir string) { playPebble(dir, pebble.Sync, true) },
	"reuse":  playReuse,
	"point": func(dir string) {
		open(dir)
		defer func() { _ = recover() }() // as a handler would
		BeforeReply.Hit()
	},
}

func open(dir string) *Kit {
	k, err := Open(dir, quiet)
	must(err)
	return k
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// order is one that is in force from now on.
func order(id string, kind Kind) Order {
	return Order{ID: id, Kind: kind, At: time.Now().Add(-time.Millisecond), Until: time.Now().Add(time.Hour)}
}

// die has the power cut, which must end this process.
func die(k *Kit) {
	must(Write(k.dir, order("cut", PowerCut)))
	_, _ = k.Look()
	panic("the process lives although its power was cut")
}

// run plays a program to its end and returns the last line it said.
func run(t *testing.T, play, dir string) (code int, last string) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^$", dir)
	c.Env = append(os.Environ(), playEnv+"="+play)
	out, err := c.CombinedOutput()
	var left *exec.ExitError
	if err != nil && !errors.As(err, &left) {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return c.ProcessState.ExitCode(), strings.Join(lines, "\n")
}

func write(fs vfs.FS, path, text string, sync bool) vfs.File {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	must(err)
	_, err = f.Write([]byte(text))
	must(err)
	if sync {
		must(f.Sync())
	}
	return f
}

func syncDir(fs vfs.FS, path string) {
	d, err := fs.OpenDir(path)
	must(err)
	must(d.Sync())
	must(d.Close())
}

func playFiles(dir string) {
	k := open(dir)
	fs := k.FS(vfs.Default)
	at := func(name string) string { return filepath.Join(dir, "d", name) }
	must(fs.MkdirAll(filepath.Join(dir, "d"), 0o700))
	syncDir(fs, dir)
	must(write(fs, at("kept"), "all of it", true).Close())
	half := write(fs, at("half"), "synced, ", true)
	must(write(fs, at("never"), "nothing of it", false).Close())
	must(write(fs, at("CURRENT"), "old", true).Close())
	must(write(fs, at("moved"), "m", true).Close())
	syncDir(fs, at(""))
	_, err := half.Write([]byte("not synced"))
	must(err)
	must(write(fs, at("nameless"), "synced, but not its name", true).Close())
	must(write(fs, at("CURRENT.tmp"), "new", true).Close())
	must(fs.Rename(at("CURRENT.tmp"), at("CURRENT")))
	must(fs.Rename(at("moved"), at("moved.new")))
	must(fs.MkdirAll(at("dir"), 0o700))
	must(write(fs, filepath.Join(at("dir"), "x"), "x", true).Close())
	die(k)
}

// Goal: after a power cut exactly what was synced is there, bytes and names,
// and nothing else. Method: a plain program is cut, and its directory is read
// with nothing of ours in between.
func TestPowerCutKeepsWhatWasSyncedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	if code, said := run(t, "files", dir); code != exitCut || !strings.Contains(said, "never synced") {
		t.Fatalf("left with %d: %s", code, said)
	}
	got := map[string]string{}
	err := filepath.WalkDir(filepath.Join(dir, "d"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			raw, _ := os.ReadFile(path)
			got[d.Name()] = string(raw)
		} else if err == nil {
			got[d.Name()+"/"] = ""
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"d/": "", "kept": "all of it", "half": "synced, ", "never": "", "CURRENT": "old", "moved": "m"}
	for name, text := range want {
		if have, ok := got[name]; !ok || have != text {
			t.Errorf("%s holds %q (there: %v), want %q", name, have, ok, text)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("what was never synced is still there: %v", got)
	}
	if left, _ := os.ReadDir(Dir(dir)); len(left) > 1 {
		t.Errorf("the order was not taken: %v", left)
	}
}

// playReuse overwrites a file, as a log file that is used again.
func playReuse(dir string) {
	k := open(dir)
	fs := k.FS(vfs.Default)
	must(write(fs, filepath.Join(dir, "1"), "aaaaaaaa", true).Close())
	syncDir(fs, dir)
	f, err := fs.ReuseForWrite(filepath.Join(dir, "1"), filepath.Join(dir, "2"), vfs.WriteCategoryUnspecified)
	must(err)
	syncDir(fs, dir)
	_, err = f.Write([]byte("bb"))
	must(err)
	must(f.SyncData())
	_, err = f.Write([]byte("cccccccccc"))
	must(err)
	die(k)
}

func TestPowerCutOfAFileThatIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	run(t, "reuse", dir)
	raw, err := os.ReadFile(filepath.Join(dir, "2"))
	if err != nil || string(raw) != "bb\x00\x00\x00\x00\x00\x00" {
		t.Errorf("holds %q, %v", raw, err)
	}
}

// playPebble acknowledges a value by a file that is written beside the kit.
func playPebble(dir string, how *pebble.WriteOptions, lie bool) {
	k := open(dir)
	opts := &pebble.Options{FS: k.FS(vfs.Default), Logger: silent{}}
	db, err := pebble.Open(filepath.Join(dir, "db"), opts)
	must(err)
	must(db.Set([]byte("before"), nil, pebble.Sync))
	if lie {
		must(Write(k.dir, order("lie", SyncLie)))
		_, err = k.Look()
		must(err)
	}
	must(db.Set([]byte("told"), nil, how))
	must(os.WriteFile(filepath.Join(dir, "acknowledged"), nil, 0o600))
	die(k)
}

type silent struct{}

func (silent) Infof(string, ...any)       {}
func (silent) Errorf(string, ...any)      {}
func (silent) Fatalf(f string, as ...any) { panic(f) }

// Goal: a store that syncs before it acknowledges keeps its word through a
// power cut; one that does not, or whose disk lies, is found out.
func TestAnAcknowledgementBeforeItsSyncIsCaught(t *testing.T) {
	for play, kept := range map[string]bool{"pebble": true, "hasty": false, "liar": false} {
		t.Run(play, func(t *testing.T) {
			dir := t.TempDir()
			if code, said := run(t, play, dir); code != exitCut {
				t.Fatalf("left with %d: %s", code, said)
			}
			if _, err := os.Stat(filepath.Join(dir, "acknowledged")); err != nil {
				t.Fatal(err)
			}
			db, err := pebble.Open(filepath.Join(dir, "db"), &pebble.Options{Logger: silent{}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			for key, want := range map[string]bool{"before": true, "told": kept} {
				_, c, err := db.Get([]byte(key))
				if (err == nil) != want {
					t.Errorf("%s: %v, want it there: %v", key, err, want)
				}
				if err == nil {
					c.Close()
				}
			}
		})
	}
}

// TestAPanicIsNotCaught: a point ends the process although its caller would
// recover, and the next process on the same directory starts sound.
func TestAPanicIsNotCaught(t *testing.T) {
	dir := t.TempDir()
	o := order("p", Panic)
	o.Point, o.Once = BeforeReply, true
	must(Write(Dir(dir), o))
	if code, said := run(t, "point", dir); code != 2 || !strings.Contains(said, "a drill ordered a panic at before-reply") {
		t.Errorf("left with %d: %s", code, said)
	}
	if code, said := run(t, "point", dir); code != 0 {
		t.Errorf("the next one left with %d: %s", code, said)
	}
	o.Once = false
	must(Write(Dir(dir), o))
	for range 2 {
		if code, _ := run(t, "point", dir); code != 2 {
			t.Errorf("an order that stays: left with %d", code)
		}
	}
}

// TestNobodyElseObeys: a process without a Kit is not reached by an order.
func TestNobodyElseObeys(t *testing.T) {
	var k *Kit
	if k.FS(vfs.Default) != vfs.Default || time.Until(k.Clock().Now()).Abs() > time.Minute {
		t.Error("a process that was not started for drills is changed")
	}
	k.Close()
	for p := range Points {
		p.Hit()
	}
	for j := range Jobs {
		if j.Omitted() {
			t.Errorf("%s is left out of a process that was not started for drills", j)
		}
	}
}

// TestWorkIsLeftOut: every Nth piece of the job that is named, no piece of
// another, and none any more when the order is gone.
func TestWorkIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	k := open(dir)
	defer k.Close()
	left := func(j Job) (n int) {
		for range 30 {
			if j.Omitted() {
				n++
			}
		}
		return n
	}
	o := order("p", Omit)
	o.Job, o.Nth = FoldFact, 3
	must(Write(Dir(dir), o))
	if _, err := k.Look(); err != nil {
		t.Fatal(err)
	}
	if got, other := left(FoldFact), left(PublishFacts); got != 10 || other != 0 {
		t.Errorf("%d of 30 pieces were left out, and %d of another job", got, other)
	}
	must(Remove(Dir(dir), o.ID))
	if _, err := k.Look(); err != nil || left(FoldFact) != 0 {
		t.Errorf("work is left out after the order is gone, %v", err)
	}
}

// TestAnOrderComesAndGoes: in force when the process is asked, gone when the
// file is, and by itself when its time is over.
func TestAnOrderComesAndGoes(t *testing.T) {
	dir := t.TempDir()
	k := open(dir)
	defer k.Close()
	fs := k.FS(vfs.Default)
	try := func() error {
		f, err := fs.Create(filepath.Join(dir, "f"), vfs.WriteCategoryUnspecified)
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		return err
	}
	look := func(want int) {
		t.Helper()
		if got, err := k.Look(); len(got) != want || err != nil {
			t.Errorf("orders %v, %v", got, err)
		}
	}
	for kind, want := range map[Kind]error{DiskFull: syscall.ENOSPC, SyncError: syscall.EIO} {
		must(try())
		must(Write(k.dir, order("o", kind)))
		must(try()) // nobody has asked yet
		look(1)
		if err := try(); !errors.Is(err, want) {
			t.Errorf("%s: %v", kind, err)
		}
		must(Remove(k.dir, "o"))
		must(Remove(k.dir, "o"))
		look(0)
		must(try())
	}
	o := order("short", DiskFull)
	for life := 50 * time.Millisecond; ; life *= 2 { // until it is looked at before it is over
		o.Until = time.Now().Add(life)
		must(Write(k.dir, o))
		got, err := k.Look()
		must(err)
		if len(got) == 1 {
			break
		}
	}
	for deadline := time.Now().Add(time.Minute); try() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("an order outlived its end")
		}
	}
	o = order("slow", DiskSlow)
	o.Delay = Span(20 * time.Millisecond)
	must(Write(k.dir, o))
	look(1)
	if start := time.Now(); try() != nil || time.Since(start) < 40*time.Millisecond {
		t.Errorf("a slow disk took %s", time.Since(start))
	}
}

// TestAnOrderWaitsForTheNextProcess: one that came while nobody ran is in
// force from the first moment of who starts then.
func TestAnOrderWaitsForTheNextProcess(t *testing.T) {
	dir := t.TempDir()
	must(Write(Dir(dir), order("o", DiskFull)))
	k := open(dir)
	defer k.Close()
	if err := k.FS(vfs.Default).MkdirAll(filepath.Join(dir, "x"), 0o700); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v", err)
	}
}

func TestOrdersAreHeldToTheirWord(t *testing.T) {
	good := order("x", DiskFull)
	must(good.Validate())
	for why, change := range map[string]func(*Order){
		"name":         func(o *Order) { o.ID = "../x" },
		"no name":      func(o *Order) { o.ID = "" },
		"kind":         func(o *Order) { o.Kind = "earthquake" },
		"point":        func(o *Order) { o.Kind, o.Point = Panic, "somewhere" },
		"job":          func(o *Order) { o.Kind, o.Job, o.Nth = Omit, "sleep", 1 },
		"no piece":     func(o *Order) { o.Kind, o.Job = Omit, FoldFact },
		"no end":       func(o *Order) { o.Until = time.Time{} },
		"no begin":     func(o *Order) { o.At = time.Time{} },
		"for ever":     func(o *Order) { o.Until = o.At.Add(LongestOrder + 1) },
		"no delay":     func(o *Order) { o.Kind = DiskSlow },
		"no jump":      func(o *Order) { o.Kind = ClockJump },
		"back in time": func(o *Order) { o.Kind, o.Rate = ClockDrift, -1 },
	} {
		o := good
		change(&o)
		if Write(t.TempDir(), o) == nil {
			t.Errorf("%s: nobody noticed", why)
		}
	}
	dir := t.TempDir()
	must(os.MkdirAll(Dir(dir), 0o700))
	must(os.WriteFile(filepath.Join(Dir(dir), "bad.json"), []byte("{"), 0o600))
	must(Write(Dir(dir), good))
	if got, err := Read(Dir(dir)); len(got) != 1 || err == nil {
		t.Errorf("read %v, %v", got, err)
	}
}

func TestClock(t *testing.T) {
	k := open(t.TempDir())
	defer k.Close()
	c := k.Clock()
	ahead := func() time.Duration { return time.Until(c.Now()) }
	const slack = time.Minute // what a busy machine may put between two readings
	jump, drift := order("j", ClockJump), order("d", ClockDrift)
	jump.Jump, drift.Rate = Span(-time.Hour), 0.5
	drift.At = drift.At.Add(-1000 * time.Second)
	must(Write(k.dir, jump))
	_, err := k.Look()
	must(err)
	if d := ahead(); (d + time.Hour).Abs() > slack {
		t.Errorf("after the jump it is %s ahead", d)
	}
	must(Remove(k.dir, "j"))
	must(Write(k.dir, drift))
	_, err = k.Look()
	must(err)
	if d := ahead(); (d - 500*time.Second).Abs() > slack {
		t.Errorf("after a thousand seconds of drift it is %s ahead", d)
	}
	must(Remove(k.dir, "d"))
	_, err = k.Look()
	must(err)
	if d := ahead(); d.Abs() > slack {
		t.Errorf("put right it is %s ahead", d)
	}
}

// TestEveryPlaceStandsSomewhere: a name in a list without a place in the code
// would be a drill that does nothing.
func TestEveryPlaceStandsSomewhere(t *testing.T) {
	if found := called(".Hit"); len(found) != len(Points) {
		t.Errorf("%d points are listed, these stand in the code: %v", len(Points), found)
	}
	if found := called(".Omitted"); len(found) != len(Jobs) {
		t.Errorf("%d jobs are listed, these stand in the code: %v", len(Jobs), found)
	}
}

// called counts, by name, the calls of a method on what this package exports.
func called(method string) map[string]int {
	found := map[string]int{}
	for _, root := range []string{"..", "../../middle-store", "../../display"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			raw, err := os.ReadFile(path)
			for _, part := range strings.Split(string(raw), "mishap.")[1:] {
				if name, ok := strings.CutSuffix(strings.SplitN(part, "(", 2)[0], method); ok {
					found[name]++
				}
			}
			return err
		})
		must(err)
	}
	return found
}

func BenchmarkHit(b *testing.B) {
	for b.Loop() {
		BeforeApply.Hit()
	}
}
