// Package nucleic is the nucleic subsystem as a daemon: the rules of testing
// on the replicated floor, behind their HTTP door.
//
// It promises what its parts promise (see DESIGN.md) and knows nothing of
// vaccine, display or the middle store: others read its facts from the feed.
package nucleic

import (
	"fmt"
	"path/filepath"

	"qianma/cluster/identity"
	"qianma/cluster/machine"
	"qianma/cluster/node"
	"qianma/cluster/topology"
	"qianma/nucleic/api"
	"qianma/nucleic/rules"
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
	t, err := topology.Load(cfg.Topology)
	if err != nil {
		return nil, err
	}
	tubes := max(cfg.MemoryMiB, 256) << 20 / 4 / max(1, t.ShardsOf(cfg.Subsystem)) // bytes: a quarter of all
	n, err := node.Open(cfg, func(int) machine.Machine { return rules.New(tubes) })
	if err != nil {
		return nil, err
	}
	api.New(api.Config{Proposer: n.Proposer(n.WatchLevel()), Hasher: hasher, Clock: n.Clock, Leader: n.LeaderHTTP}).Register(n.Web)
	n.Serve()
	return &Service{n}, nil
}
