package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"qianma/loadtest/internal/digits"
)

// Seen is what a reader was told about a person, or about a tube.
type Seen struct {
	Found   bool
	Sampled int64  // Unix ms of the newest test; may be cut to the second
	Status  string // of the newest test, as display words it
}

// Outcomes of a tube, as the contract numbers them.
const (
	Negative uint8 = 1
	Positive uint8 = 2
)

// Status is what display must say of an entry whose result is in.
func (e *Entry) Status() string {
	switch {
	case e.Outcome != Positive:
		return "negative"
	case e.Pool > 1:
		return "pool_positive_retest"
	}
	return "positive"
}

// Audit holds what readers saw against the ledger. It asks about each person
// once at each carrier, and about each tube once at each carrier.
type Audit struct {
	l       *Ledger
	order   []uint32 // entries worth looking for, by person, newest first
	persons []span   // of order
	tubes   []members
	missing []bool // by entry
	wrong   []bool
	last    int64           // when the run's last swab was taken, in Unix ms
	behind  map[uint32]bool // newest tests of persons who show one of another run
	over    map[uint32]int  // by tube: the most swabs beyond those sent that some carrier showed
	byTube  map[uint32][]uint32
	shown   []bool // by entry, with byTube: what a code must show
	Report  Report
}

type span struct{ from, to uint32 }

type members struct{ sure, perhaps uint8 }

// Report is the outcome of an audit.
type Report struct {
	Acked    int64 `json:"acked"`    // tests that must be there
	Checked  int64 `json:"checked"`  // of these, looked for at every carrier
	Visible  int64 `json:"visible"`  // seen in their person's code, and right, at every carrier
	Hidden   int64 `json:"hidden"`   // behind a newer test of their person, of this run or of another, and counted in their tubes at every carrier
	Lost     int64 `json:"lost"`     // not seen at some carrier
	Wrong    int64 `json:"wrong"`    // seen with another status
	Repeated int64 `json:"repeated"` // more swabs in a tube than were sent; one that several carriers show is one
	// Whether repeats were looked for. A target that cannot count a tube's swabs
	// leaves Repeated 0, and that is no finding.
	RepeatedChecked bool             `json:"repeated_checked"`
	Tubes           int64            `json:"tubes"`   // tubes looked at
	Missing         map[string]int64 `json:"missing"` // by carrier: acknowledged tests not seen there
	First           []Ref            `json:"first"`   // the first few that are lost, wrong or repeated
	// Losses are all the tests that are lost, as indexes of the ledger.
	Losses []uint32 `json:"-"`
}

// Ref names a test for whoever follows it up; it names no person.
type Ref struct {
	What    string `json:"what"`
	Test    uint32 `json:"test"`
	Tube    uint64 `json:"tube"`
	Carrier string `json:"carrier"` // where it was looked for
	Seen    string `json:"seen,omitempty"`
}

// Broken says whether the system lied.
func (r *Report) Broken() bool { return r.Lost+r.Wrong+r.Repeated > 0 }

// Text says in a line what was acknowledged, looked for and seen.
func (r *Report) Text(carriers []string) string {
	sign := ","
	if r.Visible+r.Hidden == r.Checked {
		sign = " ="
	}
	hidden, repeated := "", "n/a"
	n := digits.Grouped
	if r.Hidden > 0 {
		hidden = fmt.Sprintf(" and %s behind a newer test in their tubes", n(r.Hidden))
	}
	if r.RepeatedChecked {
		repeated = n(r.Repeated)
	}
	return fmt.Sprintf("acknowledged %s, read back %s of them at %s%s visible %s%s; lost %s, wrong %s, repeated %s",
		n(r.Acked), n(r.Checked), strings.Join(carriers, " and "), sign, n(r.Visible), hidden, n(r.Lost), n(r.Wrong), repeated)
}

const firstFew = 20

