package fact

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func drawOrigin(t *rapid.T) Origin {
	name := rapid.StringMatching(`[a-z][a-z0-9_-]{0,15}`)
	return Origin{name.Draw(t, "carrier"), name.Draw(t, "subsystem"), rapid.Uint16().Draw(t, "shard"), rapid.Uint64().Draw(t, "incarnation")}
}

// drawChain makes the blocks of one origin as its leader would.
func drawChain(t *rapid.T, n int) []Block {
	o := drawOrigin(t)
	var chain []Block
	at := Mark{}
	for range n {
		facts := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 40), 1, 5).Draw(t, "facts")
		b := Block{Origin: o, First: at.Seq + 1, Count: uint32(len(facts)), Stamp: rapid.Int64().Draw(t, "stamp"), Prev: at.Digest}
		for _, f := range facts {
			b.Body = AppendFact(b.Body, f)
		}
		chain = append(chain, b)
		at = b.Mark()
	}
	return chain
}

func equal(a, b Block) bool {
	return a.Origin == b.Origin && a.First == b.First && a.Count == b.Count && a.Stamp == b.Stamp && a.Prev == b.Prev && bytes.Equal(a.Body, b.Body)
}

func TestOriginText(t *testing.T) {
	o := Origin{"unicom", "nucleic", 3, 0x18c2f0a1b2c3d4e5}
	if o.String() != "unicom/nucleic/3/18c2f0a1b2c3d4e5" {
		t.Fatal(o)
	}
	rapid.Check(t, func(t *rapid.T) {
		o := drawOrigin(t)
		if got, err := ParseOrigin(o.String()); err != nil || got != o {
			t.Fatalf("%v became %v, %v", o, got, err)
		}
	})
	for _, s := range []string{
		"", "a/b/0", "a/b/0/1/2", "/b/0/1", "a//0/1", "a/b/65536/1", "a/b/-1/1", "a/b/x/1", "a/b/0/", "a/b/0/g",
		"a/b/0/10000000000000000", strings.Repeat("a", 256) + "/b/0/1", "a/" + strings.Repeat("b", 256) + "/0/1",
	} {
		if o, err := ParseOrigin(s); err == nil {
			t.Errorf("%q became %v", s, o)
		}
	}
}

// Several blocks stand one behind another and come back as they were.
func TestEncodingRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chain := drawChain(t, rapid.IntRange(1, 4).Draw(t, "blocks"))
		var raw []byte
		for i := range chain {
			raw = chain[i].Append(raw)
		}
		for i := range chain {
			b, rest, err := Decode(raw)
			if err != nil || !equal(b, chain[i]) || b.Sum() != chain[i].Sum() {
				t.Fatalf("block %d: %+v, %v", i, b, err)
			}
			raw = rest
		}
		if len(raw) != 0 {
			t.Fatalf("%d bytes are left", len(raw))
		}
	})
}

// The encoding and the digest are on disks and in the other carrier: they
// never change.
func TestEncodingIsFixed(t *testing.T) {
	b := Block{
		Origin: Origin{"unicom", "nucleic", 1, 2}, First: 3, Count: 2, Stamp: -5, Prev: Digest{6},
		Body: AppendFact(AppendFact(nil, []byte("ab")), nil),
	}
	const want = "01" + "06756e69636f6d" + "076e75636c656963" + "0001" + "0000000000000002" + "0000000000000003" + "00000002" +
		"fffffffffffffffb" + "0600000000000000000000000000000000000000000000000000000000000000" + "00000004" + "02616200"
	if got := hex.EncodeToString(b.Append(nil)); got != want {
		t.Errorf("encoding\n got %s\nwant %s", got, want)
	}
	sum := b.Sum()
	if got := hex.EncodeToString(sum[:]); got != "4f4873a12e9c11596c51b9bba831d74d81416a58fa5564ac7e867e7820174cf6" {
		t.Errorf("digest %s", got)
	}
	if sum.String() != hex.EncodeToString(sum[:8]) {
		t.Errorf("short digest %s", sum)
	}
}

