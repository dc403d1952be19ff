package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"qianma/cluster/breaker"
	"qianma/cluster/fact"
	"qianma/cluster/feed"
	"qianma/cluster/replica"
	"qianma/cluster/web"
)

// MarksAnswer is GET /v1/marks: how far this process holds every origin.
type MarksAnswer struct {
	Process string              `json:"process"`
	Origins map[string]MarkJSON `json:"origins"`
	Shards  []ShardJSON         `json:"shards,omitempty"`
}

// MarkJSON is a fact.Mark.
type MarkJSON struct {
	Seq    uint64 `json:"seq"`
	Digest string `json:"digest"`
}

// ShardJSON is what a process says of one replicated group.
type ShardJSON struct {
	Shard   int    `json:"shard"`
	Role    string `json:"role"`
	Leader  string `json:"leader"`
	Term    uint64 `json:"term"`
	Applied uint64 `json:"applied"`
}

// StatusAnswer is GET /v1/status: what operations look at.
type StatusAnswer struct {
	Process   string                 `json:"process"`
	Carrier   string                 `json:"carrier"`
	Subsystem string                 `json:"subsystem"`
	Version   string                 `json:"version"`
	Broker    bool                   `json:"broker"`   // connected to NATS
	Registry  bool                   `json:"registry"` // connected to etcd
	Breakers  []breaker.State        `json:"breakers"`
	Feeds     map[string]feed.Status `json:"feeds"`
	Shards    []replica.Status       `json:"shards,omitempty"`
}

// Marks turns marks into their JSON form.
func Marks(marks map[fact.Origin]fact.Mark, into map[string]MarkJSON) {
	for o, m := range marks {
		into[o.String()] = MarkJSON{m.Seq, hex.EncodeToString(m.Digest[:])}
	}
}

// Describe fills in what every daemon says of itself.
func (b *Base) Describe() StatusAnswer {
	return StatusAnswer{
		Process: b.Config.Name, Carrier: b.Config.Carrier, Subsystem: b.Config.Subsystem, Version: Version,
		Broker: b.road != nil && b.road.Connected(), Registry: b.Registry.Up(), Breakers: b.Breakers.States(), Feeds: map[string]feed.Status{},
	}
}

func (n *Node) publishStatus() {
	n.Web.HandleClass(web.Operations, "GET /v1/marks", func(w http.ResponseWriter, _ *http.Request) error {
		return web.WriteJSON(w, http.StatusOK, n.marks())
	})
	n.Web.HandleClass(web.Operations, "GET /v1/status", func(w http.ResponseWriter, _ *http.Request) error {
		return web.WriteJSON(w, http.StatusOK, n.status())
	})
	for shard := range n.Replica.Shards() {
		n.Web.Check(fmt.Sprintf("shard-%d-has-a-leader", shard), func(context.Context) error {
			if leader, _ := n.Replica.Leader(shard); leader == "" {
				return errors.New("no leader is known: writes wait")
			}
			return nil
		})
	}
}

func (n *Node) marks() MarksAnswer {
	a := MarksAnswer{Process: n.Config.Name, Origins: map[string]MarkJSON{}}
	for shard := range n.Replica.Shards() {
		Marks(n.Replica.Marks(shard), a.Origins)
	}
	for _, s := range n.Replica.Status() {
		a.Shards = append(a.Shards, ShardJSON{s.Shard, s.Role, s.Leader, s.Term, s.Applied})
	}
	return a
}

func (n *Node) status() StatusAnswer {
	a := n.Describe()
	a.Shards = n.Replica.Status()
	for _, l := range n.lines {
		if f := l.follower.Load(); f != nil {
			a.Feeds[l.topic] = f.Status()
		}
	}
	return a
}
