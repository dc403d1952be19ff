package broker

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// KeeperConfig is how patient a Keeper is.
type KeeperConfig struct {
	QuietMax time.Duration // no beat for so long makes a road suspect; 0: 15 s
	ActAfter time.Duration // between one remedy and the next, and longer each time; 0: 20 s
}

// Keeper keeps the road from other carriers open over servers that no backbone
// of ours looks after. A sourced stream has been seen to stall for good after
// its leaf link came back (its flow control waits for replies that do not
// arrive), and the server only says so in its log. What a client can do then
// is to make the stream anew.
//
// It judges by the arrival of beats, like a backbone, and any number of
// keepers may look after one road: who finds the stream just made leaves it
// alone. A link between servers that hangs is theirs to mend.
//
// A Keeper is not safe for concurrent use.
type Keeper struct {
	j     *JetStream
	cfg   KeeperConfig
	roads map[string]*road
}

// road is what a keeper remembers of the way from one other carrier.
type road struct {
	seq   uint64    // place of the newest beat heard
	beat  time.Time // when it was heard
	acted time.Time
	tries int
}

// Keeper returns one that holds every road to be fine until it has watched it.
func (j *JetStream) Keeper(cfg KeeperConfig) *Keeper {
	cfg.QuietMax, cfg.ActAfter = orElse(cfg.QuietMax, 15*time.Second), orElse(cfg.ActAfter, 20*time.Second)
	k := &Keeper{j: j, cfg: cfg, roads: map[string]*road{}}
	for _, other := range j.cfg.Others {
		k.roads[other] = &road{beat: time.Now()}
	}
	return k
}

// Keep sends a beat and looks at every road once. To be called every few
// seconds, more often than QuietMax.
func (k *Keeper) Keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := k.j.Beat(ctx)
	if streamless(err) {
		k.j.remake(ctx)
	}
	faults := []error{err}
	for other, r := range k.roads {
		faults = append(faults, k.keep(ctx, other, r))
	}
	return errors.Join(faults...)
}

func (k *Keeper) keep(ctx context.Context, other string, r *road) error {
	seq, err := k.j.BeatOf(ctx, other)
	if streamless(err) {
		k.j.remake(ctx)
	}
	now := time.Now()
	if err == nil && seq != 0 && seq != r.seq {
		r.seq, r.beat, r.tries = seq, now, 0
	}
	if now.Sub(r.beat) < k.cfg.QuietMax || now.Sub(r.acted) < k.cfg.ActAfter<<min(r.tries, 5) {
		return err
	}
	if err := k.j.OtherAnswers(ctx, other); err != nil {
		return fmt.Errorf("broker: the line to %s: %w", other, err) // nothing of ours can mend it
	}
	s, err := k.j.js.Stream(ctx, In(other))
	if err != nil {
		return fmt.Errorf("broker: stream %s: %w", In(other), err)
	}
	r.acted = now
	if now.Sub(s.CachedInfo().Created) < k.cfg.ActAfter {
		return nil
	}
	r.tries++
	k.j.cfg.Logger.Warn("the road from the other carrier is silent; making its stream anew", "other", other, "silent", now.Sub(r.beat).Round(time.Second).String())
	return k.j.Remake(ctx, In(other))
}
