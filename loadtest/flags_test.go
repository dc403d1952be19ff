package loadtest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"qianma/loadtest/internal/fake"
	"qianma/loadtest/profiles"
)

// Goal: what cannot be meant is refused before anything is looked for or made,
// with the code of a command line that cannot be read and one line that names the
// flag, its value and what is allowed. Method: there is no province, so what is
// accepted ends with 70.
func TestValuesThatCannotBeMeantAreRefused(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]string{
		"scan --rate=-5":                    "--rate is -5: it must be above 0",
		"scan --rate=NaN":                   "--rate is NaN",
		"scan --rate=Inf":                   "--rate is +Inf",
		"scan --rate=abc":                   "--rate",
		"scan --positive 7":                 "--positive is 7: it must be from 0 to 1",
		"display --cold 7":                  "--cold is 7: it must be from 0 to 1",
		"display --cold=-1":                 "--cold is -1: it must be from 0 to 1",
		"display --zipf=-1":                 "--zipf is -1: it must be above 0",
		"scan --booths=-1":                  "--booths is -1: it must be 1 or more",
		"scan --closed=-4":                  "--closed is -4: it must be 0 or more",
		"scan --tries 0":                    "--tries is 0: it must be 1 or more",
		"scan --tries=-1":                   "--tries is -1: it must be 1 or more",
		"scan --quantum=0s":                 "--quantum is 0s: it must be above 0",
		"scan --gather=-1s":                 "--gather is -1s: it must be from 0 to 20ms",
		"scan --gather=3s":                  "--gather is 3s: it must be from 0 to 20ms",
		"scan --quantum=10s":                "--quantum is 10s: it must be above 0 and 20ms at most",
		"scan --rate=1e9":                   "--rate is 1e+09: it must be above 0 and 1000000 at most",
		"day --displays=2e6":                "--displays is 2e+06: it must be from 0 to 1000000",
		"scan --plan=1-2000000:1s":          "--plan is 1-2000000:1s: it must ask for 1000000 a second at most",
		"scan --timeout=-1s":                "--timeout is -1s: it must be above 0",
		"scan --settle=-1s":                 "--settle is -1s: it must be above 0",
		"scan --connections=-4":             "--connections is -4: it must be 0 or more",
		"scan --peer-workers=-4":            "--peer-workers is -4: it must be 0 or more",
		"scan --max-p99=-5ms":               "--max-p99 is -5ms: it must be above 0, or 0 for none",
		"scan --max-visible=-5ms":           "--max-visible is -5ms: it must be above 0, or 0 for none",
		"scan --max-cpu=-1":                 "--max-cpu is -1: it must be 0 or more",
		"scan --max-failed 7":               "--max-failed is 7: it must be a share of 1 at most",
		"scan --min-achieved 7":             "--min-achieved is 7: it must be from 0 to 1",
		"surge --min-goodput=-1":            "--min-goodput is -1: it must be 0 or more",
		"scan --read-back=-7":               "--read-back is -7: it must be 1 or more, 0 for all or -1 for nobody",
		"scan --watch=-7":                   "--watch is -7: it must be 0 or more, or -1 for none",
		"scan --people 0":                   "--people is 0: it must be from 1 to 500000000",
		"scan --people 600000000":           "--people is 600000000: it must be from 1 to 500000000",
		"scan --duration 0s":                "--duration is 0s: it must be above 0",
		"scan --warm=-1s":                   "--warm is -1s: it must be 0 or more",
		"scan --warm 31s":                   "--warm is 31s: it must be half of the run's 1m0s at most",
		"scan --plan 100:10s --warm 6s":     "--warm is 6s: it must be half of the run's 10s at most",
		"scan --plan foo":                   "--plan is foo: phase",
		"scan --plan 5:10s --duration 20s":  "--duration is 20s: --plan says how long",
		"surge --plan 100:1s":               "--plan is 100:1s: surge has its own shape",
		"midnight --plan 100:1s":            "--plan is 100:1s: midnight has its own shape",
		"scan --mix bogus":                  "--mix is bogus: pool",
		"scan --mix 20:.5":                  "--mix is 20:.5: the shares",
		"scan --split 0,0":                  "--split is [0 0]: it must be above 0 for some carrier",
		"scan --split=-1,2":                 "--split is -1: it must be a share",
		"scan --split NaN,1":                "--split is NaN: it must be a share",
		"scan --carriers unicom,unicom":     "--carriers is unicom,unicom: it must be each carrier once",
		"batch --batch 0":                   "--batch is 0: it must be from 1 to 1000",
		"batch --batch=-5":                  "--batch is -5: it must be from 1 to 1000",
		"batch --batch 5000":                "--batch is 5000: it must be from 1 to 1000",
		"day --displays=-4":                 "--displays is -4: it must be from 0 to 1000000",
		"midnight --wave 0s":                "--wave is 0s: it must be above 0",
		"scan --generators 0":               "--generators is 0: it must be from 1 to 64",
		"scan --generators 1000":            "--generators is 1000: it must be from 1 to 64",
		"scan --generators 2 --target etcd": "--generators is 2: each would start a etcd",
		"scan --generators 3 --closed 2":    "--closed is 2: that leaves some of 3 generators nothing",
		"scan --part 2 --parts 2":           "--part is 2: it must be below the 2 --parts",
		"surge --closed 2":                  "--closed is 2: surge is a shape of arrivals",
		"midnight --closed 2":               "--closed is 2: midnight is a shape of arrivals",
		// What a profile has no use for is not ignored.
		"scan --displays 40":     "--displays is 40: scan has no use for it, it is for batch, day, surge",
		"scan --wave 3s":         "--wave is 3s: scan has no use for it, it is for midnight",
		"scan --batch 7":         "--batch is 7: scan has no use for it",
		"scan --batch 500":       "--batch is 500: scan has no use for it", // its default, and typed all the same
		"scan --format ndjson":   "--format is ndjson: scan has no use for it",
		"day --min-goodput 5":    "--min-goodput is 5: day has no use for it, it is for surge",
		"display --booths 5":     "--booths is 5: display has no use for it",
		"display --positive .5":  "--positive is 0.5: display has no use for it",
		"scan --zipf 2":          "--zipf is 2: scan has no use for it",
		"preload --duration 20s": "--duration is 20s: preload lasts until everybody is loaded",
		// Of the search.
		"find-max scan --duration 30s":           "--duration is 30s: it is of no use in find-max, where each try lasts as long as --probe says",
		"find-max scan --probe 0s":               "--probe is 0s: it must be above 0",
		"find-max scan --confirm 0":              "--confirm is 0: it must be 1 or more",
		"find-max scan --tolerance=-1":           "--tolerance is -1: it must be from 0.001 to 1",
		"find-max scan --ceiling=-1":             "--ceiling is -1: it must be above 0, or 0 for none",
		"find-max scan --warm 11s":               "--warm is 11s: it must be half of the run's 20s at most",
		"find-max scan --plan 100:100ms":         "--plan is 100:100ms: find-max looks for a rate",
		"find-max scan --closed 5":               "--closed is 5: find-max offers rates",
		"find-max midnight":                      "find-max cannot search it",
		"find-max scan --batch 1":                "--batch is 1: scan has no use for it",
		"find-max scan --positive 7":             "--positive is 7",
		"find-max scan --tries 0":                "--tries is 0",
		"find-max scan --max-cpu=-1":             "--max-cpu is -1",
		"check nowhere --read-back=-7":           "--read-back is -7",
		"merge nowhere --out x --min-achieved 7": "--min-achieved is 7",
		"merge nowhere --out x --connections=-4": "--connections is -4",
		"phones --people 0":                      "--people is 0",
		"phones --cold 7":                        "--cold is 7",
		"day --positive 7 --cold 7":              "--positive is 7: it must be from 0 to 1; --cold is 7",
	} {
		args := append([]string{"load"}, strings.Fields(line)...)
		err := command(t.Context(), io.Discard, io.Discard, append(args, "--data="+dir)...)
		if exitCode(err) != Usage {
			t.Errorf("%s: code %d, %v", line, exitCode(err), err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) || strings.Contains(text, "\n") {
			t.Errorf("%s: %q lacks %q", line, text, want)
		}
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("made %v, %v", made, err)
	}
}

