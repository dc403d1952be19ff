package loadtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"qianma/cluster/identity"
	"qianma/loadtest"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
)

// TestPhonesAskWhatDisplayAsks: another generator gets the people of the display
// profile in its order, and every display node in turn.
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
	for i, line := range lines {
		person := hasher.Person(identity.Document{Kind: identity.Resident, Number: string(people.AppendNumber(nil, draw.Next()))})
		if want := nodes[i%3] + "/v1/code?person=" + person.String(); line != want {
			t.Fatalf("line %d is %s, want %s", i, line, want)
		}
	}
}
