package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"qianma/cluster/problem"
)

// Lock is held until Release or until Done is closed. Its Token is higher than
// that of every holder before: whoever is commanded under the lock remembers
// the highest token seen and refuses lower ones, so that a holder that was
// asleep while its lease ran out does no harm.
type Lock struct {
	Name  string
	Token uint64

	done    chan struct{}
	end     sync.Once
	release func()
}

// Done is closed when the lock is no longer held, for whatever reason.
func (l *Lock) Done() <-chan struct{} { return l.done }

// Release gives the lock up. With etcd away it returns at once all the same,
// and the lease runs out by itself. It is safe to call twice.
func (l *Lock) Release() { l.end.Do(l.release) }

// Lock takes a lock, waiting for its holder until ctx ends. ttl is how long it
// outlives a holder that vanishes (at least a second). Problems:
// problem.Conflict (held by another when ctx ended), problem.Unavailable (etcd
// is away; the lock is not held).
func (r *Registry) Lock(ctx context.Context, name string, ttl time.Duration) (*Lock, error) {
	if r.cli == nil {
		return r.lockLocal(ctx, name)
	}
	ttl = max(ttl.Truncate(time.Second), time.Second)
	for {
		l, holder, err := r.tryLock(ctx, name, ttl)
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, held(name, holder)
		case <-r.ctx.Done():
			return nil, away(r.ctx.Err())
		case <-r.cfg.Clock.After(200 * time.Millisecond):
		}
	}
}

func held(name, holder string) error {
	return problem.New(problem.Conflict, fmt.Sprintf("the lock %q is held by %s", name, holder), "wait until it is released, or for its lease to run out")
}

// tryLock tries once. No lock, a holder and no error: it is held.
func (r *Registry) tryLock(ctx context.Context, name string, ttl time.Duration) (l *Lock, holder string, err error) {
	if ctx.Err() != nil {
		return nil, "", away(ctx.Err())
	}
	ctx, cancel := r.call(ctx)
	defer cancel()
	key := r.prefix + lockKeys + name
	if got, err := r.cli.Get(ctx, key); err != nil {
		return nil, "", away(err)
	} else if got.Count > 0 {
		return nil, string(got.Kvs[0].Value), nil
	}
	asked := r.cfg.Clock.Elapsed()
	lease, err := r.cli.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return nil, "", away(err)
	}
	token, done, err := r.claim(ctx, key, name, lease.ID)
	if err != nil || !done {
		r.revoke(lease.ID)
		if err != nil {
			return nil, "", away(err)
		}
		return nil, "another process", nil
	}
	return r.hold(name, token, lease.ID, asked, ttl), "", nil
}

// claim writes the lock, if it is free, together with its next token.
func (r *Registry) claim(ctx context.Context, key, name string, lease clientv3.LeaseID) (token uint64, done bool, err error) {
	fence := Pointer{Key: "fence." + name, At: r.cfg.Clock.Now().UTC(), By: r.cfg.Name}
	version, rev, err := r.stored(ctx, fence.Key)
	if err != nil {
		return 0, false, err
	}
	fence.Version = version + 1
	// Whoever took the lock meanwhile has moved the fence too, so comparing
	// the fence is comparing the lock.
	done, err = r.swap(ctx, fence, rev, clientv3.OpPut(key, r.cfg.Name, clientv3.WithLease(lease)))
	if done {
		r.learn(fence)
	}
	return fence.Version, done, err
}

// hold keeps the lease alive until it is lost or released.
func (r *Registry) hold(name string, token uint64, lease clientv3.LeaseID, asked, ttl time.Duration) *Lock {
	ctx, cancel := context.WithCancel(r.ctx)
	l := &Lock{Name: name, Token: token, done: make(chan struct{})}
	revoked := make(chan struct{})
	l.release = func() {
		cancel()
		<-revoked
	}
	r.wg.Go(func() {
		defer close(revoked)
		defer cancel()
		r.renew(ctx, lease, asked, ttl)
		close(l.done) // first of all: the holder must stop before another starts
		r.revoke(lease)
	})
	return l
}

// renew returns when the lease is lost, or may be: by our own clock, counted
// from when the last renewal was asked for, because etcd counts from later.
func (r *Registry) renew(ctx context.Context, lease clientv3.LeaseID, asked, ttl time.Duration) {
	for {
		now := r.cfg.Clock.Elapsed()
		left := ttl - (now - asked)
		if left <= 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.cfg.Clock.After(min(ttl/3, left)):
		}
		now = r.cfg.Clock.Elapsed()
		call, cancel := context.WithTimeout(ctx, min(ttl/3, r.cfg.CallTimeout))
		got, err := r.cli.KeepAliveOnce(call, lease)
		cancel()
		if err == nil && got.TTL > 0 {
			asked = now
		} else if err == nil || isGone(err) {
			return
		}
	}
}

// revoke gives a lease back, in a moment or not at all: it runs out anyway.
func (r *Registry) revoke(lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), min(time.Second, r.cfg.CallTimeout))
	defer cancel()
	_, _ = r.cli.Revoke(ctx, lease)
}

// lockLocal is the lock of a process that has no etcd to share one with.
func (r *Registry) lockLocal(ctx context.Context, name string) (*Lock, error) {
	for {
		r.mu.Lock()
		holder := r.local[name]
		if holder == nil {
			l := r.holdLocal(name)
			r.mu.Unlock()
			return l, nil
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, held(name, "this process")
		case <-r.ctx.Done():
			return nil, away(r.ctx.Err())
		case <-holder.done:
		}
	}
}

// holdLocal takes a free local lock; mu is held.
func (r *Registry) holdLocal(name string) *Lock {
	fence := r.pointers["fence."+name]
	fence.Key = "fence." + name
	fence.Version++
	r.pointers[fence.Key] = fence
	r.change()
	l := &Lock{Name: name, Token: fence.Version, done: make(chan struct{})}
	l.release = func() {
		r.mu.Lock()
		delete(r.local, name)
		r.mu.Unlock()
		close(l.done)
	}
	r.local[name] = l
	return l
}