func TestFacts(t *testing.T) {
	want := []string{"one", "", strings.Repeat("x", 300)}
	b := Block{First: 7, Count: 3}
	for _, f := range want {
		b.Body = AppendFact(b.Body, []byte(f))
	}
	var got []string
	err := b.Facts(func(seq uint64, f []byte) bool {
		if seq != b.First+uint64(len(got)) {
			t.Fatalf("fact %d has number %d", len(got), seq)
		}
		if cap(f) != len(f) {
			t.Fatal("an append to a fact would overwrite the next")
		}
		got = append(got, string(f))
		return true
	})
	if err != nil || !slices.Equal(got, want) || b.Last() != 9 {
		t.Fatalf("%q, %v", got, err)
	}
	n := 0
	if err := b.Facts(func(uint64, []byte) bool { n++; return n < 2 }); err != nil || n != 2 {
		t.Fatalf("stopped after %d, %v", n, err)
	}
	for name, bad := range map[string]Block{
		"one more than there are": {First: 1, Count: 4, Body: b.Body},
		"one fewer":               {First: 1, Count: 2, Body: b.Body},
		"cut":                     {First: 1, Count: 3, Body: b.Body[:len(b.Body)-1]},
		"endless length":          {First: 1, Count: 1, Body: bytes.Repeat([]byte{0xff}, 12)},
		"longer than the body":    {First: 1, Count: 1, Body: binary.AppendUvarint(nil, 1<<63)},
	} {
		if err := bad.Facts(func(uint64, []byte) bool { return true }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A holder is shown the blocks of a chain in any order, any number of times.
// What Follows says is compared with what plain bookkeeping says, and whatever
// the order, the holder ends where the chain ends.
func TestFollowsAgainstBookkeeping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chain := drawChain(t, rapid.IntRange(1, 6).Draw(t, "blocks"))
		held := 0 // blocks
		at := Mark{}
		for range rapid.IntRange(0, 30).Draw(t, "shown") {
			i := rapid.IntRange(0, len(chain)-1).Draw(t, "i")
			var want error
			switch {
			case i < held:
				want = ErrRepeat
			case i > held:
				want = ErrGap
			}
			if got := chain[i].Follows(at); !errors.Is(got, want) {
				t.Fatalf("block %d to a holder of %d: %v, want %v", i, held, got, want)
			}
			if i == held {
				at, held = chain[i].Mark(), held+1
			}
		}
		for ; held < len(chain); held++ {
			if err := chain[held].Follows(at); err != nil {
				t.Fatal(err)
			}
			at = chain[held].Mark()
		}
		if at != chain[len(chain)-1].Mark() {
			t.Fatal("the order shows in the mark")
		}
	})
}

// Whatever is changed in a block or in what the holder holds, it is not taken
// for the next of the chain.
func TestTwoTruthsAreSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chain := drawChain(t, 3)
		b := chain[1]
		b.Body = slices.Clone(b.Body)
		switch rapid.IntRange(0, 5).Draw(t, "change") {
		case 0:
			b.Stamp++
		case 1:
			b.Origin.Incarnation++
		case 2:
			b.Prev[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
		case 3:
			b.Body[rapid.IntRange(0, len(b.Body)-1).Draw(t, "byte")] ^= 1
		case 4:
			b.Origin.Shard++
		case 5:
			b.Body = append(b.Body, 0)
		}
		if b.Sum() == chain[1].Sum() {
			t.Fatal("the change does not show in the digest")
		}
		if err := b.Follows(chain[1].Mark()); !errors.Is(err, ErrDivergent) {
			t.Fatalf("the changed block to a holder of the other: %v", err)
		}
		if err := chain[2].Follows(b.Mark()); !errors.Is(err, ErrDivergent) {
			t.Fatalf("the next block to a holder of the changed one: %v", err)
		}
	})
}

