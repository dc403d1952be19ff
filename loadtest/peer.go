package loadtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"qianma/loadtest/drive"
	"qianma/loadtest/peers"
)

// peer starts another system in the province's place.
func (r *Reach) peer(*Shape) (System, func(), error) {
	dir := r.PeerDir
	if dir == "" {
		dir = filepath.Join(r.Data, "peers", r.Target+"-"+itoa(uint64(os.Getpid())))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return System{}, nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return System{}, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	p, err := peers.Start(ctx, r.Target, dir, r.PeerSet)
	if err != nil {
		return System{}, nil, fmt.Errorf("%s: %w", r.Target, errors.Join(err, r.sweep(dir)))
	}
	s := System{Name: p.Name, Carriers: p.Places, Processes: p.Processes, Settings: p.Settings}
	workers := cmp.Or(r.PeerWorkers, 2*r.Connections, peerWorkers(r.Target))
	s.Settings["workers"], s.Settings["timeout_s"] = workers, r.Timeout.Seconds()
	s.Open = func(string) (drive.Target, error) {
		return peers.NewTarget(p, workers, r.Timeout)
	}
	return s, func() { _ = errors.Join(p.Close(), r.sweep(dir)) }, nil
}

// peerWorkers is how many operations a peer is given at a time. PostgreSQL has a
// process for each connection, and is fastest with few: six for each processor
// and place, as its users advise; on two processors that did 20,000 tests a
// second in batches at a p99 of 73 ms, and 64 a place 6,000 at one of 1.4 s. etcd
// and JetStream gather what is in flight into one write to the log, and a few
// connections carry any number of requests: they get many.
func peerWorkers(target string) int {
	const perProcessor, places, many = 6, 2, 256
	if target == "postgres" {
		return perProcessor * places * runtime.NumCPU()
	}
	return many
}

// sweep removes a peer's data unless somebody chose where it is.
func (r *Reach) sweep(dir string) error {
	if r.PeerDir != "" {
		return nil
	}
	return os.RemoveAll(dir)
}
