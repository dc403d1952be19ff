package source

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "qianma/middle-store/middlestorepb"
)

// chain asks the stores one after another, and the next one as well when one
// is slow: a store that is paused costs its askers hedge, not callLimit, until
// its breaker opens.
type chain struct {
	ctx   context.Context
	cfg   Config
	met   *meters
	peers []string // own stores first
	own   int      // how many of them are own
	slow  *budget
	calls sync.WaitGroup
}

func newChain(ctx context.Context, cfg Config, met *meters) *chain {
	return &chain{ctx: ctx, cfg: cfg, met: met, peers: append(append([]string(nil), cfg.Own...), cfg.Others...), own: len(cfg.Own), slow: newBudget()}
}

func (c *chain) wait() { c.calls.Wait() }

type reply struct {
	resp *pb.LookupResponse
	kind Kind
	err  error
}

var errNoStore = errors.New("source: no middle store is known")

// ask returns the first good reply. The calls that lose go on to their own
// limit, so that their breakers hear what became of them.
func (c *chain) ask(req *pb.LookupRequest) (*pb.LookupResponse, Kind, error) {
	raw := req.Append(nil)
	replies := make(chan reply, len(c.peers))
	flying, next := 0, 0
	launch := func() {
		if next < len(c.peers) {
			peer := next
			c.calls.Go(func() { replies <- c.call(peer, raw, len(req.Persons)) })
			next++
			flying++
		}
	}
	c.slow.earn()
	launch()
	var faults []error
	for flying > 0 {
		select {
		case r := <-replies:
			if r.err == nil {
				return r.resp, r.kind, nil
			}
			faults = append(faults, r.err)
			flying--
			launch()
		case <-c.cfg.Clock.After(hedge):
			if next < len(c.peers) && c.slow.spend() {
				c.met.hedges.Inc()
				launch()
			}
		case <-c.ctx.Done():
			return nil, None, c.ctx.Err()
		}
	}
	return nil, None, errors.Join(append(faults, errNoStore)...)
}

// call asks one store under its breaker.
func (c *chain) call(i int, raw []byte, persons int) (r reply) {
	r.kind = MiddleStore
	if i >= c.own {
		r.kind = OtherCarrier
	}
	ctx, cancel := context.WithTimeout(c.ctx, callLimit)
	defer cancel()
	r.err = c.cfg.Guard.Do(ctx, c.peers[i], "lookup", func(ctx context.Context) error {
		answer, err := c.cfg.Caller.Call(ctx, c.peers[i], pb.MethodLookup, raw)
		if err != nil {
			return err
		}
		r.resp = new(pb.LookupResponse)
		if err := r.resp.Decode(answer); err != nil {
			return fmt.Errorf("source: %s: %w", c.peers[i], err)
		}
		if len(r.resp.Persons) != persons {
			return fmt.Errorf("source: %s answered about %d persons, asked about %d", c.peers[i], len(r.resp.Persons), persons)
		}
		return nil
	})
	return r
}
