package peers

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"qianma/loadtest/drive"
)

// serveNATS is one nats-server of three, as its documentation describes a
// cluster, with an fsync before every acknowledgement.
func serveNATS(ctx context.Context, m member) error {
	opts := &server.Options{
		ServerName: m.Name, Host: "127.0.0.1", Port: m.Client, NoSigs: true,
		JetStream: true, StoreDir: m.Dir, SyncAlways: true,
		JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 64 << 30,
		Cluster: server.ClusterOpts{Name: "peer", Host: "127.0.0.1", Port: m.Peer},
	}
	for _, p := range m.Peers {
		if p.Name != m.Name {
			opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: "127.0.0.1:" + strconv.Itoa(p.Peer)})
		}
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

const bucket = "tests"

func startJetStream(ctx context.Context, dir string) (*Peer, error) {
	c, err := startCluster("jetstream-kv", dir)
	if err != nil {
		return nil, err
	}
	if err := makeBucket(ctx, c); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return &Peer{
		Name: "jetstream-kv", Places: []string{"node-1", "node-2"},
		Settings: map[string]any{
			"version": "nats-server " + server.VERSION, "shape": "three servers, key-value bucket with three replicas, history 1",
			"settings": []string{"sync_interval: always", "storage: file", "replicas: 3", "batches: asynchronous publishes, all acknowledgements awaited"},
		},
		Processes: c.processes,
		Open:      func(_ context.Context, workers int) ([]Worker, func(), error) { return openNATS(c, workers) },
		Close:     c.stop,
	}, nil
}

func natsURL(m member) string { return "nats://127.0.0.1:" + strconv.Itoa(m.Client) }

// makeBucket waits for the cluster to be able to hold one.
func makeBucket(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithTimeout(ctx, upMax)
	defer cancel()
	nc, err := nats.Connect(natsURL(c.members[0]), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err = js.CreateKeyValue(one, jetstream.KeyValueConfig{Bucket: bucket, History: 1, Replicas: members, Storage: jetstream.FileStorage})
		cancel()
		if err == nil || errors.Is(err, jetstream.ErrBucketExists) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the JetStream cluster did not come up: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// perConnection is how many workers share a connection: a client of NATS
// pipelines, so a few connections are enough.
const perConnection = 16

func openNATS(c *cluster, workers int) ([]Worker, func(), error) {
	var conns []*nats.Conn
	shut := func() {
		for _, nc := range conns {
			nc.Close()
		}
	}
	var out []Worker
	var w kvWorker
	for i := range workers {
		if i%perConnection == 0 {
			for place := range w.kv {
				nc, err := nats.Connect(natsURL(c.members[place]), nats.MaxReconnects(-1))
				if err != nil {
					shut()
					return nil, nil, err
				}
				conns = append(conns, nc)
				if w.js[place], err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(8192)); err == nil {
					w.kv[place], err = w.js[place].KeyValue(context.Background(), bucket)
				}
				if err != nil {
					shut()
					return nil, nil, err
				}
			}
		}
		one := w
		out = append(out, &one)
	}
	return out, shut, nil
}

type kvWorker struct {
	js [2]jetstream.JetStream
	kv [2]jetstream.KeyValue
}

func personKey(i uint32) string {
	id := person(i)
	return "p." + hex.EncodeToString(id[:])
}

func tubeKey(tube uint64) string { return "t." + strconv.FormatUint(tube, 10) }

// A registration as bytes: what a province stores of one, in one value.
func sampleValue(s *drive.Sample) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 0, 64), s.Tube)
	out = binary.BigEndian.AppendUint64(out, uint64(s.Sampled))
	out = append(out, s.Pool, 2)
	return append(append(out, pgSite...), pgOperator...)
}

func resultValue(r *drive.Result) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 0, 48), uint64(r.At))
	out = append(out, r.Outcome, 1)
	return append(append(out, pgLab...), "pcr"...)
}

func (w *kvWorker) Do(ctx context.Context, op *drive.Op) error {
	kv := w.kv[op.Carrier]
	switch op.Kind {
	case drive.Register:
		_, err := kv.Put(ctx, personKey(op.Samples[0].Person), sampleValue(&op.Samples[0]))
		return err
	case drive.Report:
		_, err := kv.Put(ctx, tubeKey(op.Results[0].Tube), resultValue(&op.Results[0]))
		return err
	case drive.RegisterBatch:
		return w.together(ctx, op.Carrier, len(op.Samples), func(i int) (string, []byte) {
			return personKey(op.Samples[i].Person), sampleValue(&op.Samples[i])
		})
	case drive.ReportBatch:
		return w.together(ctx, op.Carrier, len(op.Results), func(i int) (string, []byte) {
			return tubeKey(op.Results[i].Tube), resultValue(&op.Results[i])
		})
	case drive.Display:
		return w.read(ctx, kv, op)
	}
	return ErrUnsupported
}

// together publishes many values without waiting for each, then waits for all:
// what JetStream has in place of a batch.
func (w *kvWorker) together(ctx context.Context, place, n int, value func(int) (string, []byte)) error {
	acks := make([]jetstream.PubAckFuture, 0, n)
	for i := range n {
		key, v := value(i)
		ack, err := w.js[place].PublishAsync("$KV."+bucket+"."+key, v)
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *kvWorker) read(ctx context.Context, kv jetstream.KeyValue, op *drive.Op) error {
	p, err := kv.Get(ctx, personKey(op.Person))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	v := p.Value()
	tube, sampled, pool := binary.BigEndian.Uint64(v), int64(binary.BigEndian.Uint64(v[8:])), v[16]
	op.View = view(sampled, pool, 0)
	r, err := kv.Get(ctx, tubeKey(tube))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	op.View = view(sampled, pool, r.Value()[8])
	return nil
}