// Goal: nothing that was meant is refused. Method: there is no province, and the
// command gets as far as to look for it.
func TestValuesThatAreMeantAreAccepted(t *testing.T) {
	for _, line := range []string{
		"scan --rate 0 --positive 1 --tries 1 --gather 0s --max-p99 0 --max-failed=-1 --read-back=-1 --watch=-1 --booths 3",
		"batch --displays 40 --batch 1000 --format ndjson --cold 1",
		"day --displays 40 --plan 100:10s --rate 5",
		"surge --min-goodput 5 --roam",
		"midnight --wave 3s",
		"preload --people 500000000 --batch 1",
		"verify --closed 4 --cold 0",
		"display --endpoint /nowhere",
		"find-max batch --probe 15s --warm 5s --batch 100",
		"scan --unmetered --parts 2 --part 1 --displays 0 --wave 10s --batch 500", // as one of several generators is told
	} {
		err := command(t.Context(), io.Discard, io.Discard, append(append([]string{"load"}, strings.Fields(line)...), "--data="+t.TempDir())...)
		if exitCode(err) != CouldNotRun || !strings.Contains(err.Error(), "no province to load") {
			t.Errorf("%s: code %d, %v", line, exitCode(err), err)
		}
	}
}

// Goal: what can be judged only when the carriers are known is a mistake in the
// command line all the same.
func TestCarriersThatAreNotThereAreRefused(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	for line, want := range map[string]string{
		"scan --carriers telecom":            "--carriers is telecom: it must be of unicom,mobile",
		"phones --carriers telecom":          "--carriers is telecom: it must be of unicom,mobile",
		"scan --split 1 --duration 1s":       "--split is [1]: it must be a share for each of unicom,mobile",
		"find-max scan --split 1,2,3":        "--split is [1 2 3]: it must be a share for each of unicom,mobile",
		"scan --split 1,2 --carriers unicom": "--split is [1 2]: it must be a share for each of unicom",
	} {
		err := command(t.Context(), io.Discard, io.Discard, append(append([]string{"load"}, strings.Fields(line)...), "--data="+p.Dir)...)
		if exitCode(err) != Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: code %d, %v", line, exitCode(err), err)
		}
	}
}

// Goal: the tables that profiles are explained and refused by know every profile.
func TestEveryProfileIsExplained(t *testing.T) {
	var out bytes.Buffer
	_ = command(t.Context(), &out, &out, "load", "scan", "--help")
	for _, p := range profiles.Names {
		if usual[p.Name] <= 0 || !strings.Contains(out.String(), "    "+p.Name+" ") || !strings.Contains(out.String(), p.What) {
			t.Errorf("no word of %s, or it has no rate:\n%s", p.Name, out.String())
		}
	}
	for _, want := range []string{
		"10000 tests a second; held: tests p99 250 ms, visible p99 1,000 ms, 99.0% acknowledged in time, none failed",
		"1000 displays a second; held: displays p99 1,000 ms, none failed, 50.0% of the displays show a test",
		"as before after 5.0 s, refusals p99 10.0 ms",
		"What is printed: text,json.",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the help lacks %q:\n%s", want, out.String())
		}
	}
	for flag, who := range users {
		for _, name := range who {
			if usual[name] == 0 {
				t.Errorf("--%s is for %s, which is no profile", flag, name)
			}
		}
	}
}
