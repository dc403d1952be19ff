package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"qianma/loadtest/drive"
)

// serveEtcd is one member of three, with etcd's defaults but for room: it
// fsyncs before it acknowledges in any case.
func serveEtcd(ctx context.Context, m member) error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.LogLevel = m.Name, m.Dir, "warn"
	client, peer := httpURL(m.Client), httpURL(m.Peer)
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	var all []string
	for _, p := range m.Peers {
		u := httpURL(p.Peer)
		all = append(all, p.Name+"="+u.String())
	}
	cfg.InitialCluster = strings.Join(all, ",")
	cfg.QuotaBackendBytes = 8 << 30
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "5m"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return err
	}
}

func httpURL(port int) url.URL {
	return url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(port)}
}

func startEtcd(ctx context.Context, dir string) (*Peer, error) {
	c, err := startCluster("etcd", dir)
	if err != nil {
		return nil, err
	}
	if err := awaitEtcd(ctx, c); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return &Peer{
		Name: "etcd", Places: []string{"member-1", "member-2"},
		Settings: map[string]any{
			"version": "etcd 3.7", "shape": "three members, linearizable reads",
			"settings": []string{"quota-backend-bytes=8GiB", "auto-compaction=periodic 5m", "batches: one transaction, at most 128 puts"},
		},
		Processes: c.processes,
		Open:      func(_ context.Context, workers int) ([]Worker, func(), error) { return openEtcd(c, workers) },
		Close:     c.stop,
	}, nil
}

func dialEtcd(m member) (*clientv3.Client, error) {
	u := httpURL(m.Client)
	return clientv3.New(clientv3.Config{Endpoints: []string{u.String()}, DialTimeout: 10 * time.Second})
}

func awaitEtcd(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithTimeout(ctx, upMax)
	defer cancel()
	for _, m := range c.members {
		cli, err := dialEtcd(m)
		if err != nil {
			return err
		}
		for {
			one, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err = cli.Get(one, "ready")
			cancel()
			if err == nil || ctx.Err() != nil {
				break
			}
		}
		if err := errors.Join(err, cli.Close()); err != nil {
			return fmt.Errorf("etcd did not come up: %w", err)
		}
	}
	return nil
}

func openEtcd(c *cluster, workers int) ([]Worker, func(), error) {
	var clients []*clientv3.Client
	shut := func() {
		for _, cli := range clients {
			_ = cli.Close()
		}
	}
	var out []Worker
	var w etcdWorker
	for i := range workers {
		if i%perConnection == 0 {
			for place := range w.clients {
				cli, err := dialEtcd(c.members[place])
				if err != nil {
					shut()
					return nil, nil, err
				}
				clients = append(clients, cli)
				w.clients[place] = cli
			}
		}
		one := w
		out = append(out, &one)
	}
	return out, shut, nil
}

type etcdWorker struct{ clients [2]*clientv3.Client }

// txnMost is etcd's own bound of a transaction.
const txnMost = 128

func (w *etcdWorker) Do(ctx context.Context, op *drive.Op) error {
	cli := w.clients[op.Carrier]
	switch op.Kind {
	case drive.Register:
		_, err := cli.Put(ctx, personKey(op.Samples[0].Person), string(sampleValue(&op.Samples[0])))
		return err
	case drive.Report:
		_, err := cli.Put(ctx, tubeKey(op.Results[0].Tube), string(resultValue(&op.Results[0])))
		return err
	case drive.RegisterBatch:
		return w.together(ctx, cli, len(op.Samples), func(i int) clientv3.Op {
			return clientv3.OpPut(personKey(op.Samples[i].Person), string(sampleValue(&op.Samples[i])))
		})
	case drive.ReportBatch:
		return w.together(ctx, cli, len(op.Results), func(i int) clientv3.Op {
			return clientv3.OpPut(tubeKey(op.Results[i].Tube), string(resultValue(&op.Results[i])))
		})
	case drive.Display:
		return w.read(ctx, cli, op)
	}
	return ErrUnsupported
}

func (w *etcdWorker) together(ctx context.Context, cli *clientv3.Client, n int, put func(int) clientv3.Op) error {
	for at := 0; at < n; at += txnMost {
		var ops []clientv3.Op
		for i := at; i < min(n, at+txnMost); i++ {
			ops = append(ops, put(i))
		}
		if _, err := cli.Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

func (w *etcdWorker) read(ctx context.Context, cli *clientv3.Client, op *drive.Op) error {
	p, err := cli.Get(ctx, personKey(op.Person))
	if err != nil || len(p.Kvs) == 0 {
		return err
	}
	v := p.Kvs[0].Value
	tube, sampled, pool := binary.BigEndian.Uint64(v), int64(binary.BigEndian.Uint64(v[8:])), v[16]
	op.View = view(sampled, pool, 0)
	r, err := cli.Get(ctx, tubeKey(tube))
	if err != nil || len(r.Kvs) == 0 {
		return err
	}
	op.View = view(sampled, pool, r.Kvs[0].Value[8])
	return nil
}
