package replica

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func randomKey(r *rand.Rand) (k [16]byte) {
	binary.BigEndian.PutUint64(k[:], r.Uint64())
	binary.BigEndian.PutUint64(k[8:], r.Uint64())
	return k
}

// Goal: a key that a living generation holds is never called new, whatever
// was kept, rotated and read ahead before. Method: the ledger's two
// generations as plain maps in a store, against the sieve; the store is read
// ahead at a random moment, as after a restart.
func TestSieveNeverForgetsALivingKey(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		db, err := pebble.Open("", &pebble.Options{FS: vfs.NewMem(), DisableWAL: true})
		if err != nil {
			t.Fatal(err)
		}
		living := map[uint32]map[[16]byte]bool{0: {}, 1: {}}
		generation, s := uint32(1), &sieve{filled: true}
		keep := func() {
			k := randomKey(r)
			living[generation][k] = true
			if err := db.Set(appendReceiptKey(nil, generation, k), nil, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			s.add(&k)
		}
		rotate := func() {
			delete(living, generation-1)
			generation++
			living[generation] = map[[16]byte]bool{}
			s.rotate()
		}
		for range 1 + r.IntN(400) {
			switch r.IntN(40) {
			case 0:
				rotate()
			case 1: // the process starts again
				s = new(sieve)
				if err := s.fill(db, []pebble.KeyRange{receipts}, keyOfReceipt, nil); err != nil {
					t.Fatal(err)
				}
			default:
				keep()
			}
			for g, keys := range living {
				for k := range keys {
					if !s.maybe(&k) {
						t.Fatalf("a key of generation %d is called new in generation %d", g, generation)
					}
				}
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Until everything has been read ahead, nothing may be called new.
func TestSieveThatIsNotFilledSaysPerhaps(t *testing.T) {
	k := [16]byte{1}
	if s := new(sieve); !s.maybe(&k) {
		t.Error("an empty sieve that was never filled calls a key new")
	}
}

// Goal: of a store with more keys than a sieve can tell apart no more are read than
// that, and nothing is called new.
func TestASieveThatWouldBeBlindIsNotFilled(t *testing.T) {
	x := newTx('u', []byte("h"))
	db := txDB(t, vfs.NewMem(), "db")
	x.begin(db)
	x.Set([]byte("h"), nil)
	commitTx(t, x, db)
	last := newMesh(meshMax)
	s := &sieve{young: meshes{last}}
	last.room = -3 * last.room // as if four times as many had been noted
	k := [16]byte{1}
	if err := s.fill(db, x.ranges(), x.nameOf, nil); err != nil || s.filled || !s.maybe(&k) {
		t.Errorf("filled %v, %v", s.filled, err)
	}
}

// Goal: it is of use: new keys are nearly all called new, over several meshes,
// whatever of a key its caller left to chance.
func TestSieveTellsNewKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	n := uint64(0)
	ordered := func(second uint64) (k [16]byte) { // of version 7, 16 in each millisecond
		n++
		binary.BigEndian.PutUint64(k[:], (1_790_000_000_000+n/16)<<16|7<<12)
		binary.BigEndian.PutUint64(k[8:], 1<<63|second>>2)
		return k
	}
	for name, key := range map[string]func() [16]byte{
		"digests":          func() [16]byte { return randomKey(r) },
		"times":            func() [16]byte { return ordered(r.Uint64()) },
		"times, counted":   func() [16]byte { return ordered(n << 2) },
		"counted in front": func() (k [16]byte) { n++; binary.BigEndian.PutUint64(k[:], n); return k },
	} {
		s := &sieve{filled: true}
		for range 3 * meshMin * keysPerLine {
			k := key()
			s.add(&k)
		}
		wrong := 0
		const asked = 20000
		for range asked {
			if k := key(); s.maybe(&k) {
				wrong++
			}
		}
		if len(s.young) < 2 || wrong > asked/30 {
			t.Errorf("%s: %d of %d new keys were not called new, over %d meshes", name, wrong, asked, len(s.young))
		}
	}
}

func BenchmarkSieve(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 7))
	s := &sieve{filled: true}
	for range 4 << 20 {
		k := randomKey(r)
		s.add(&k)
	}
	for b.Loop() {
		k := randomKey(r)
		s.maybe(&k)
	}
}
