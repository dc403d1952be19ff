// Package population invents people, tubes and pools, the same ones for the
// same seed, without keeping any of them.
//
// Person i has a resident document number that is valid to its check digit and
// is nobody else's in the same population. Nothing here is random at run time:
// a number can be told again from its index long after the run. The people do
// not exist; their numbers are drawn from all divisions, birthdays and
// sequences alike, which no real population is.
package population

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// divisions are county codes of Guizhou as resident numbers carry them.
var divisions = [...]string{
	"520102", "520103", "520111", "520112", "520113", "520115", "520121", "520122", "520123", "520181",
	"520201", "520203", "520221", "520302", "520303", "520322", "520323", "520382", "520402", "520422",
	"520502", "520521", "520523", "520602", "520603", "522301", "522322", "522601", "522622", "522701", "522702",
}

const (
	days      = 31_000 // birthdays, from 1930-01-01
	sequences = 999
	most      = uint64(len(divisions)) * days * sequences // distinct numbers
)

var firstDay = time.Date(1930, 1, 1, 0, 0, 0, 0, time.UTC)

// People is a population. Its methods are safe for concurrent use.
type People struct {
	Seed uint64
	N    uint32 // how many there are; more than Most cannot be told apart
	mul  uint64
	add  uint64
}

// Most is how many people one population can hold.
const Most = uint32(900_000_000)

// New returns the population of that seed.
func New(seed uint64, n uint32) *People {
	mul := Mix(seed, 1)%(most-1) + 1
	for gcd(mul, most) != 1 {
		mul++
	}
	return &People{Seed: seed, N: min(max(n, 1), Most), mul: mul, add: Mix(seed, 2) % most}
}

// AppendNumber writes the 18 characters of person i's document number.
func (p *People) AppendNumber(dst []byte, i uint32) []byte {
	// i -> i*mul+add mod most is one to one, so no two people share a number.
	hi, lo := bits.Mul64(uint64(i), p.mul)
	_, x := bits.Div64(hi, lo, most)
	x = (x + p.add) % most
	division, x := divisions[x%uint64(len(divisions))], x/uint64(len(divisions))
	day, seq := x%days, x/days+1
	year, month, date := firstDay.AddDate(0, 0, int(day)).Date()
	from := len(dst)
	dst = append(dst, division...)
	dst = appendDigits(dst, uint64(year), 4)
	dst = appendDigits(dst, uint64(month), 2)
	dst = appendDigits(dst, uint64(date), 2)
	dst = appendDigits(dst, seq, 3)
	return append(dst, CheckDigit(dst[from:]))
}

// CheckDigit is the eighteenth character of a resident number (GB 11643,
// ISO 7064 MOD 11-2) for its first seventeen.
func CheckDigit(first17 []byte) byte {
	sum := 0
	for _, c := range first17 {
		sum = (sum + int(c-'0')) * 2 % 11
	}
	return "10X98765432"[sum%11]
}

