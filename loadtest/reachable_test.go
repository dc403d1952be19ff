package loadtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qianma/loadtest/internal/fake"
)

// Goal: nobody is loaded who is not there, by any command: each says so at once, and
// whose carrier it is. One that is there at one endpoint is loaded.
func TestAProvinceThatIsDownIsNotLoaded(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	runCommand(t, "--data="+p.Dir, "--rate=100", "--duration=1s", "--people=1000", "--quiet", "--out="+dir, "--read-back=-1")
	if err := reachable(p.Endpoints, nil, []string{"nucleic", "display"}); err != nil {
		t.Error(err)
	}
	p.Stop("mobile")
	for _, args := range [][]string{{"scan"}, {"display"}, {"find-max", "scan"}, {"check", dir}, {"merge", dir, "--out=" + t.TempDir()}} {
		var out strings.Builder
		err := command(t.Context(), &out, &out, append(append([]string{"load"}, args...), "--data="+p.Dir)...)
		if exitCode(err) != CouldNotRun || !strings.Contains(err.Error(), " endpoint of carrier mobile answers (") ||
			!strings.Contains(err.Error(), "is the province up? `qianma status`, `qianma up`") || strings.Contains(err.Error(), "carrier unicom") {
			t.Errorf("%v: %v, code %d", args, err, exitCode(err))
		}
	}
	if err := reachable(p.Endpoints, []string{"unicom"}, []string{"display"}); err != nil {
		t.Error(err)
	}
	gone := p.Endpoints.Carriers["mobile"]["display"][0]
	p.Endpoints.Carriers["unicom"]["display"] = append([]string{gone}, p.Endpoints.Carriers["unicom"]["display"]...)
	if err := reachable(p.Endpoints, []string{"unicom"}, []string{"display"}); err != nil {
		t.Errorf("others of unicom are there: %v", err)
	}
}

// Goal: a run for a subsystem of which nobody is there is not made, though others of
// the carrier answer: it would be a row of timeouts and "visible after 30 s".
func TestASubsystemThatIsDownIsNotLoaded(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	gone := fake.New(t, fake.Lies{})
	gone.Stop("unicom")
	p.Endpoints.Carriers["unicom"]["nucleic"] = gone.Endpoints.Carriers["unicom"]["nucleic"]
	for profile, down := range map[string]bool{"scan": true, "batch": true, "preload": true, "day": true, "surge": true, "display": false, "verify": false, "midnight": false, "": false} {
		err := reachable(p.Endpoints, nil, asks(profile))
		if down && (err == nil || !strings.Contains(err.Error(), "no nucleic endpoint of carrier unicom answers")) || !down && err != nil {
			t.Errorf("%q: %v", profile, err)
		}
	}
}

// Goal: a run's ledger is not overwritten by the next one.
func TestADirectoryThatHoldsARunIsNotTaken(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	dir := t.TempDir()
	args := []string{"load", "scan", "--data=" + p.Dir, "--rate=100", "--duration=1s", "--people=1000", "--quiet", "--out=" + dir}
	var out strings.Builder
	if err := command(t.Context(), &out, &out, args...); exitCode(err) > 3 {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	err = command(t.Context(), &out, &out, args...)
	if exitCode(err) != Usage || !strings.Contains(err.Error(), "it holds a run already (result.json)") {
		t.Errorf("%v, code %d", err, exitCode(err))
	}
	if after, err := os.ReadFile(filepath.Join(dir, "ledger")); err != nil || !bytes.Equal(before, after) {
		t.Error("the ledger is another one: ", err)
	}
}
