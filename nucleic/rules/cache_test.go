package rules

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/nucleic/nucleicpb"
)

// The properties are cheap and their worlds small: look at many.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestTheCacheForgetsTheOldest(t *testing.T) {
	c := newCache(2)
	for i := range 5 {
		c.add(&tube{code: fmt.Appendf(nil, "T%d", i)})
		if i > 0 {
			c.get([]byte("T0")) // keeps it young
		}
	}
	if len(c.tubes) != 2 {
		t.Fatalf("%d tubes held, want 2", len(c.tubes))
	}
	for code, want := range map[string]bool{"T0": true, "T1": false, "T3": false, "T4": true} {
		if _, ok := c.get([]byte(code)); ok != want {
			t.Errorf("%s held=%v", code, ok)
		}
	}
}

// A tube whose result is there makes room for those that are being filled.
func TestATubeWithAResultIsNotKept(t *testing.T) {
	m := New(1 << 20)
	for _, fact := range [][]byte{reg("TUBE1", 1), reg("TUBE2", 2), res("TUBE1", 1, nucleicpb.OutcomeNegative)} {
		if err := m.Fold(&nowhere{}, fact); err != nil {
			t.Fatal(err)
		}
	}
	_, first := m.cache.tubes["TUBE1"]
	_, second := m.cache.tubes["TUBE2"]
	if first || !second || m.cache.newest != m.cache.oldest {
		t.Errorf("held: the first %v, the second %v", first, second)
	}
}

// Goal: what is held in memory stays within the bytes that it may take. Method:
// more tubes for twenty than there is room for, and what the heap has grown by.
func TestTubesTakeTheBytesTheyMay(t *testing.T) {
	const room = 16 << 20
	m := New(room)
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	for i := range 2 * room / tubeBytes {
		code := fmt.Sprintf("5201%010d", i)
		if err := m.Fold(&nowhere{}, reg(code, 1, pool(nucleicpb.PoolTwenty))); err != nil {
			t.Fatal(err)
		}
	}
	if took := heap() - before; took > room || took < room/2 {
		t.Errorf("%d bytes are taken of %d, by %d tubes", took, room, len(m.cache.tubes))
	}
	runtime.KeepAlive(m)
}

func TestResetForgetsWhatTheOldKeysSaid(t *testing.T) {
	m, full, empty := New(1<<20), machinetest.NewMem(), machinetest.NewMem()
	fact := reg("TUBE1", 1, pool(nucleicpb.PoolSingle))
	if err := m.Fold(full, fact); err != nil {
		t.Fatal(err)
	}
	if d := m.Decide(full, noon.UnixNano(), fact); d.Status != machine.Duplicate {
		t.Fatalf("%v", d.Status)
	}
	m.Reset() // the store below is replaced, as by a snapshot
	if d := m.Decide(empty, noon.UnixNano(), fact); d.Status != machine.Accepted {
		t.Fatalf("%v %s from a cache of keys that are gone", d.Status, d.Code)
	}
}

// nowhere is a transaction that keeps nothing: what is left is the rules.
type nowhere struct{ sets int }

func (n *nowhere) Get([]byte) ([]byte, bool)                        { return nil, false }
func (n *nowhere) Scan(_, _ []byte, _ func(key, value []byte) bool) {}
func (n *nowhere) Set(_, _ []byte)                                  { n.sets++ }
func (n *nowhere) Delete([]byte)                                    { n.sets++ }

// benchRegistrations are one booth's day: tubes of a pool filled one by one.
func benchRegistrations(p nucleicpb.Pool, tubes int) (commands [][]byte) {
	for i := range tubes * p.Cap() {
		commands = append(commands, reg(fmt.Sprintf("52010012%06d", i/p.Cap()), i, pool(p), func(m *nucleicpb.Registered) {
			m.Operator, m.Device, m.DoorAt = []byte("op-17"), []byte("pad-3"), ms(0)
			m.SampledAt += int64(i) * 1000 % 3600_000
		}))
	}
	return commands
}

func BenchmarkRegister(b *testing.B) {
	for _, p := range []nucleicpb.Pool{nucleicpb.PoolSingle, nucleicpb.PoolTen, nucleicpb.PoolTwenty} {
		b.Run("pool "+p.String(), func(b *testing.B) {
			commands := benchRegistrations(p, 2000)
			m, tx, i := New(1<<20), &nowhere{}, 0
			b.ReportAllocs()
			for b.Loop() {
				d := m.Decide(tx, noon.UnixNano(), commands[i])
				if d.Status != machine.Accepted {
					b.Fatal(d)
				}
				if err := m.Fold(tx, d.Fact); err != nil {
					b.Fatal(err)
				}
				if i++; i == len(commands) {
					i = 0
					m.Reset()
				}
			}
			b.ReportMetric(float64(tx.sets)/float64(b.N), "keys/op")
		})
	}
}

func BenchmarkResult(b *testing.B) {
	m, tx := New(1<<20), &nowhere{}
	command := res("52010012345678", 1, nucleicpb.OutcomeNegative)
	b.ReportAllocs()
	for b.Loop() {
		m.Reset()
		d := m.Decide(tx, noon.UnixNano(), command)
		if err := m.Fold(tx, d.Fact); err != nil {
			b.Fatal(err)
		}
	}
}
