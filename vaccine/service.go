// Package vaccine is the vaccine subsystem as a daemon: the rules of doses on
// the replicated floor, behind their HTTP door.
//
// It promises what its parts promise (see DESIGN.md) and knows nothing of
// nucleic, display or the middle store: others read its facts from the feed.
package vaccine

import (
	"fmt"
	"path/filepath"

	"qianma/cluster/identity"
	"qianma/cluster/node"
	"qianma/vaccine/api"
	"qianma/vaccine/rules"
)

// PersonKey is the file among the secrets that pseudonyms hang on.
const PersonKey = "person.key"

// Service is one running replica of the subsystem. Wait blocks until it must
// end, Close ends it; both are the node's.
type Service struct{ *node.Node }

// Open starts a replica and opens its doors.
func Open(cfg node.Config) (*Service, error) {
	hasher, err := identity.LoadHasher(filepath.Join(cfg.Secrets, PersonKey))
	if err != nil {
		return nil, fmt.Errorf("the province's secret of pseudonyms: %w", err)
	}
	n, err := node.Open(cfg, rules.New)
	if err != nil {
		return nil, err
	}
	api.New(api.Config{Proposer: n.Proposer(n.WatchLevel()), Hasher: hasher, Clock: n.Clock}).Register(n.Web)
	n.Serve()
	return &Service{n}, nil
}
