package registry

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"qianma/cluster/topology"
)

// Register says, from now until Close, where this process is. It returns at
// once. A lease that is lost, for whatever reason, is taken anew and the
// registration written again: etcd forgets, the process does not.
func (r *Registry) Register(p topology.Process) {
	r.mu.Lock()
	seed, _ := r.cfg.Topology.Find(p.Name)
	r.entries[p.Name] = &entry{Process: p, Seed: seed}
	r.change()
	r.mu.Unlock()
	if r.cli == nil {
		return
	}
	r.wg.Go(func() {
		wait := 100 * time.Millisecond
		for {
			if r.stay(p) {
				wait = 100 * time.Millisecond
			}
			if !r.rest(wait/2 + rand.N(wait)) {
				return
			}
			wait = min(2*wait, r.cfg.RetryMax)
		}
	})
}

// stay registers and keeps the lease alive until it is lost or the end; it
// reports whether it was registered at all.
func (r *Registry) stay(p topology.Process) bool {
	lease, err := r.enrol(p)
	if err != nil {
		return false
	}
	r.mu.Lock()
	r.counts.registrations++
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	alive, err := r.cli.KeepAlive(ctx, lease)
	if err != nil {
		return true
	}
	for range alive { // closed when the lease is lost, or by the end
	}
	if r.ctx.Err() != nil {
		r.leave(p, lease)
	}
	return true
}

// enrol takes a lease and writes the registration under it.
func (r *Registry) enrol(p topology.Process) (clientv3.LeaseID, error) {
	ctx, cancel := r.call(r.ctx)
	defer cancel()
	lease, err := r.cli.Grant(ctx, max(1, int64(r.cfg.TTL/time.Second)))
	if err != nil {
		return 0, err
	}
	return lease.ID, r.write(ctx, registration{Process: p}, lease.ID)
}

// leave says that the process stops, so that others need not wait for the
// lease. It takes a moment at most.
func (r *Registry) leave(p topology.Process, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), min(time.Second, r.cfg.CallTimeout))
	defer cancel()
	_ = r.write(ctx, registration{Process: p, Left: true}, lease) // the lease says it later
}

func (r *Registry) write(ctx context.Context, reg registration, lease clientv3.LeaseID) error {
	raw, err := json.Marshal(reg)
	if err != nil {
		return err
	}
	_, err = r.cli.Put(ctx, r.prefix+endpointKeys+reg.Process.Name, string(raw), clientv3.WithLease(lease))
	return err
}
