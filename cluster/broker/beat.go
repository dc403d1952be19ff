package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A beat is a message without facts on a subject of the OUT stream. It takes
// the whole road that facts take, so its arrival at the other carrier proves
// the road, which no connection's state does.
func beatSubject(carrier string) string { return "fact." + carrier + ".backbone.beat" }

// Beat sends one and returns when the stream has stored it.
func (j *JetStream) Beat(ctx context.Context) error {
	_, err := j.js.Publish(ctx, beatSubject(j.cfg.Carrier), []byte(time.Now().UTC().Format(time.RFC3339Nano)), jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("broker: beat: %w", err)
	}
	return nil
}

// BeatOf is the place in our stream of a carrier's newest beat, which changes
// with every beat that arrives; 0: none is held.
func (j *JetStream) BeatOf(ctx context.Context, carrier string) (uint64, error) {
	s, err := j.js.Stream(ctx, j.streamOf(carrier))
	if err != nil {
		return 0, fmt.Errorf("broker: beat: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, beatSubject(carrier))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("broker: beat: %w", err)
	}
	return m.Sequence, nil
}

// Remake deletes a stream and makes it anew. What it held is pulled by whoever
// still needs it.
func (j *JetStream) Remake(ctx context.Context, stream string) error {
	if err := j.js.DeleteStream(ctx, stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("broker: delete stream %s: %w", stream, err)
	}
	_, err := j.Ensure(ctx, true)
	return err
}