// Audit prepares the questions.
func (l *Ledger) Audit() *Audit {
	a := &Audit{l: l, missing: make([]bool, l.n), wrong: make([]bool, l.n), over: map[uint32]int{}, behind: map[uint32]bool{}}
	a.Report.Missing = map[string]int64{}
	for i := range uint32(l.n) {
		e := l.At(i)
		if e.State == Acked {
			a.Report.Acked++
		}
		if e.State != Failed {
			a.order = append(a.order, i)
		}
		a.member(e)
		a.last = max(a.last, l.Head.SampledAt(e))
	}
	slices.SortFunc(a.order, func(i, j uint32) int {
		x, y := l.At(i), l.At(j)
		return cmp.Or(cmp.Compare(x.Person, y.Person), cmp.Compare(y.Sampled, x.Sampled), cmp.Compare(j, i))
	})
	for at := 0; at < len(a.order); {
		end := at + 1
		for end < len(a.order) && l.At(a.order[end]).Person == l.At(a.order[at]).Person {
			end++
		}
		a.ask(uint32(at), uint32(end))
		at = end
	}
	return a
}

func (a *Audit) member(e *Entry) {
	for int(e.Tube) >= len(a.tubes) {
		a.tubes = append(a.tubes, members{})
	}
	switch e.State {
	case Registered, Acked:
		a.tubes[e.Tube].sure++
	case Started, Unknown:
		a.tubes[e.Tube].perhaps++
	}
}

// ask keeps a person's tests down to the newest that must be there: only the
// newest is shown, so those below it are looked for in their tubes.
func (a *Audit) ask(from, to uint32) {
	for i := from; i < to; i++ {
		if a.l.At(a.order[i]).State == Acked {
			a.persons = append(a.persons, span{from, i + 1})
			return
		}
	}
}

// Persons is how many questions about people there are.
func (a *Audit) Persons() int { return len(a.persons) }

// Person is the person of a question.
func (a *Audit) Person(q int) uint32 { return a.l.At(a.order[a.persons[q].from]).Person }

// Tubes lists the ordinals of the tubes worth looking at.
func (a *Audit) Tubes() []uint32 {
	var out []uint32
	for i, m := range a.tubes {
		if m.sure > 0 {
			out = append(out, uint32(i))
		}
	}
	return out
}

// Number is the tube of an ordinal as the province knows it.
func (a *Audit) Number(ordinal uint32) uint64 { return a.l.Head.TubeNumber(ordinal) }

// Pleases says whether the answer is one that the question can have.
func (a *Audit) Pleases(q int, s Seen) bool { return a.match(q, s) == nil }

// match returns nil when the answer is right, else the entry that is not as
// it must be.
func (a *Audit) match(q int, s Seen) *verdict {
	p := a.persons[q] // its last is the acknowledged one; those before it may be there or not
	for _, i := range a.order[p.from:p.to] {
		e := a.l.At(i)
		if !s.Found || !sameTime(a.l.Head.SampledAt(e), s.Sampled) {
			continue
		}
		if e.State == Acked && s.Status != e.Status() {
			return &verdict{i, "wrong"}
		}
		return nil
	}
	return &verdict{a.newest(q), "lost"}
}

// Overtaken says whether a person shows a test that another run took after this
// one had ended, and takes it down: what is behind it is looked for in its tube.
func (a *Audit) Overtaken(q int, s Seen) bool {
	if !a.l.Later || !s.Found || s.Sampled <= a.last {
		return false
	}
	a.behind[a.newest(q)] = true
	return true
}

// newest is a person's newest acknowledged test.
func (a *Audit) newest(q int) uint32 { return a.order[a.persons[q].to-1] }

type verdict struct {
	entry uint32
	what  string
}

func sameTime(want, got int64) bool {
	return want == got || (got%1000 == 0 && want/1000 == got/1000)
}

// Seen takes down the final answer to a question at a carrier.
func (a *Audit) Seen(q int, carrier string, s Seen) {
	v := a.match(q, s)
	if v == nil {
		return
	}
	e := a.l.At(v.entry)
	if v.what == "lost" {
		a.Report.Missing[carrier]++
		a.missing[v.entry] = true
	} else {
		a.wrong[v.entry] = true
	}
	a.first(Ref{What: v.what, Test: v.entry, Tube: a.l.Head.TubeNumber(e.Tube), Carrier: carrier, Seen: s.Status})
}

