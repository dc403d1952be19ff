package loadtest

import (
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
	if err := reachable(p.Endpoints, nil); err != nil {
		t.Error(err)
	}
	p.Stop("mobile")
	for _, args := range [][]string{{"scan"}, {"display"}, {"find-max", "scan"}, {"check", dir}, {"merge", dir, "--out=" + t.TempDir()}} {
		var out strings.Builder
		err := command(t.Context(), &out, &out, append(append([]string{"load"}, args...), "--data="+p.Dir)...)
		if exitCode(err) != CouldNotRun || !strings.Contains(err.Error(), "no endpoint of carrier mobile answers (") ||
			!strings.Contains(err.Error(), "is the province up? `qianma up`") || strings.Contains(err.Error(), "carrier unicom") {
			t.Errorf("%v: %v, code %d", args, err, exitCode(err))
		}
	}
	if err := reachable(p.Endpoints, []string{"unicom"}); err != nil {
		t.Error(err)
	}
	gone := p.Endpoints.Carriers["mobile"]["display"][0]
	p.Endpoints.Carriers["unicom"]["display"] = append([]string{gone}, p.Endpoints.Carriers["unicom"]["display"]...)
	if err := reachable(p.Endpoints, []string{"unicom"}); err != nil {
		t.Errorf("others of unicom are there: %v", err)
	}
}
