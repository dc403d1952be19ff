package replica

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
)

func txDB(t testing.TB, fs vfs.FS, dir string) *pebble.DB {
	t.Helper()
	o := &pebble.Options{FS: fs, DisableWAL: true, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 8 << 20, CacheSize: 48 << 20}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Goal: a tx reads like a sorted map that has all its writes, whatever was
// committed, written, deleted and rolled back before.
// Method: the same random steps on a tx and on machinetest.Mem. Half of the keys
// are in a table that is sought, in every second world; what it holds is read ahead
// anew now and then, as after a start.
func TestTxAgainstMap(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		rng := rand.New(rand.NewPCG(seed, 7))
		db := txDB(t, vfs.NewMem(), "db")
		x := newTx('u', nil)
		if seed%2 == 0 {
			x = newTx('u', []byte("1"))
		}
		want := machinetest.NewMem()
		key := func() []byte { return fmt.Appendf(nil, "%03d", rng.IntN(200)) }
		for batch := range 6 {
			if batch == 0 || rng.IntN(3) == 0 {
				x.known = readAhead(t, x, db)
			}
			x.begin(db)
			for range 120 { // facts
				var before *machinetest.Mem // of a fact that is taken back
				if rng.IntN(4) == 0 {
					before = machinetest.NewMem()
					for _, k := range want.Keys() {
						v, _ := want.Get([]byte(k))
						before.Set([]byte(k), v)
					}
				}
				x.mark()
				for range rng.IntN(5) {
					if k := key(); rng.IntN(3) == 0 {
						x.Delete(k)
						want.Delete(k)
					} else {
						v := fmt.Appendf(nil, "%d", rng.Uint64()%1000)
						if rng.IntN(10) == 0 {
							v = nil
						}
						x.Set(k, v)
						want.Set(k, v)
					}
				}
				if before != nil {
					x.rollback()
					want = before
				}
				compareReaders(t, seed, x, want, key(), key())
			}
			commitTx(t, x, db)
		}
	}
}

func readAhead(t testing.TB, x *tx, db *pebble.DB) *sieve {
	t.Helper()
	s := new(sieve)
	if err := s.fill(db, x.ranges(), x.nameOf, nil); err != nil || !s.filled {
		t.Fatal("not read ahead", err)
	}
	return s
}

// Goal: a row of a table that is sought, and is not there, costs no look at the
// store; one that may be there does, and so does every row of another table.
func TestRowsThatAreNotThereAreNotLookedFor(t *testing.T) {
	db := txDB(t, vfs.NewMem(), "db")
	x := newTx('u', []byte{'h', 0xff})
	x.known = readAhead(t, x, db)
	for _, key := range []string{"h one", "\xff one", "x one"} {
		x.begin(db)
		x.Set([]byte(key), []byte("first"))
		commitTx(t, x, db)
	}
	for _, c := range []struct {
		key           string
		there, looked bool
	}{
		{"h one", true, true}, {"\xff one", true, true}, {"x one", true, true},
		{"h two", false, false}, {"\xff two", false, false}, {"x two", false, true},
	} {
		x.begin(db)
		_, there := x.Get([]byte(c.key))
		if looked := x.points != nil; there != c.there || looked != c.looked {
			t.Errorf("%q: there %v, looked for %v", c.key, there, looked)
		}
		commitTx(t, x, db)
	}
}

func commitTx(t testing.TB, x *tx, db *pebble.DB) {
	t.Helper()
	if err := x.end(); err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	x.flush(b)
	if err := b.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
}

func compareReaders(t *testing.T, seed uint64, got, want machine.Reader, a, b []byte) {
	t.Helper()
	v, ok := got.Get(a)
	w, okw := want.Get(a)
	if ok != okw || string(v) != string(w) {
		t.Fatalf("seed %d: Get %q is %q %v, want %q %v", seed, a, v, ok, w, okw)
	}
	if string(a) > string(b) {
		a, b = b, a
	}
	var bounds = [][2][]byte{{a, b}, {a, nil}, {nil, b}}
	for _, bound := range bounds {
		var x, y []string
		got.Scan(bound[0], bound[1], func(k, v []byte) bool {
			got.Scan(k, nil, func(k2, _ []byte) bool { // a Scan inside a Scan
				if string(k2) != string(k) {
					t.Fatalf("seed %d: inner scan begins at %q, want %q", seed, k2, k)
				}
				return false
			})
			x = append(x, string(k)+"="+string(v))
			return len(x) < 20
		})
		want.Scan(bound[0], bound[1], func(k, v []byte) bool { y = append(y, string(k)+"="+string(v)); return len(y) < 20 })
		if !slices.Equal(x, y) {
			t.Fatalf("seed %d: Scan %q is %q, want %q", seed, bound, x, y)
		}
	}
}

