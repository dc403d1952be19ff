package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func province() *Topology {
	t := &Topology{Province: "guizhou", Carriers: []string{"unicom", "mobile"}, Shards: map[string]int{"nucleic": 4}}
	for _, c := range t.Carriers {
		for _, s := range []string{"nucleic", "display"} {
			for n := 1; n <= 3; n++ {
				t.Processes = append(t.Processes, Process{
					Name: fmt.Sprintf("%s-%s-%d", c, s, n), Carrier: c, Subsystem: s, Ordinal: n,
					Node: fmt.Sprintf("127.0.0.1:%d", 4000+len(t.Processes)), HTTP: fmt.Sprintf("127.0.0.1:%d", 5000+len(t.Processes)),
				})
			}
		}
	}
	return t
}

func names(ps []Process) (out []string) {
	for _, p := range ps {
		out = append(out, p.Name)
	}
	return out
}

func TestLookingUp(t *testing.T) {
	p := province()
	if got, ok := p.Find("mobile-display-2"); !ok || got.Carrier != "mobile" || got.Ordinal != 2 {
		t.Errorf("%+v %v", got, ok)
	}
	if _, ok := p.Find("mobile-display-4"); ok {
		t.Error("found what is not there")
	}
	if got := names(p.Select("unicom", "nucleic")); !slices.Equal(got, []string{"unicom-nucleic-1", "unicom-nucleic-2", "unicom-nucleic-3"}) {
		t.Error(got)
	}
	if got := len(p.Select("", "display")); got != 6 {
		t.Error(got)
	}
	if got := len(p.Select("", "")); got != 12 {
		t.Error(got)
	}
	if got := p.Others("unicom"); !slices.Equal(got, []string{"mobile"}) || len(p.Carriers) != 2 {
		t.Error(got, p.Carriers)
	}
	if p.ShardsOf("nucleic") != 4 || p.ShardsOf("display") != 1 || (&Topology{}).ShardsOf("x") != 1 {
		t.Error("shards")
	}
}

// An ordinal is the order, whatever the file's.
func TestSelectIsInOrderOfOrdinals(t *testing.T) {
	p := province()
	slices.Reverse(p.Processes)
	if got := names(p.Select("unicom", "nucleic")); !slices.Equal(got, []string{"unicom-nucleic-1", "unicom-nucleic-2", "unicom-nucleic-3"}) {
		t.Error(got)
	}
}

func TestFileRoundTrips(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "topology.json")
	want := province()
	for range 2 { // the second replaces the first
		if err := want.Save(path); err != nil {
			t.Fatal(err)
		}
		want.Shards["vaccine"] = 2
	}
	delete(want.Shards, "vaccine")
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got.Processes, want.Processes) || got.Shards["nucleic"] != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Fatalf("%v are left, %v", left, err)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "topology.json")
	if _, err := Load(path); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(`{"processes":[`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if err := province().Save(filepath.Join(dir, "none", "x")); err == nil {
		t.Error("saved to nowhere")
	}
}

// A newer build's file may say more than this one understands.
func TestUnknownFieldsAreLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "topology.json")
	if err := os.WriteFile(path, []byte(`{"province":"guizhou","carriers":["unicom"],"novel":{},"processes":[{"name":"a","carrier":"unicom","novel":1}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(path); err != nil || len(got.Processes) != 1 {
		t.Error(got, err)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	p := province()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	p.Processes[0].Name = ""
	p.Processes[2].Name = p.Processes[1].Name
	p.Processes[3].Carrier = "telecom"
	err := p.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{`""`, `"unicom-nucleic-2"`, `"telecom"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
