package peers

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"qianma/cluster/leaktest"
	"qianma/loadtest/drive"
)

// A peer's servers are this binary again.
func TestMain(m *testing.M) {
	if os.Getenv("QIANMA_PEER_SERVER") == "" {
		childArgs = nil
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := (&Serve{Config: os.Args[len(os.Args)-1]}).Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// do runs operations on a target until all have ended.
func do(t *testing.T, target drive.Target, ops ...*drive.Op) {
	t.Helper()
	for _, op := range ops {
		target.Start(op)
	}
	for n := 0; n < len(ops); {
		if err := target.Poll(time.Second, func(op *drive.Op) { n++ }); err != nil {
			t.Fatal(err)
		}
	}
}

// Goal: each peer really does the job: what was registered and resulted is
// read back at both places, one by one and in batches, and doing a thing twice
// changes nothing.
func TestEveryPeerDoesTheSameJob(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nine servers: left out of short runs")
	}
	for _, name := range []string{"postgres", "jetstream-kv", "etcd"} {
		t.Run(name, func(t *testing.T) {
			if name == "postgres" {
				if _, err := findPostgres(); err != nil {
					t.Skip(err)
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			dir, err := os.MkdirTemp("", "peer") // t.TempDir is closed to other users
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			p, err := Start(ctx, name, dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			job(t, p)
			if procs, err := p.Processes(); err != nil || len(procs) != 3 {
				t.Errorf("processes %v, %v", procs, err)
			}
		})
	}
}

func job(t *testing.T, p *Peer) {
	target, err := NewTarget(p, 4, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	target.Begin(time.Now())
	at := time.Now().UnixMilli()
	sample := func(person uint32, tube uint64) drive.Sample {
		return drive.Sample{Person: person, Tube: tube, Pool: 10, Sampled: at + int64(person)}
	}
	one := &drive.Op{Kind: drive.Register, Samples: []drive.Sample{sample(1, 1)}}
	again := &drive.Op{Kind: drive.Register, Samples: []drive.Sample{sample(1, 1)}}
	many := &drive.Op{Kind: drive.RegisterBatch}
	for i := range uint32(300) {
		many.Samples = append(many.Samples, sample(100+i, uint64(10+i/10)))
	}
	do(t, target, one, many)
	do(t, target, again,
		&drive.Op{Kind: drive.Report, Results: []drive.Result{{Tube: 1, Outcome: 2, At: at}}},
		&drive.Op{Kind: drive.ReportBatch, Results: []drive.Result{{Tube: 10, Outcome: 1, At: at}, {Tube: 11, Outcome: 1, At: at}}})
	for _, op := range []*drive.Op{one, again, many} {
		if op.Outcome != drive.OK || op.Ended < op.First {
			t.Fatalf("%v: %v %s", op.Kind, op.Outcome, op.Code)
		}
	}
	for place := range p.Places {
		expect(t, target, place, 1, "pool_positive_retest")
		expect(t, target, place, 105, "negative")
		expect(t, target, place, 399, "pending")
	}
	nobody := &drive.Op{Kind: drive.Display, Person: 9_999}
	swabs := &drive.Op{Kind: drive.Tube, TubeNo: 1}
	do(t, target, nobody, swabs)
	if nobody.Outcome != drive.OK || nobody.View.Found {
		t.Errorf("nobody: %+v", nobody.View)
	}
	if p.Name == "postgres" && swabs.View.Swabs != 1 {
		t.Errorf("the tube holds %d swabs, want 1: a repeat is no second one", swabs.View.Swabs)
	}
	if p.Name != "postgres" && swabs.Code != "unsupported" {
		t.Errorf("counting swabs: %v %s", swabs.Outcome, swabs.Code)
	}
}

// expect polls a place until it shows the person's test: replicas follow.
func expect(t *testing.T, target drive.Target, place int, person uint32, status string) {
	t.Helper()
	var op *drive.Op
	for until := time.Now().Add(time.Minute); time.Now().Before(until); {
		op = &drive.Op{Kind: drive.Display, Carrier: place, Person: person}
		do(t, target, op)
		if op.View.Found && op.View.Status == status {
			return
		}
	}
	t.Errorf("person %d at place %d: %v %s %+v, want %s", person, place, op.Outcome, op.Code, op.View, status)
}

type slowWorker struct{ did *atomic.Int64 }

func (w slowWorker) Do(ctx context.Context, _ *drive.Op) error {
	w.did.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

// Goal: an operation is reported exactly once, whether it ended, waited or
// never found room, and Close leaves nothing behind.
func TestCloseReportsEveryOperationOnce(t *testing.T) {
	defer leaktest.None(t)
	var did atomic.Int64
	p := &Peer{Places: []string{"a"}, Open: func(context.Context, int) ([]Worker, func(), error) {
		return []Worker{slowWorker{&did}}, func() {}, nil
	}}
	target, err := NewTarget(p, 1, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	target.Begin(time.Now())
	seen := map[*drive.Op]int{}
	const n = queue + 100
	for range n {
		target.Start(&drive.Op{})
	}
	if err := target.Poll(time.Millisecond, func(op *drive.Op) { seen[op]++ }); err != nil {
		t.Fatal(err)
	}
	dropped := len(seen)
	target.Close()
	target.Close()
	if len(seen) != n || dropped != 100 || did.Load() == 0 {
		t.Errorf("%d of %d reported, %d dropped", len(seen), n, dropped)
	}
	for op, times := range seen {
		if times != 1 || op.Outcome == drive.OK {
			t.Fatalf("reported %d times as %v", times, op.Outcome)
		}
	}
}
