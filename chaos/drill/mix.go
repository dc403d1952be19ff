package drill

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"qianma/chaos/fault"
)

// Mix is every pair of some faults, in an order and at moments that follow from
// the seed: losses that nobody would think of together.
type Mix struct {
	Slot fault.Duration `yaml:"slot" json:"slot"` // from the beginning of a pair to that of the next
	Of   []fault.Spec   `yaml:"of" json:"of"`
}

// validate reports every fault of the mix.
func (m *Mix) validate(bad func(format string, args ...any)) {
	if len(m.Of) < 2 {
		bad("mix.of has %d faults: a pair takes two", len(m.Of))
	}
	for _, s := range m.Of {
		if _, ok := fault.Catalogue[s.Fault]; !ok {
			bad("mix: there is no fault %q", s.Fault)
		}
		if s.For <= 0 || s.For > m.Slot/2 {
			bad("mix: %s lasts %s; half of a slot (%s) is the most, so that the province is whole between two pairs", s.Fault, s.For, m.Slot)
		}
	}
}

// pairs is how many there are.
func (m *Mix) pairs() int { return len(m.Of) * (len(m.Of) - 1) / 2 }

func (m *Mix) length() fault.Duration { return m.Slot * fault.Duration(m.pairs()) }

// Drawn is the drill with its steps: of a mix, those that the seed gives.
func (d *Drill) Drawn(seed uint64, carriers []string) *Drill {
	if d.Mix == nil {
		return d
	}
	out := *d
	out.Steps = d.Mix.draw(rand.New(rand.NewPCG(seed, 0)), carriers)
	return &out
}

// draw orders the pairs, turns each by chance to the other carrier, and lets
// its second fault begin somewhere within its first.
func (m *Mix) draw(chance *rand.Rand, carriers []string) (steps []Step) {
	var pairs [][2]fault.Spec
	for i, a := range m.Of {
		for _, b := range m.Of[i+1:] {
			pairs = append(pairs, [2]fault.Spec{a, b})
		}
	}
	chance.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	for i, p := range pairs {
		if chance.IntN(2) == 1 {
			p[0], p[1] = p[1], p[0]
		}
		if chance.IntN(2) == 1 {
			p[0].Target, p[1].Target = turned(p[0].Target, carriers), turned(p[1].Target, carriers)
		}
		apart(&p, carriers)
		at := m.Slot * fault.Duration(i)
		steps = append(steps, Step{At: at, Spec: p[0]}, Step{At: at + fault.Duration(chance.Int64N(int64(p[0].For))), Spec: p[1]})
	}
	return steps
}

// apart turns the smaller of two faults away from a carrier that is lost as a
// whole: what is down cannot be stopped as well.
func apart(p *[2]fault.Spec, carriers []string) {
	for i := range p {
		lost, whole := strings.CutPrefix(p[i].Target, "carrier:")
		if other := &p[1-i]; whole && strings.HasSuffix(other.Target, "@"+lost+")") {
			other.Target = turned(other.Target, carriers)
		}
	}
}

// turned names the next carrier wherever the target names one.
func turned(target string, carriers []string) string {
	var to []string
	for i, c := range carriers {
		to = append(to, c, carriers[(i+1)%len(carriers)])
	}
	return strings.NewReplacer(to...).Replace(target)
}

// String says what the pairs are of.
func (m *Mix) String() string {
	var names []string
	for _, s := range m.Of {
		names = append(names, fmt.Sprintf("%s %s", s.Fault, s.Target))
	}
	slices.Sort(names)
	return fmt.Sprintf("%d pairs of %s", m.pairs(), strings.Join(names, ", "))
}
