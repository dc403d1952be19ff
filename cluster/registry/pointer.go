package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"qianma/cluster/problem"
)

// Pointer is a small value that changes now and then: which rule set is in
// force, who is being drained. It is kept by everyone who read it.
type Pointer struct {
	Key     string    `json:"key"`
	Version uint64    `json:"version"` // grows by one with every change, for ever
	Value   []byte    `json:"value"`
	At      time.Time `json:"at"` // when it was put, by the putter's clock
	By      string    `json:"by"` // the process that put it
}

// Newest makes Put replace whatever is there.
const Newest = ^uint64(0)

// valueMost bounds a pointer's value. A pointer points; it does not hold.
const valueMost = 64 << 10

// Get is the newest that is known of a pointer. It never asks etcd.
func (r *Registry) Get(key string) (Pointer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pointers[key]
	return p, ok
}

// Watch returns a channel that carries the pointer's newest version, now if
// there is one and after every change; a slow reader misses versions between.
// It is closed when ctx ends or the registry closes.
func (r *Registry) Watch(ctx context.Context, key string) <-chan Pointer {
	out := make(chan Pointer)
	r.wg.Go(func() {
		defer close(out)
		sent := uint64(0)
		for {
			changed := r.Changed()
			if p, ok := r.Get(key); ok && p.Version > sent {
				select {
				case out <- p:
					sent = p.Version
					continue
				case <-changed:
					continue // send the newer one
				case <-ctx.Done():
				case <-r.ctx.Done():
				}
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-r.ctx.Done():
				return
			}
		}
	})
	return out
}

// Put changes a pointer from version after (0: there is none yet; Newest:
// whatever is there). Problems: problem.Conflict (somebody else changed it
// first), problem.Unavailable (etcd is away; nothing was done),
// problem.Unknown (etcd went away while it was asked: read, then repeat).
func (r *Registry) Put(ctx context.Context, key string, value []byte, after uint64) (Pointer, error) {
	if len(value) > valueMost || key == "" {
		return Pointer{}, problem.New(problem.TooLarge, fmt.Sprintf("a pointer needs a key and holds at most %d bytes", valueMost), "store the value elsewhere and point to it")
	}
	p := Pointer{Key: key, Value: value, At: r.cfg.Clock.Now().UTC(), By: r.cfg.Name}
	if r.cli == nil {
		return r.putLocal(p, after)
	}
	return r.putShared(ctx, p, after)
}

func changedMeanwhile(have uint64) error {
	return problem.New(problem.Conflict, fmt.Sprintf("somebody else changed it first; it is at version %d", have), "read it again and decide anew")
}

func (r *Registry) putLocal(p Pointer, after uint64) (Pointer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.pointers[p.Key].Version
	if after != Newest && after != have {
		return Pointer{}, changedMeanwhile(have)
	}
	p.Version = have + 1
	r.pointers[p.Key] = p
	r.change()
	return p, nil
}

func (r *Registry) putShared(ctx context.Context, p Pointer, after uint64) (Pointer, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	stored, rev, err := r.stored(ctx, p.Key)
	if err != nil {
		return Pointer{}, away(err)
	}
	if after != Newest && after != stored {
		return Pointer{}, changedMeanwhile(stored)
	}
	p.Version = stored + 1
	done, err := r.swap(ctx, p, rev)
	if err != nil {
		return Pointer{}, problem.Wrap(err, problem.Unknown, "the registry did not answer", "read the value; repeat if it is not there")
	}
	if !done {
		return Pointer{}, changedMeanwhile(stored)
	}
	r.learn(p)
	return p, nil
}

// stored is the version a pointer is at, and etcd's revision of it to compare
// with. What we remember counts when etcd has forgotten it.
func (r *Registry) stored(ctx context.Context, key string) (version uint64, rev int64, err error) {
	got, err := r.cli.Get(ctx, r.prefix+pointerKeys+key)
	if err != nil {
		return 0, 0, err
	}
	have, _ := r.Get(key)
	version = have.Version
	for _, kv := range got.Kvs {
		version, rev = max(version, versionOf(kv.Value)), kv.ModRevision
	}
	return version, rev, nil
}

func versionOf(value []byte) uint64 {
	var p Pointer
	if json.Unmarshal(value, &p) != nil {
		return 0
	}
	return p.Version
}

// swap writes p if etcd's revision of it is still rev.
func (r *Registry) swap(ctx context.Context, p Pointer, rev int64, more ...clientv3.Op) (bool, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return false, err
	}
	key := r.prefix + pointerKeys + p.Key
	got, err := r.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).
		Then(append(more, clientv3.OpPut(key, string(raw)))...).
		Commit()
	if err != nil {
		return false, err
	}
	return got.Succeeded, nil
}

func (r *Registry) learn(p Pointer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Version > r.pointers[p.Key].Version {
		r.pointers[p.Key] = p
		r.change()
	}
}

// lost are the pointers that etcd holds in an older version than we remember,
// or not at all: its store was lost. mu is held.
func (r *Registry) lost(stored map[string]uint64) []Pointer {
	var lost []Pointer
	for key, p := range r.pointers {
		if p.Version > stored[key] {
			lost = append(lost, p)
		}
	}
	return lost
}

// restore writes back what etcd has lost. Others may be doing the same: the
// first wins, and everybody else sees that it is done.
func (r *Registry) restore(lost []Pointer) {
	for _, p := range lost {
		ctx, cancel := r.call(r.ctx)
		got, err := r.cli.Get(ctx, r.prefix+pointerKeys+p.Key)
		if err == nil && (got.Count == 0 || versionOf(got.Kvs[0].Value) < p.Version) {
			rev := int64(0)
			if got.Count > 0 {
				rev = got.Kvs[0].ModRevision
			}
			_, err = r.swap(ctx, p, rev)
		}
		cancel()
		if err != nil {
			return // the next reading of everything tries again
		}
		r.cfg.Logger.Info("wrote back a pointer that etcd had lost", "key", p.Key, "version", p.Version)
	}
}
