package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// sourceSince is how much of the other's OUT a new IN starts with.
const sourceSince = 5 * time.Minute

// streams are the streams this carrier should have.
func (j *JetStream) streams() []jetstream.StreamConfig {
	out := j.shape(Out(j.cfg.Carrier))
	out.Description = "facts born at " + j.cfg.Carrier
	out.Subjects = []string{"fact." + j.cfg.Carrier + ".>"}
	all := []jetstream.StreamConfig{out}
	for _, other := range j.cfg.Others {
		in := j.shape(In(other))
		in.Description = "facts born at " + other + ", sourced from there"
		// A new IN starts a little before now: history is pulled by those who
		// need it, not carried to everyone.
		since := time.Now().Add(-sourceSince)
		in.Sources = []*jetstream.StreamSource{{
			Name:         Out(other),
			OptStartTime: &since,
			External:     &jetstream.ExternalStream{APIPrefix: "$JS." + j.cfg.OtherDomain(other) + ".API"},
		}}
		all = append(all, in)
	}
	return all
}

// shape is what all our streams share.
func (j *JetStream) shape(name string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: j.cfg.MaxAge, MaxBytes: j.cfg.MaxBytes, Replicas: j.replicas(), Duplicates: 2 * time.Minute, AllowDirect: true,
	}
}

// replicas is how many copies a stream gets: a stream on one server of a
// cluster would be gone with it.
func (j *JetStream) replicas() int {
	if j.cfg.Replicas == 0 && j.conn.ConnectedClusterName() != "" {
		return 3
	}
	return max(1, j.cfg.Replicas)
}

// Ensure makes the streams that are missing, and where they differ from what
// they should be (mend) puts them right. It returns the names of those it
// made.
func (j *JetStream) Ensure(ctx context.Context, mend bool) (made []string, err error) {
	var faults []error
	for _, want := range j.streams() {
		fresh, err := j.ensure(ctx, want, mend)
		if err != nil {
			faults = append(faults, fmt.Errorf("broker: stream %s: %w", want.Name, err))
		}
		if fresh {
			j.stats.streamsMade.Add(1)
			made = append(made, want.Name)
		}
	}
	return made, errors.Join(faults...)
}

func (j *JetStream) ensure(ctx context.Context, want jetstream.StreamConfig, mend bool) (fresh bool, err error) {
	s, err := j.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return j.create(ctx, want)
	}
	if err != nil || !mend || alike(want, s.CachedInfo().Config) {
		return false, err
	}
	if have := s.CachedInfo().Config; len(have.Sources) == len(want.Sources) {
		for i := range want.Sources {
			want.Sources[i].OptStartTime = have.Sources[i].OptStartTime
		}
	}
	_, err = j.js.UpdateStream(ctx, want)
	return false, err
}

// create makes a stream. A cluster that has too few servers for three copies
// gets one copy rather than none.
func (j *JetStream) create(ctx context.Context, want jetstream.StreamConfig) (bool, error) {
	_, err := j.js.CreateStream(ctx, want)
	if err != nil && j.cfg.Replicas == 0 && want.Replicas > 1 && ctx.Err() == nil {
		want.Replicas = 1
		_, err = j.js.CreateStream(ctx, want)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return false, nil // another process was quicker, perhaps with other limits
	}
	return err == nil, err
}

// alike compares what we care about; a server fills in the rest.
func alike(want, have jetstream.StreamConfig) bool {
	sameSource := func(a, b *jetstream.StreamSource) bool {
		return a.Name == b.Name && (a.External == nil) == (b.External == nil) && (a.External == nil || a.External.APIPrefix == b.External.APIPrefix)
	}
	return want.MaxAge == have.MaxAge && want.MaxBytes == have.MaxBytes && want.Replicas == have.Replicas &&
		slices.Equal(want.Subjects, have.Subjects) && slices.EqualFunc(want.Sources, have.Sources, sameSource)
}

// remake makes missing streams on behalf of somebody who has just missed one,
// at most once a second. Its failure shows in what that somebody tries next.
func (j *JetStream) remake(ctx context.Context) {
	j.ensuring.Lock()
	defer j.ensuring.Unlock()
	if time.Since(j.ensured) < time.Second {
		return
	}
	j.ensured = time.Now()
	made, err := j.Ensure(ctx, false)
	if len(made) > 0 || err != nil {
		j.cfg.Logger.Info("streams were missing", "made", made, "err", err)
	}
}

// Stream is how one of this carrier's streams is doing.
type Stream struct {
	Name     string `json:"name"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	Last     uint64 `json:"last"` // stream sequence
	Copies   int    `json:"copies"`
	Current  int    `json:"current"` // copies that are up to date, as the stream's leader sees them
	Sourced  bool   `json:"sourced"`
	Lag      uint64 `json:"lag"`       // messages the source has and we do not
	SilentMS int64  `json:"silent_ms"` // since the source was last heard of; negative: never
}

// Streams asks how each stream is doing.
func (j *JetStream) Streams(ctx context.Context) ([]Stream, error) {
	var all []Stream
	var faults []error
	for _, want := range j.streams() {
		s, err := j.js.Stream(ctx, want.Name)
		if err != nil {
			faults = append(faults, fmt.Errorf("broker: stream %s: %w", want.Name, err))
			continue
		}
		info := s.CachedInfo()
		one := Stream{Name: want.Name, Messages: info.State.Msgs, Bytes: info.State.Bytes, Last: info.State.LastSeq}
		one.Copies, one.Current = info.Config.Replicas, current(info.Cluster)
		for _, src := range info.Sources {
			one.Sourced, one.Lag, one.SilentMS = true, src.Lag, src.Active.Milliseconds()
		}
		all = append(all, one)
	}
	return all, errors.Join(faults...)
}

// OtherAnswers asks another carrier's JetStream through the leaf link whether
// it is there.
func (j *JetStream) OtherAnswers(ctx context.Context, carrier string) error {
	_, err := j.conn.RequestWithContext(ctx, "$JS."+j.cfg.OtherDomain(carrier)+".API.INFO", nil)
	return err
}

// current counts a stream's up-to-date copies; a server without a cluster has
// the only one.
func current(c *jetstream.ClusterInfo) int {
	n := 1
	if c == nil {
		return n
	}
	for _, r := range c.Replicas {
		if r.Current && !r.Offline {
			n++
		}
	}
	return n
}
