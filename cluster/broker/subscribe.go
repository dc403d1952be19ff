package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
)

// Bounds of one subscription's read-ahead: what the server may have under way
// to us while the follower is busy.
const (
	aheadMessages = 64
	aheadBytes    = 2 * payloadMost
)

// Subscribe implements feed.Broker. It fails when the stream cannot be reached
// now; once it has succeeded it heals itself.
func (j *JetStream) Subscribe(ctx context.Context, carrier, subsystem string, shard int, fn func([]fact.Block)) (func(), error) {
	s := &subscription{j: j, topic: feed.Topic{Carrier: carrier, Subsystem: subsystem, Shard: shard}, fn: fn, from: time.Now().Add(-j.cfg.Lookback)}
	first, cancelFirst := context.WithTimeout(ctx, 5*time.Second)
	defer cancelFirst()
	messages, err := s.open(first)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	j.wg.Go(func() {
		defer close(done)
		s.run(life, messages)
	})
	var once sync.Once
	return func() {
		once.Do(cancel)
		<-done
	}, nil
}

type subscription struct {
	j     *JetStream
	topic feed.Topic
	fn    func([]fact.Block)
	from  time.Time // where a new consumer starts: a little before the newest message heard
}

// open makes an ephemeral consumer and starts reading from it.
func (s *subscription) open(ctx context.Context) (jetstream.MessagesContext, error) {
	stream := s.j.streamOf(s.topic.Carrier)
	consumer, err := s.j.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		FilterSubject:     subjectOf(s.topic.Carrier, s.topic.Subsystem, s.topic.Shard),
		DeliverPolicy:     jetstream.DeliverByStartTimePolicy,
		OptStartTime:      &s.from,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: 30 * time.Second,
	})
	if streamless(err) {
		s.j.remake(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("broker: subscribe to %s in %s: %w", s.topic, stream, err)
	}
	return consumer.Messages(
		jetstream.PullMaxMessagesWithBytesLimit(aheadMessages, aheadBytes),
		jetstream.PullHeartbeat(2*time.Second),
		jetstream.WithMessagesErrOnMissingHeartbeat(true),
	)
}

// run reads until the end, with a new consumer whenever the old one fails.
func (s *subscription) run(ctx context.Context, messages jetstream.MessagesContext) {
	wait := 100 * time.Millisecond
	for {
		if messages != nil {
			if s.read(ctx, messages) {
				wait = 100 * time.Millisecond
			}
			messages.Stop()
			messages = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-s.j.done:
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, 2*time.Second)
		messages = s.reopen(ctx)
	}
}

func (s *subscription) reopen(ctx context.Context) jetstream.MessagesContext {
	if !s.j.Connected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	messages, err := s.open(ctx)
	if err != nil {
		s.j.cfg.Logger.Debug("cannot subscribe yet", "topic", s.topic.String(), "err", err)
		return nil
	}
	s.j.stats.resubscribed.Add(1)
	return messages
}

// read hands messages on until the consumer fails; it reports whether it
// brought any.
func (s *subscription) read(ctx context.Context, messages jetstream.MessagesContext) (brought bool) {
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return brought
		}
		brought = true
		s.take(m)
		if ctx.Err() != nil {
			return brought
		}
	}
}

// take hands the blocks of one message on. What is not what was sent, or not
// of this topic, is dropped: the follower will see a gap and pull.
func (s *subscription) take(m jetstream.Msg) {
	if meta, err := m.Metadata(); err == nil {
		s.from = meta.Timestamp.Add(-time.Second)
	}
	blocks, ok := unpack(m.Headers(), m.Data())
	for i := range blocks {
		ok = ok && feed.TopicOf(blocks[i].Origin) == s.topic
	}
	if !ok {
		s.j.stats.corrupt.Add(1)
		s.j.cfg.Logger.Warn("a message of the broker is damaged or misplaced; dropped", "topic", s.topic.String())
		return
	}
	s.j.stats.heard.Add(1)
	s.fn(blocks)
}