// Goal: keys are in the order of their bytes, whatever they have in common: tables
// of one key, keys that others begin with, zeros at the end, empty ones.
func TestOrderIsThatOfTheBytes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		x := newTx('u', nil)
		x.begin(nil)
		alike := make([]byte, rng.IntN(12))
		for range rng.IntN(60) {
			key := []byte{"mhw\x00\xff"[rng.IntN(5)]}
			key = append(key, alike...)
			for range rng.IntN(12) {
				key = append(key, byte(rng.IntN(3)))
			}
			x.Set(key[:len(key)-rng.IntN(2)*rng.IntN(len(key)+1)], nil)
		}
		var got []string
		for _, at := range x.order.all(x) {
			got = append(got, string(x.written[at].key))
		}
		if len(got) != len(x.written) || !slices.IsSorted(got) {
			t.Fatalf("%d keys as %q", len(x.written), got)
		}
	}
}

func BenchmarkOrder(b *testing.B) {
	x := newTx('u', nil)
	for b.Loop() {
		x.begin(nil)
		for i := range 2000 { // people of 100 tubes, as they come in batches from several booths
			tube := fmt.Appendf(nil, "m\x0e52%012d", 7_000_000+i%40*1000+i/800)
			x.Set(binary.BigEndian.AppendUint64(tube, uint64(i)*0x9e3779b97f4a7c15), nil)
		}
		x.order.all(x)
	}
}

// indexed is the other way to build a tx, kept to be measured against.
type indexed struct{ b *pebble.Batch }

func (x indexed) Get(key []byte) ([]byte, bool) {
	v, c, err := x.b.Get(append([]byte{'u'}, key...))
	if err != nil {
		return nil, false
	}
	defer c.Close()
	return slices.Clone(v), true
}
func (x indexed) Set(key, value []byte) { x.b.Set(append([]byte{'u'}, key...), value, nil) }
func (x indexed) Delete(key []byte)     { x.b.Delete(append([]byte{'u'}, key...), nil) }
func (x indexed) Scan(start, end []byte, fn func(k, v []byte) bool) {
	it, _ := x.b.NewIter(&pebble.IterOptions{LowerBound: append([]byte{'u'}, start...), UpperBound: append([]byte{'u'}, end...)})
	for ok := it.First(); ok && fn(it.Key()[1:], it.Value()); ok = it.Next() {
	}
	it.Close()
}

// BenchmarkTx measures what the floor adds to a fact: two reads (one of a key
// written in the same batch, one of a key that is nowhere) and three writes,
// in batches of 256 facts, committed. scan adds one Scan a fact.
func BenchmarkTx(b *testing.B) {
	const batch = 256
	load := func(x machine.Tx, i int, scan bool) {
		var k [24]byte
		binary.BigEndian.PutUint64(k[:], uint64(i)*0x9e3779b97f4a7c15)
		x.Get(k[:])
		x.Set(k[:], k[:])
		x.Get(k[:])
		k[8] = 1
		x.Set(k[:], k[:12])
		k[8] = 2
		x.Set(k[:], k[:12])
		if scan {
			x.Scan(k[:8], append(slices.Clone(k[:8]), 0xff), func(k, v []byte) bool { return true })
		}
	}
	for _, scan := range []bool{false, true} {
		b.Run(fmt.Sprintf("overlay/scan=%v", scan), func(b *testing.B) {
			db := txDB(b, vfs.Default, b.TempDir())
			x := newTx('u', nil)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batch == 0 {
					x.begin(db)
				}
				load(x, i, scan)
				if i%batch == batch-1 {
					x.end()
					bt := db.NewBatch()
					x.flush(bt)
					bt.Commit(pebble.NoSync)
				}
			}
			x.end()
		})
		b.Run(fmt.Sprintf("indexed/scan=%v", scan), func(b *testing.B) {
			db := txDB(b, vfs.Default, b.TempDir())
			var x indexed
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batch == 0 {
					x.b = db.NewIndexedBatch()
				}
				load(x, i, scan)
				if i%batch == batch-1 {
					x.b.Commit(pebble.NoSync)
				}
			}
		})
	}
}
