package registry

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"qianma/cluster/topology"
)

// Keys below the carrier's prefix.
const (
	endpointKeys = "endpoint/"
	pointerKeys  = "pointer/"
	lockKeys     = "lock/"
)

// registration is what a process writes of itself.
type registration struct {
	Process topology.Process `json:"process"`
	Left    bool             `json:"left,omitempty"` // it said that it stops
}

// follow reads everything, then watches, and starts over whenever the watch
// ends or RelistEvery has passed. Reading again heals what no watch can see: a
// store that was lost and counts from one again.
func (r *Registry) follow() {
	wait := 100 * time.Millisecond
	for r.ctx.Err() == nil {
		rev, err := r.list()
		if err != nil {
			r.down(err)
			if !r.rest(wait) {
				return
			}
			wait = min(2*wait, r.cfg.RetryMax)
			continue
		}
		wait = 100 * time.Millisecond
		r.watch(rev + 1)
	}
}

// list reads everything once and lays it over what is known.
func (r *Registry) list() (rev int64, err error) {
	ctx, cancel := r.call(r.ctx)
	defer cancel()
	got, err := r.cli.Get(ctx, r.prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	now := r.cfg.Clock.Now()
	r.mu.Lock()
	r.counts.relists++
	if r.upSince.IsZero() {
		r.upSince = now
		r.cfg.Logger.Info("etcd is there", "keys", got.Count)
	}
	seen := map[string]bool{}
	stored := map[string]uint64{}
	for _, kv := range got.Kvs {
		key := strings.TrimPrefix(string(kv.Key), r.prefix)
		seen[key] = true
		r.put(key, kv.Value)
		if name, ok := strings.CutPrefix(key, pointerKeys); ok {
			stored[name] = versionOf(kv.Value)
		}
	}
	for name := range r.entries {
		if !seen[endpointKeys+name] {
			r.vanish(name, now)
		}
	}
	r.sweep(now)
	r.change()
	lost := r.lost(stored)
	r.mu.Unlock()
	r.restore(lost)
	return got.Header.Revision, nil
}

// watch applies changes until the watch ends.
func (r *Registry) watch(rev int64) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(r.ctx))
	defer cancel()
	events := r.cli.Watch(ctx, r.prefix, clientv3.WithPrefix(), clientv3.WithRev(rev))
	relist := r.cfg.Clock.After(r.cfg.RelistEvery)
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-relist:
			return
		case w, ok := <-events:
			if !ok || w.Err() != nil {
				return
			}
			r.apply(w.Events)
		}
	}
}

func (r *Registry) apply(events []*clientv3.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Clock.Now()
	for _, e := range events {
		key := strings.TrimPrefix(string(e.Kv.Key), r.prefix)
		if e.Type == clientv3.EventTypePut {
			r.put(key, e.Kv.Value)
		} else if name, ok := strings.CutPrefix(key, endpointKeys); ok {
			r.vanish(name, now)
		}
	}
	r.sweep(now)
	r.change()
}

// put takes one key in. What cannot be read is left alone: a newer build may
// have written it.
func (r *Registry) put(key string, value []byte) {
	if name, ok := strings.CutPrefix(key, endpointKeys); ok {
		var reg registration
		if json.Unmarshal(value, &reg) == nil && reg.Process.Name == name {
			seed, _ := r.cfg.Topology.Find(name)
			r.entries[name] = &entry{Process: reg.Process, Seed: seed, left: reg.Left}
		}
	}
	if name, ok := strings.CutPrefix(key, pointerKeys); ok {
		var p Pointer
		if json.Unmarshal(value, &p) == nil && p.Version > r.pointers[name].Version {
			p.Key = name
			r.pointers[name] = p
		}
	}
}

// vanish notes that a registration is gone. One that said it stops is taken at
// its word.
func (r *Registry) vanish(name string, now time.Time) {
	e := r.entries[name]
	switch {
	case e == nil:
	case e.left:
		delete(r.entries, name)
	case e.missing.IsZero():
		e.missing = now
	}
}

// sweep drops processes whose registrations have long been gone. It drops
// nobody while etcd itself has not been there for as long, and of one
// carrier's subsystem at most a third at a time, and never the last.
func (r *Registry) sweep(now time.Time) {
	if r.upSince.IsZero() || now.Sub(r.upSince) < r.cfg.Grace {
		return
	}
	all, gone := map[string]int{}, map[string][]string{}
	for name, e := range r.entries {
		group := e.Process.Carrier + "/" + e.Process.Subsystem
		all[group]++
		if !e.missing.IsZero() && now.Sub(e.missing) >= r.cfg.Grace {
			gone[group] = append(gone[group], name)
		}
	}
	for group, names := range gone {
		if most := min(max(1, all[group]/3), all[group]-1); len(names) > most {
			r.counts.guarded++
			r.cfg.Logger.Warn("too many registrations are gone at once; keeping all", "group", group, "gone", len(names), "of", all[group])
			continue
		}
		for _, name := range names {
			delete(r.entries, name)
			r.counts.dropped++
			r.cfg.Logger.Info("dropped a process that has long not registered", "process", name)
		}
	}
}

func (r *Registry) down(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.upSince.IsZero() || r.ctx.Err() != nil {
		return
	}
	r.upSince = time.Time{}
	r.change()
	r.cfg.Logger.Warn("etcd does not answer; going on with what is known", "err", err)
}
