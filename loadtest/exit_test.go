package loadtest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qianma/loadtest/internal/fake"
	"qianma/loadtest/report"
)

// result is the file of a valid run, as one that had an idle machine would leave it.
func result(t *testing.T, profile string, offered float64) string {
	t.Helper()
	r := &report.Result{Profile: profile, Valid: true, OfferedPerS: offered, Streams: []report.Stream{{Name: "tests", OfferedPerS: offered}}}
	path := filepath.Join(t.TempDir(), "result.json")
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Goal: results of different profiles are not put side by side.
func TestDifferentProfilesAreNotCompared(t *testing.T) {
	of := func(profile string) string { return result(t, profile, 100) }
	err := command(t.Context(), io.Discard, io.Discard, "load", "compare", of("scan"), of("batch"))
	if exitCode(err) != Usage || !strings.Contains(err.Error(), "a scan run and a batch run cannot be compared") {
		t.Errorf("code %d, %v", exitCode(err), err)
	}
	if err := command(t.Context(), io.Discard, io.Discard, "load", "compare", of("scan"), of("scan")); err != nil {
		t.Error(err)
	}
}

// fills is a stderr that, at the first word of a run, makes its directory one in
// which nothing can be written.
type fills struct {
	t    *testing.T
	dir  string
	once bool
}

func (w *fills) Write(p []byte) (int, error) {
	if !w.once {
		w.once = true
		if err := errors.Join(os.RemoveAll(w.dir), os.WriteFile(w.dir, nil, 0o600)); err != nil {
			w.t.Error(err)
		}
	}
	return len(p), nil
}

// Goal: a disk that is full costs the files and not the figures. Method: a run
// whose directory is gone by the time it has something to write, and a file in
// its place.
func TestAFullDiskCostsTheFilesAlone(t *testing.T) {
	for output, want := range map[string]string{"text": "acknowledged 100, read back 100", "json": `"acked": 100,`} {
		p := fake.New(t, fake.Lies{})
		dir := filepath.Join(t.TempDir(), "out")
		var out bytes.Buffer
		err := command(t.Context(), &out, &fills{t: t, dir: dir}, "load", "scan", "--data="+p.Dir, "--rate=100", "--duration=1s", "--people=1000", "--out="+dir, "-o", output)
		if exitCode(err) != CouldNotRun || !strings.Contains(err.Error(), "could be read back and written down") {
			t.Errorf("%s: code %d, %v", output, exitCode(err), err)
		}
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "report: ") {
			t.Errorf("%s: printed\n%s", output, out.String())
		}
	}
}

// Goal: a ledger that cannot be written is still read back. Method: a directory
// with something in it stands where the ledger would.
func TestALedgerThatCannotBeKeptIsReadBack(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", 100, time.Second)
	o.Out = t.TempDir()
	if err := os.MkdirAll(filepath.Join(o.Out, "ledger", "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	res, _, err := Run(t.Context(), o)
	if err == nil || res == nil || res.Ledger == nil || res.Ledger.Visible != 100 {
		t.Fatalf("%v, %+v", err, res)
	}
}

// Goal: what was missed stands on stderr, whatever is on stdout.
func TestWhatWasMissedIsNamedBesideJSON(t *testing.T) {
	r := &report.Result{Profile: "scan", Valid: true, Checks: []report.Check{{What: "tests response p99 ms", Want: 1, Got: 2}}}
	if err := Outcome(r); exitCode(err) != report.Missed || err.Error() != "scan: objectives missed; tests response p99 ms 2.0, wanted 1.0" {
		t.Error(err)
	}
}
