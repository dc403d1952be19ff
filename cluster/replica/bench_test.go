package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/machine"
)

// benchMachine costs about what a subsystem's fold does: one read that finds
// nothing, two keys written.
type benchMachine struct{}

func (benchMachine) Reset() {}

func (benchMachine) Decide(r machine.Reader, at int64, command []byte) machine.Decision {
	if _, ok := r.Get(command[:16]); ok {
		return machine.Decision{Status: machine.Duplicate}
	}
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

func (benchMachine) Fold(tx machine.Tx, fact []byte) error {
	tx.Set(fact[:16], fact[16:48])
	tx.Set(fact[16:40], fact[:8])
	return nil
}

// BenchmarkPropose measures committed 128-byte commands: three replicas in
// this process over loopback TCP, every log fsynced on a real disk. keyed adds
// an idempotency key to each proposal.
func BenchmarkPropose(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		for _, each := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("commands=%d/keyed=%v", each, keyed), func(b *testing.B) { benchPropose(b, each, keyed) })
		}
	}
}

func benchPropose(b *testing.B, each int, keyed bool) {
	w := newWorld(b, abc...)
	dir := b.TempDir()
	for _, n := range abc {
		w.disks[n] = vfs.Default
	}
	w.tune = func(c *Config) {
		c.Dir = dir + "/" + c.Name
		c.Machine = func(int) machine.Machine { return benchMachine{} }
		c.Tuning = Tuning{}
	}
	w.startAll()
	lead := w.leader()
	var next atomic.Uint64
	command := func() []byte {
		c := make([]byte, 128)
		binary.BigEndian.PutUint64(c, next.Add(1)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(c[16:], next.Load()*0xc2b2ae3d27d4eb4f)
		return c
	}
	ctx := context.Background()
	callers := 256 / max(1, each/10)
	work := make(chan int, callers)
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	start, cpu := time.Now(), cpuTime()
	for range callers {
		wg.Go(func() {
			for n := range work {
				p := machine.Proposal{Commands: make([][]byte, n)}
				for i := range p.Commands {
					p.Commands[i] = command()
				}
				if keyed {
					p.Key, p.Body = [16]byte(p.Commands[0][:16]), [16]byte{1}
				}
				if _, err := lead.Propose(ctx, 0, p); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for left := b.N; left > 0; left -= each {
		work <- min(each, left)
	}
	close(work)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "records/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/record")
	w.stop()
}

// cpuTime is what this process has used: on a shared machine it says more than
// the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFailover measures how long writers wait when the leader's process
// dies (its port refuses) and when it only falls silent (its links are cut).
func BenchmarkFailover(b *testing.B) {
	for _, silent := range []bool{false, true} {
		b.Run(fmt.Sprintf("silent=%v", silent), func(b *testing.B) {
			w := newWorld(b, abc...)
			w.tune = func(c *Config) { c.Tuning = Tuning{} }
			w.startAll()
			var worst, total time.Duration
			for range b.N {
				lead := w.leader()
				others := slices.DeleteFunc(w.up(), func(n *node) bool { return n == lead })
				others[0].put(b, toyCommand(1, "x"))
				if silent {
					w.split([]string{lead.name}, []string{others[0].name, others[1].name})
				} else {
					w.kill(lead)
				}
				start := time.Now()
				others[0].put(b, toyCommand(uint64(start.UnixNano()), "x"))
				gap := time.Since(start)
				worst, total = max(worst, gap), total+gap
				if silent {
					w.heal()
				} else {
					lead.shut()
					w.start(lead.name)
				}
				until(b, "all three", func() bool {
					n, _ := w.node(lead.name).Leader(0)
					return n != "" && n != lead.name
				})
			}
			b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
			b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "mean-ms")
			w.stop()
		})
	}
}