func appendDigits(dst []byte, n uint64, width int) []byte {
	at := len(dst)
	for range width {
		dst = append(dst, '0')
	}
	for i := at + width - 1; i >= at; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// AppendTube writes a tube's fourteen digits.
func AppendTube(dst []byte, tube uint64) []byte {
	return appendDigits(append(dst, "52"...), tube%tubes, 12)
}

const tubes = 1_000_000_000_000

// TubeBase is the first tube of a run that begins now. Runs take tubes more
// slowly than the base moves on (one each 50 µs), so no two runs share one.
func TubeBase(now time.Time) uint64 { return uint64(now.UnixMicro()/50) % tubes }

// Mix is a well-spread function of a seed and a number (SplitMix64).
func Mix(seed, n uint64) uint64 {
	z := seed + (n+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Draw picks who refreshes the code next: a few people often, most of them
// rarely, and a share of cold ones that are drawn from everybody alike. It is
// not safe for concurrent use.
type Draw struct {
	people *People
	rand   *rand.Rand
	zipf   *rand.Zipf
	cold   float64
}

// NewDraw returns a source of readers. skew is the exponent of Zipf's law,
// above 1; cold is the share (0..1) drawn evenly.
func NewDraw(p *People, seed uint64, skew, cold float64) *Draw {
	r := rand.New(rand.NewPCG(seed, 0x64726177))
	return &Draw{people: p, rand: r, zipf: rand.NewZipf(r, max(skew, 1.0001), 8, uint64(p.N-1)), cold: cold}
}

// Next is the index of a person.
func (d *Draw) Next() uint32 {
	if d.rand.Float64() < d.cold {
		return d.rand.Uint32N(d.people.N)
	}
	// Ranks are spread over the population, or the frequent ones would all be
	// those who were loaded first.
	return uint32(Mix(d.people.Seed, d.zipf.Uint64()) % uint64(d.people.N))
}

// Pool is a kind of tube and the share of people that are sampled into it.
type Pool struct {
	Size  uint8   `json:"size"`
	Share float64 `json:"share"`
}

// CityMix is a city's day: sealed zones and key groups singly, control zones
// ten to a tube, everybody else twenty.
var CityMix = []Pool{{20, .70}, {10, .20}, {5, .05}, {1, .05}}

// ParseMix reads "20:.7,10:.2,5:.05,1:.05": sizes of tubes, and of the people the
// share that is sampled into each.
func ParseMix(text string) ([]Pool, error) {
	var mix []Pool
	var whole float64
	for part := range strings.SplitSeq(text, ",") {
		size, share, _ := strings.Cut(strings.TrimSpace(part), ":")
		n, errN := strconv.ParseUint(size, 10, 8)
		f, errF := strconv.ParseFloat(share, 64)
		if errN != nil || errF != nil || !(f > 0 && f <= 1) {
			return nil, fmt.Errorf("pool %q: want SIZE:SHARE with a share above 0 and up to 1, as in 20:.7", part)
		}
		if !slices.Contains(sizes, uint8(n)) || slices.ContainsFunc(mix, func(p Pool) bool { return p.Size == uint8(n) }) {
			return nil, fmt.Errorf("pool %q: the sizes are %v, each named once at most", part, sizes)
		}
		mix, whole = append(mix, Pool{uint8(n), f}), whole+f
	}
	if math.Abs(whole-1) > .001 {
		return nil, fmt.Errorf("the shares of the pools %q come to %.3f: they must come to 1", text, whole)
	}
	return mix, nil
}

// sizes of tubes that people are pooled in, as the contract has them.
var sizes = []uint8{20, 10, 5, 1}

// PoolOf is the size of a tube, by the mix. Shares are of people, so small
// tubes are more than their share of tubes.
func PoolOf(mix []Pool, seed, tube uint64) uint8 {
	var total float64
	for _, p := range mix {
		total += p.Share / float64(p.Size)
	}
	at := float64(Mix(seed^0x706f6f6c, tube)>>11) / (1 << 53) * total
	for _, p := range mix {
		if at -= p.Share / float64(p.Size); at < 0 {
			return p.Size
		}
	}
	return mix[len(mix)-1].Size
}

// Walk is everybody once, in an order that the seed gives, and then again: a
// part's share of it, where several walk together. It keeps no list, and is not
// safe for concurrent use.
type Walk struct {
	n, mul, add       uint64
	part, parts, next uint64
}

// NewWalk begins a walk over n people: the part-th of parts that together meet
// everybody.
func NewWalk(n uint32, seed, part, parts uint64) *Walk {
	size := uint64(max(n, 1))
	mul := Mix(seed, 3)%size + 1
	for gcd(mul, size) != 1 {
		mul++
	}
	return &Walk{n: size, mul: mul, add: Mix(seed, 4) % size, part: part, parts: max(1, parts), next: part}
}

// Share is how many people the walk meets before it begins again.
func (w *Walk) Share() uint64 {
	if w.part >= w.n {
		return 0
	}
	return (w.n - w.part + w.parts - 1) / w.parts
}

// Next is the next person.
func (w *Walk) Next() uint32 {
	if w.next >= w.n {
		w.next = w.part % w.n
	}
	// mul and n have no divisor in common, so no two places give one person;
	// both are below 2^33, so nothing overflows.
	i := (w.next*w.mul + w.add) % w.n
	w.next += w.parts
	return uint32(i)
}