func TestStraddlingBlockIsDivergent(t *testing.T) {
	b := Block{First: 3, Count: 4} // 3..6
	for _, seq := range []uint64{3, 4, 5} {
		if err := b.Follows(Mark{Seq: seq}); !errors.Is(err, ErrDivergent) {
			t.Errorf("to a holder of %d: %v", seq, err)
		}
	}
	for seq, want := range map[uint64]error{0: ErrGap, 1: ErrGap, 7: ErrRepeat} {
		if err := b.Follows(Mark{Seq: seq}); !errors.Is(err, want) {
			t.Errorf("to a holder of %d: %v, want %v", seq, err, want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := Block{Origin: Origin{"unicom", "nucleic", 0, 1}, First: 1, Count: 1, Body: AppendFact(nil, []byte("x"))}
	with := func(change func(*Block)) []byte {
		b := good
		change(&b)
		return b.Append(nil)
	}
	raw := good.Append(nil)
	for n := range len(raw) {
		if _, rest, err := Decode(raw[:n]); !errors.Is(err, ErrCorrupt) || len(rest) != n {
			t.Fatalf("%d of %d bytes: %v", n, len(raw), err)
		}
	}
	if _, rest, err := Decode(append(slices.Clone(raw), 9)); err != nil || string(rest) != "\x09" {
		t.Fatalf("%q behind the block, %v", rest, err)
	}
	for name, raw := range map[string][]byte{
		"version":          append([]byte{version + 1}, raw[1:]...),
		"no first":         with(func(b *Block) { b.First = 0 }),
		"no facts":         with(func(b *Block) { b.Count, b.Body = 0, nil }),
		"too many facts":   with(func(b *Block) { b.Count, b.Body = MaxFacts+1, make([]byte, MaxFacts+1) }),
		"too large":        with(func(b *Block) { b.Body = AppendFact(nil, make([]byte, MaxBody)) }),
		"past the end":     with(func(b *Block) { b.First = 1<<64 - 1 }),
		"facts and count":  with(func(b *Block) { b.Count = 2 }),
		"no carrier":       with(func(b *Block) { b.Origin.Carrier = "" }),
		"no subsystem":     with(func(b *Block) { b.Origin.Subsystem = "" }),
		"slash in carrier": with(func(b *Block) { b.Origin.Carrier = "uni/com" }),
		"slash in system":  with(func(b *Block) { b.Origin.Subsystem = "nuc/leic" }),
	} {
		if b, _, err := Decode(raw); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, b.Origin, err)
		}
	}
	most := with(func(b *Block) { b.Count, b.Body = MaxFacts, make([]byte, MaxFacts) })
	if _, _, err := Decode(most); err != nil {
		t.Errorf("as many facts as may be: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b := Block{Origin: Origin{"unicom", "nucleic", 1, 2}, First: 3, Count: 2, Stamp: 4, Body: AppendFact(AppendFact(nil, []byte("ab")), nil)}
	raw := b.Append(nil)
	f.Add(raw)
	f.Add(b.Append(slices.Clone(raw)))
	f.Add(raw[:len(raw)-1])
	f.Add([]byte{version, 255})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		b, rest, err := Decode(in)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || !bytes.Equal(rest, in) {
				t.Fatalf("%v, %d bytes of %d are left", err, len(rest), len(in))
			}
			return
		}
		used := in[:len(in)-len(rest)]
		if again := b.Append(nil); !bytes.Equal(again, used) {
			t.Fatalf("%x was read, %x is written", used, again)
		}
		if o, err := ParseOrigin(b.Origin.String()); err != nil || o != b.Origin {
			t.Fatalf("%v has no text form: %v", b.Origin, err)
		}
		n := uint32(0)
		if err := b.Facts(func(seq uint64, _ []byte) bool { n++; return seq >= b.First && seq <= b.Last() }); err != nil || n != b.Count {
			t.Fatalf("%d facts of %d, %v", n, b.Count, err)
		}
	})
}

func FuzzParseOrigin(f *testing.F) {
	f.Add("unicom/nucleic/0/18c2f0a1b2c3d4e5")
	f.Add("a/b/007/00F")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOrigin(s)
		if err != nil {
			return
		}
		if again, err := ParseOrigin(o.String()); err != nil || again != o {
			t.Fatalf("%q became %v and then %v, %v", s, o, again, err)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	blk := Block{Origin: Origin{"unicom", "nucleic", 0, 1}, First: 1, Count: 100}
	for range 100 {
		blk.Body = AppendFact(blk.Body, make([]byte, 128))
	}
	b.SetBytes(int64(len(blk.Body)))
	b.ReportAllocs()
	for b.Loop() {
		blk.Sum()
	}
}
