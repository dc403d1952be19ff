package province

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"qianma/cluster/identity"
)

// Endpoints says where a province listens: data/endpoints.json, or a file of
// the same form that somebody wrote by hand.
type Endpoints struct {
	Province string                         `json:"province"`
	Data     string                         `json:"data"`
	Carriers map[string]map[string][]string `json:"carriers"` // carrier -> subsystem -> base addresses
}

// LoadEndpoints reads the file, or endpoints.json in a data directory.
func LoadEndpoints(path string) (*Endpoints, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "endpoints.json")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("no province to load: %w (start one with: qianma up)", err)
	}
	e := new(Endpoints)
	if err := json.Unmarshal(raw, e); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if e.Data == "" {
		e.Data = filepath.Dir(path)
	}
	if len(e.Carriers) == 0 {
		return nil, fmt.Errorf("%s names no carrier", path)
	}
	return e, nil
}

// Hasher is the province's own, where its key can be read.
func (e *Endpoints) Hasher() (*identity.Hasher, error) {
	return identity.LoadHasher(filepath.Join(e.Data, "secrets", "person.key"))
}

// Pick returns the carriers in a stable order: those asked for, or all with
// unicom first.
func (e *Endpoints) Pick(want []string) ([]string, error) {
	all := slices.Sorted(maps.Keys(e.Carriers))
	slices.Reverse(all) // unicom before mobile, as everywhere in the house
	if len(want) == 0 {
		return all, nil
	}
	for _, c := range want {
		if !slices.Contains(all, c) {
			return nil, &NoCarrier{c, all}
		}
	}
	return want, nil
}

// NoCarrier is a carrier that was asked for and that the province does not have.
type NoCarrier struct {
	Name string
	All  []string
}

func (e *NoCarrier) Error() string {
	return fmt.Sprintf("--carriers is %s: it must be of %s, which are this province's", e.Name, strings.Join(e.All, ","))
}
