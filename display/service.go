// Package display is the display subsystem as a daemon: citizens, restrictions
// and rule sets on the replicated floor, codes from the middle stores, behind
// one HTTP door.
//
// It promises what its parts promise (see DESIGN.md): a code is shown as long
// as this one process lives. It knows nothing of nucleic or vaccine: what it
// knows of tests and doses, a middle store told it.
package display

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"qianma/cluster/identity"
	"qianma/cluster/node"
	"qianma/display/api"
	"qianma/display/rules"
	"qianma/display/source"
	"qianma/display/vault"
)

// PersonKey is the file among the secrets that pseudonyms hang on.
const PersonKey = "person.key"

// Service is one running replica of the subsystem. Wait blocks until it must
// end, Close ends it.
type Service struct {
	*node.Node
	source *source.Source
	kept   *source.Copy
}

// secrets are what a display process must have been given.
type secrets struct {
	hasher *identity.Hasher
	vault  *vault.Vault
	keys   *api.Keyring
}

func loadSecrets(cfg node.Config) (s secrets, err error) {
	if s.hasher, err = identity.LoadHasher(filepath.Join(cfg.Secrets, PersonKey)); err != nil {
		return s, fmt.Errorf("the province's secret of pseudonyms: %w", err)
	}
	if s.vault, err = vault.Load(filepath.Join(cfg.Secrets, vault.KeyFile)); err != nil {
		return s, fmt.Errorf("the province's secret of names: %w", err)
	}
	s.keys, err = api.OpenKeyring(cfg.Secrets, cfg.Carrier)
	return s, err
}

// Open starts a replica and opens its doors.
func Open(cfg node.Config) (*Service, error) {
	given, err := loadSecrets(cfg)
	if err != nil {
		return nil, err
	}
	cache := api.NewCache(0, 0)
	n, err := node.Open(cfg, rules.Factory(cache))
	if err != nil {
		return nil, err
	}
	s := &Service{Node: n}
	if err := s.openSource(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	api.New(api.Config{
		Name: cfg.Name, Carrier: cfg.Carrier, Proposer: n.Replica, Heard: n.Heard, Others: n.WatchLevel().AsOf, Source: s.source,
		Hasher: given.hasher, Vault: given.vault, Keys: given.keys, Cache: cache, Clock: n.Clock, Logger: n.Log,
	}).Register(n.Web)
	n.Serve()
	return s, nil
}

// lookup is the kind of call that breakers know middle stores by.
const lookup = "lookup"

func (s *Service) openSource() (err error) {
	n := s.Node
	n.Breakers.Fallback(lookup, "the carrier's other middle store, the other carrier's, then the last-known copy")
	if s.kept, err = source.OpenCopy(source.CopyConfig{Dir: filepath.Join(n.Config.Dir, "last-known"), FS: n.FS, Clock: n.Clock, Logger: n.Log}); err != nil {
		return err
	}
	own, others := s.stores()
	s.source, err = source.Open(source.Config{
		Caller: n.Calls, Guard: n.Breakers, Own: own, Others: others, Copy: s.kept,
		Fell:  func() { n.Breakers.Fell(lookup) },
		Clock: n.Clock, Logger: n.Log, Metrics: n.Web.Metrics(),
	})
	return err
}

// stores lists the middle stores: those of this carrier first. Each display
// process begins with another one, so that together they ask all of them.
func (s *Service) stores() (own, others []string) {
	n := s.Node
	self, _ := n.Topology.Find(n.Config.Name)
	for _, p := range n.Topology.Select(n.Config.Carrier, "middlestore") {
		own = append(own, p.Name)
	}
	for _, carrier := range n.Topology.Others(n.Config.Carrier) {
		for _, p := range n.Topology.Select(carrier, "middlestore") {
			others = append(others, p.Name)
		}
	}
	return turned(own, self.Ordinal), turned(others, self.Ordinal)
}

func turned(names []string, by int) []string {
	if len(names) == 0 {
		return nil
	}
	by %= len(names)
	return slices.Concat(names[by:], names[:by])
}

// Close ends the service: the door, what answers behind it, then the floor.
// It may be called twice.
func (s *Service) Close() error {
	err := s.Node.Close() // ends the door first: no request is left when the rest goes
	if s.source != nil {
		err = errors.Join(err, s.source.Close())
	}
	if s.kept != nil {
		err = errors.Join(err, s.kept.Close())
	}
	return err
}
