package loadtest

import (
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Goal: a report says how it was asked, and repeats nothing that may be a secret
// or a person's name.
func TestTheCommandLineIsRepeatedWithoutSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"/home/li/bin/qianma|load|scan|--rate=500|--duration|30s|-q|-o|json": "qianma load scan --rate=500 --duration 30s -q -o json",
		"qianma|load|run|day|--watch|-1|--mix=20:.7,1:.3|--plan=1-2:3s":      "qianma load run day --watch -1 --mix=20:.7,1:.3 --plan=1-2:3s",
		"qianma|load|--data=/home/li|--peer-set|password=x|--out|/home/li/r": "qianma load '--data=[left out]' --peer-set '[left out]' --out '[left out]'",
		"qianma|load|--token|abc|--password=abc|-pabc|abc":                   "qianma load --token '[left out]' '--password=[left out]' '[left out]' '[left out]'",
		"qianma|load|--carriers=a b|--carriers|it's":                         `qianma load --carriers='a b' --carriers 'it'\''s'`,
	} {
		if got := asked(strings.Split(in, "|")); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Goal: of each flag somebody has thought about whether its value may stand in a
// report. Method: the flags that kong knows.
func TestEachFlagIsHarmlessOrLeftOut(t *testing.T) {
	kept := strings.Fields("help data endpoints peer-dir peer-set out") // paths, and settings of a server
	for _, c := range []any{&RunCommand{}, &FindMaxCommand{}} {
		k, err := kong.New(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range k.Model.Flags {
			if slices.Contains(harmless, f.Name) == slices.Contains(kept, f.Name) {
				t.Errorf("--%s: its value is neither known to be harmless nor to be left out", f.Name)
			}
		}
	}
}
