// Package member is how operators change, over the network, who votes in a
// raft group: the messages, and the client that sends them. The server is in
// package replica; whoever may speak to a process's RPC port at all (mutual TLS)
// may ask.
//
// A change is asked of any replica of the group, which passes it on to its
// leader. It may be repeated: adding who votes already, and removing who is not
// there, is fine.
package member

import (
	"context"
	"encoding/json"

	"qianma/cluster/problem"
)

// Methods on a replica's RPC server.
const (
	MethodList   = "member.list"
	MethodChange = "member.change"
)

// Member is one raft server of a group.
type Member struct {
	Name  string `json:"name"`  // process
	Life  string `json:"life"`  // of its directory; a process that lost its disk has a new one
	Voter bool   `json:"voter"` // false: still catching up
}

// Group names a raft group to a process that has a replica of it.
type Group struct {
	Shard int `json:"shard"`
}

// Change is one change of a group.
type Change struct {
	Shard int    `json:"shard"`
	Name  string `json:"name"` // process
	Add   bool   `json:"add"`  // false: remove
}

// Calls is how other processes are called.
type Calls interface {
	Call(ctx context.Context, process, method string, req []byte) ([]byte, error)
}

// List asks a process who is in a group, as far as it knows.
func List(ctx context.Context, c Calls, process string, shard int) ([]Member, error) {
	raw, err := ask(ctx, c, process, MethodList, Group{shard})
	if err != nil {
		return nil, err
	}
	var out []Member
	return out, json.Unmarshal(raw, &out)
}

// Ask has a replica's group changed. It returns when the change is committed;
// an added process has its vote then.
func (ch Change) Ask(ctx context.Context, c Calls, process string) error {
	_, err := ask(ctx, c, process, MethodChange, ch)
	return err
}

func ask(ctx context.Context, c Calls, process, method string, req any) ([]byte, error) {
	raw, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	return c.Call(ctx, process, method, raw)
}

// Read reads a request on the server's side.
func Read(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return problem.Wrap(err, problem.Malformed, "the message is not what this method reads", "run the same build on both sides")
	}
	return nil
}
