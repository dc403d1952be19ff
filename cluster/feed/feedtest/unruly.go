package feedtest

import (
	"context"
	"math/rand/v2"
	"sync"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
)

// Unruly is a broker that drops, repeats and reorders what it delivers, each
// with the given chance.
type Unruly struct {
	feed.Broker
	Drop, Repeat, Swap float64

	mu  sync.Mutex
	rng *rand.Rand
}

// NewUnruly wraps a broker; the same seed makes the same choices.
func NewUnruly(b feed.Broker, seed uint64, drop, repeat, swap float64) *Unruly {
	return &Unruly{Broker: b, Drop: drop, Repeat: repeat, Swap: swap, rng: rand.New(rand.NewPCG(seed, 1))}
}

// Subscribe implements feed.Broker.
func (u *Unruly) Subscribe(ctx context.Context, carrier, subsystem string, shard int, fn func([]fact.Block)) (func(), error) {
	var held []fact.Block // kept back to come after the next
	return u.Broker.Subscribe(ctx, carrier, subsystem, shard, func(blocks []fact.Block) {
		for _, b := range blocks {
			if u.chance(u.Drop) {
				continue
			}
			if len(held) == 0 && u.chance(u.Swap) {
				held = append(held, b)
				continue
			}
			out := append([]fact.Block{b}, held...)
			held = nil
			if u.chance(u.Repeat) {
				out = append(out, out...)
			}
			fn(out)
		}
	})
}

func (u *Unruly) chance(p float64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rng.Float64() < p
}