// TubePleases says whether a tube may hold that many swabs.
func (a *Audit) TubePleases(ordinal uint32, swabs int) bool {
	m := a.tubes[ordinal]
	return swabs >= int(m.sure) && swabs <= int(m.sure)+int(m.perhaps)
}

// SeenTube takes down how many swabs a carrier says are in a tube.
func (a *Audit) SeenTube(ordinal uint32, carrier string, swabs int) {
	m := a.tubes[ordinal]
	over := swabs - int(m.sure) - int(m.perhaps)
	ref := Ref{Tube: a.l.Head.TubeNumber(ordinal), Carrier: carrier}
	switch {
	case over > 0:
		a.Report.Repeated += int64(max(0, over-a.over[ordinal]))
		a.over[ordinal] = max(over, a.over[ordinal])
		ref.What = "repeated"
		a.first(ref)
	case swabs < int(m.sure):
		a.short(ordinal, carrier, int(m.sure)-swabs)
	}
}

// short marks as many of the tube's tests as are missing, unless looking for
// the people has already found them missing. What a code showed was there: those
// that are hidden are taken for missing first.
func (a *Audit) short(ordinal uint32, carrier string, n int) {
	var there, shown []uint32
	for _, i := range a.inTube(ordinal) {
		switch {
		case a.missing[i]:
			n--
		case a.shown[i] && !a.behind[i]:
			shown = append(shown, i)
		default:
			there = append(there, i)
		}
	}
	there = append(there, shown...)
	for _, i := range there[:max(0, min(n, len(there)))] {
		a.missing[i] = true
		a.Report.Missing[carrier]++
		a.first(Ref{What: "lost", Test: i, Tube: a.l.Head.TubeNumber(ordinal), Carrier: carrier, Seen: "not in its tube"})
	}
}

// inTube lists the tests that must be in a tube. The index is made when the
// first tube turns out short: an honest system never needs it.
func (a *Audit) inTube(ordinal uint32) []uint32 {
	if a.byTube == nil {
		a.byTube, a.shown = map[uint32][]uint32{}, make([]bool, a.l.n)
		for q := range a.persons {
			a.shown[a.newest(q)] = true
		}
		for _, i := range a.order {
			if e := a.l.At(i); e.State == Acked || e.State == Registered {
				a.byTube[e.Tube] = append(a.byTube[e.Tube], i)
			}
		}
	}
	return a.byTube[ordinal]
}

func (a *Audit) first(r Ref) {
	if len(a.Report.First) < firstFew {
		a.Report.First = append(a.Report.First, r)
	}
}

// Close counts. Of the people every step-th was asked about; tubes says whether
// tubes were looked at. A test behind a newer one of its person can only be found
// there, and only when all of them were looked at is it known that it was.
func (a *Audit) Close(step int, tubes bool) Report {
	r := &a.Report
	for i := range a.missing {
		switch {
		case a.missing[i]:
			r.Lost++
			r.Losses = append(r.Losses, uint32(i))
		case a.wrong[i]:
			r.Wrong++
		}
	}
	r.RepeatedChecked = tubes
	var newestLost, behind int64
	for q := 0; q < len(a.persons); q += max(1, step) {
		newest := a.newest(q)
		switch {
		case a.missing[newest]:
			newestLost++
		case a.wrong[newest]: // at one carrier, whatever the other shows
		case a.behind[newest]:
			behind++
		default:
			r.Visible++
		}
		r.Checked++
	}
	if tubes && step <= 1 {
		r.Checked = r.Acked
		r.Hidden = r.Acked - int64(len(a.persons)) - a.ackedLost() + newestLost + behind
	} else {
		r.Checked -= behind // their tubes were not looked at: neither seen nor missed
	}
	return *r
}

// ackedLost is how many of the lost had been acknowledged: a tube that is short
// may be short of a test whose result never was.
func (a *Audit) ackedLost() (n int64) {
	for _, i := range a.Report.Losses {
		if a.l.At(i).State == Acked {
			n++
		}
	}
	return n
}
