package world

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"qianma/cluster/member"
	"qianma/cluster/mux"
	"qianma/cluster/pki"
	"qianma/cluster/rpc"
	"qianma/cluster/topology"
)

// ChangeMember takes a process into, or out of, every raft group of its
// subsystem, as an operator would: over the network, asked of another process
// of the cluster. It waits until the change is committed.
func (w *World) ChangeMember(ctx context.Context, name string, add bool) error {
	return w.groups(ctx, name, func(calls member.Calls, via string, shard int) error {
		return member.Change{Shard: shard, Name: name, Add: add}.Ask(ctx, calls, via)
	})
}

// Votes reports whether a process has a vote in every raft group of its
// subsystem, as the others say.
func (w *World) Votes(ctx context.Context, name string) (bool, error) {
	votes := true
	err := w.groups(ctx, name, func(calls member.Calls, via string, shard int) error {
		list, err := member.List(ctx, calls, via, shard)
		i := slices.IndexFunc(list, func(m member.Member) bool { return m.Name == name && m.Voter })
		votes = votes && i >= 0
		return err
	})
	return votes, err
}

// groups asks, about every group of a process's subsystem, another process of
// the cluster: the first that answers.
func (w *World) groups(ctx context.Context, name string, ask func(calls member.Calls, via string, shard int) error) error {
	p, ok := w.Topology.Find(name)
	if !ok {
		return fmt.Errorf("no process is called %s", name)
	}
	dialer, err := w.dialer(p)
	if err != nil {
		return err
	}
	pool := rpc.NewPool(dialer, rpc.PoolConfig{})
	defer pool.Close()
	for shard := range w.Topology.ShardsOf(p.Subsystem) {
		var faults []error
		for _, other := range w.Topology.Select(p.Carrier, p.Subsystem) {
			if other.Name == name {
				continue
			}
			err := ask(pool, other.Name, shard)
			faults = append(faults, err)
			if err == nil {
				faults = nil
				break
			}
		}
		if err := errors.Join(faults...); err != nil {
			return err
		}
	}
	return nil
}

// dialer speaks to processes with the certificate of one of them.
func (w *World) dialer(p topology.Process) (*mux.Dialer, error) {
	d := &mux.Dialer{Resolve: func(name string) (string, error) {
		if p, ok := w.Topology.Find(name); ok {
			return p.Node, nil
		}
		return "", fmt.Errorf("no process is called %s", name)
	}}
	// A process that lost its disk has no certificate until it is started
	// again; that of any other is as good.
	for _, with := range append([]topology.Process{p}, w.Topology.Select(p.Carrier, p.Subsystem)...) {
		config, err := pki.Client(w.Files(with))
		if err == nil {
			d.TLS = config
			return d, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return d, nil // a province whose links are plain text has none
}

// Files are a process's certificate and what it trusts.
func (w *World) Files(p topology.Process) pki.Files {
	dir := filepath.Join(w.Data, p.Carrier, p.Name, "tls")
	return pki.Files{CA: filepath.Join(w.Data, "ca", "ca.pem"), Cert: filepath.Join(dir, p.Name+".pem"), Key: filepath.Join(dir, p.Name+".key")}
}
