package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"qianma/cluster/fact"
)

// sumHeader carries the CRC-32C of a message: the road may drop and repeat,
// but what it delivers must be what was sent.
const sumHeader = "Qianma-Crc"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(data []byte) string {
	return strconv.FormatUint(uint64(crc32.Checksum(data, castagnoli)), 16)
}

// Publish implements feed.Broker. All messages are sent before the first
// acknowledgement is awaited, so a call costs one round trip and few fsyncs;
// what is in flight is what the caller passed.
func (j *JetStream) Publish(ctx context.Context, blocks []fact.Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var acks []jetstream.PubAckFuture
	var faults []error
	for _, m := range j.pack(blocks) {
		ack, err := j.js.PublishMsgAsync(m, jetstream.WithRetryAttempts(0))
		if err != nil {
			faults = append(faults, err)
			break // what follows would only arrive out of order
		}
		j.stats.sent.Add(1)
		j.stats.sentBytes.Add(uint64(len(m.Data)))
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			faults = append(faults, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if len(faults) == 0 {
		return nil
	}
	j.stats.refused.Add(1)
	if streamless(faults[0]) {
		j.remake(ctx)
	}
	return fmt.Errorf("broker: publish: %w", faults[0])
}

// streamless says whether an error means that no stream listens.
func streamless(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// pack groups whole blocks into messages. A block that no message can hold is
// left out.
func (j *JetStream) pack(blocks []fact.Block) []*nats.Msg {
	most := min(int(j.conn.MaxPayload()), payloadMost) - 1024 // room for headers
	var msgs []*nats.Msg
	for len(blocks) > 0 {
		n, size := 1, weight(&blocks[0])
		for n < len(blocks) && blocks[n].Origin == blocks[0].Origin && size+weight(&blocks[n]) <= min(j.cfg.MessageBytes, most) {
			size += weight(&blocks[n])
			n++
		}
		if size <= most || most <= 0 {
			msgs = append(msgs, message(blocks[:n], size))
		} else {
			j.stats.oversize.Add(1)
		}
		blocks = blocks[n:]
	}
	return msgs
}

// weight is at least the encoded size of a block.
func weight(b *fact.Block) int {
	return len(b.Body) + len(b.Origin.Carrier) + len(b.Origin.Subsystem) + 128
}

// message encodes blocks of one origin. The id names the whole range, not its
// start alone: a leader that repeats the start with more behind it must not
// have the rest taken for a repeat.
func message(blocks []fact.Block, size int) *nats.Msg {
	first, last := &blocks[0], &blocks[len(blocks)-1]
	m := nats.NewMsg(subjectOfOrigin(first.Origin))
	m.Data = make([]byte, 0, size)
	for i := range blocks {
		m.Data = blocks[i].Append(m.Data)
	}
	m.Header.Set(jetstream.MsgIDHeader, fmt.Sprintf("%s/%d-%d", first.Origin, first.First, last.Last()))
	m.Header.Set(sumHeader, sumOf(m.Data))
	return m
}

// unpack decodes a message; ok is false when it is not what was sent.
func unpack(header nats.Header, data []byte) (blocks []fact.Block, ok bool) {
	if header.Get(sumHeader) != sumOf(data) {
		return nil, false
	}
	for len(data) > 0 {
		b, rest, err := fact.Decode(data)
		if err != nil {
			return nil, false
		}
		blocks, data = append(blocks, b), rest
	}
	return blocks, len(blocks) > 0
}

// Last implements feed.Broker.
func (j *JetStream) Last(ctx context.Context, o fact.Origin) (uint64, error) {
	stream, err := j.js.Stream(ctx, j.streamOf(o.Carrier))
	if streamless(err) {
		j.remake(ctx)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("broker: last: %w", err)
	}
	m, err := stream.GetLastMsgForSubject(ctx, subjectOfOrigin(o))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("broker: last: %w", err)
	}
	blocks, ok := unpack(m.Header, m.Data)
	if !ok || blocks[len(blocks)-1].Origin != o {
		return 0, nil
	}
	return blocks[len(blocks)-1].Last(), nil
}
