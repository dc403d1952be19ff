package population

import (
	"math"
	"slices"
	"testing"
	"time"
)

// The vector is a published one; the weights of GB 11643 written out are the
// dumb function that the clever one is held to.
func TestCheckDigit(t *testing.T) {
	if got := CheckDigit([]byte("11010120231101217")); got != '6' {
		t.Errorf("got %c, want 6", got)
	}
	weights := [17]int{7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}
	p := New(5, 10_000)
	var num []byte
	for i := range uint32(10_000) {
		num = p.AppendNumber(num[:0], i)
		sum := 0
		for k, w := range weights {
			sum += int(num[k]-'0') * w
		}
		if want := "10X98765432"[sum%11]; num[17] != want {
			t.Fatalf("person %d: check digit %c, want %c", i, num[17], want)
		}
	}
}

func TestNobodySharesANumberAndAllAreWellFormed(t *testing.T) {
	p := New(42, 300_000)
	seen := make(map[string]bool, 300_000)
	for i := range uint32(300_000) {
		num := string(p.AppendNumber(nil, i))
		if len(num) != 18 || seen[num] {
			t.Fatalf("person %d: length %d, shared %v", i, len(num), seen[num])
		}
		if _, err := time.Parse("20060102", num[6:14]); err != nil {
			t.Fatalf("person %d has no birthday: %v", i, err)
		}
		seen[num] = true
	}
	if string(New(42, 1).AppendNumber(nil, 7)) != string(p.AppendNumber(nil, 7)) {
		t.Error("the same seed gave another person")
	}
	if string(New(43, 1).AppendNumber(nil, 7)) == string(p.AppendNumber(nil, 7)) {
		t.Error("another seed gave the same person")
	}
}

func TestFewPeopleAreDrawnOftenAndColdOnesToo(t *testing.T) {
	p := New(1, 100_000)
	count := map[uint32]int{}
	d := NewDraw(p, 9, 1.1, 0)
	for range 100_000 {
		i := d.Next()
		if i >= p.N {
			t.Fatalf("drew %d of %d", i, p.N)
		}
		count[i]++
	}
	if len(count) > 60_000 {
		t.Errorf("%d people drawn in 100000 draws: not skewed", len(count))
	}
	clear(count)
	d = NewDraw(p, 9, 1.1, 1)
	for range 100_000 {
		count[d.Next()]++
	}
	if len(count) < 60_000 {
		t.Errorf("%d people drawn in 100000 cold draws: not even", len(count))
	}
}

func TestPoolsHaveTheirShareOfPeople(t *testing.T) {
	people := map[uint8]float64{}
	var all float64
	for tube := range uint64(200_000) {
		size := PoolOf(CityMix, 3, tube)
		people[size] += float64(size)
		all += float64(size)
	}
	for _, p := range CityMix {
		if got := people[p.Size] / all; math.Abs(got-p.Share) > .02 {
			t.Errorf("pool %d: %.3f of the people, want %.3f", p.Size, got, p.Share)
		}
	}
}

func TestAMixIsReadOrRefused(t *testing.T) {
	mix, err := ParseMix("20:.7, 10:.2,5:.05,1:.05")
	if err != nil || !slices.Equal(mix, CityMix) {
		t.Errorf("%v, %v", mix, err)
	}
	for _, bad := range []string{"", "20", "20:", "20:x", "20:-1,10:2", "20:.5", "20:.5,20:.5", "7:1", "0:1", "300:1", "20:NaN", "20:Inf", "20:.7,10:.2,5:.05,1:.06", "20:1,"} {
		if mix, err := ParseMix(bad); err == nil {
			t.Errorf("%q was read as %v", bad, mix)
		}
	}
}

func TestTubesOfLaterRunsAreOthers(t *testing.T) {
	now := time.Date(2022, 9, 16, 7, 0, 0, 0, time.UTC)
	a, b := TubeBase(now), TubeBase(now.Add(10*time.Second))
	if b-a != 200_000 {
		t.Errorf("ten seconds are worth %d tubes, want 200000", b-a)
	}
	if got := string(AppendTube(nil, a)); len(got) != 14 || got[:2] != "52" {
		t.Errorf("tube %q", got)
	}
}

// Goal: whoever walks, alone or several together, meets everybody once; another
// seed gives another order.
func TestAWalkMeetsEverybodyOnce(t *testing.T) {
	for _, n := range []uint32{1, 2, 7, 500, 99_991, 100_000} {
		for _, parts := range []uint64{1, 3} {
			met := make([]int, n)
			for part := range parts {
				w := NewWalk(n, 5, part, parts)
				for range w.Share() {
					met[w.Next()]++
				}
			}
			if i := slices.IndexFunc(met, func(times int) bool { return times != 1 }); i >= 0 {
				t.Errorf("%d people, %d parts: person %d was met %d times", n, parts, i, met[i])
			}
		}
	}
	a, b := NewWalk(1000, 5, 0, 1), NewWalk(1000, 6, 0, 1)
	same := 0
	for range 1000 {
		if a.Next() == b.Next() {
			same++
		}
	}
	if same > 100 {
		t.Errorf("two seeds agree in %d of 1000 places", same)
	}
}

func BenchmarkAppendNumber(b *testing.B) {
	p := New(1, Most)
	var buf [32]byte
	for i := range b.N {
		p.AppendNumber(buf[:0], uint32(i))
	}
}
