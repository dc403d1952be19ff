package loadtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"qianma/cluster/identity"
	"qianma/loadtest"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
)

// TestPhonesAskWhatDisplayAsks: another generator gets the people of the display
// profile in its order, each at one display node.
func TestPhonesAskWhatDisplayAsks(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	key := filepath.Join(data, "secrets", "person.key")
	if err := errors.Join(os.Mkdir(filepath.Dir(key), 0o700), identity.NewKey(key)); err != nil {
		t.Fatal(err)
	}
	endpoints, err := json.Marshal(map[string]any{"data": data, "carriers": map[string]any{
		"unicom": map[string]any{"display": []string{"http://a:1", "http://b:1"}},
		"mobile": map[string]any{"display": []string{"http://c:1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "endpoints.json"), endpoints, 0o600); err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	c := loadtest.PhonesCommand{Count: 50, People: 1000, Seed: 3, Draw: 4, Zipf: 1.1, Cold: .1, Data: data}
	if err := c.Run(&kong.Context{Kong: &kong.Kong{Stdout: &out}}); err != nil {
		t.Fatal(err)
	}
	hasher, err := identity.LoadHasher(key)
	if err != nil {
		t.Fatal(err)
	}
	people := population.New(3, 1000)
	draw := profiles.Draw(people, 4, 0, 1.1, .1)
	nodes := []string{"http://a:1", "http://b:1", "http://c:1"}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 50 {
		t.Fatalf("%d lines", len(lines))
	}
	home := map[string]string{}
	for i, line := range lines {
		node, person, _ := strings.Cut(line, "/v1/code?person=")
		want := hasher.Person(identity.Document{Kind: identity.Resident, Number: string(people.AppendNumber(nil, draw.Next()))})
		if person != want.String() || !slices.Contains(nodes, node) || home[person] != "" && home[person] != node {
			t.Fatalf("line %d is %s, want %s, who was at %q", i, line, want, home[person])
		}
		home[person] = node
	}
	if all := slices.Compact(slices.Sorted(maps.Values(home))); len(all) != len(nodes) {
		t.Errorf("only %v were asked", all)
	}
}
