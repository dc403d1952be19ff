package check

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"qianma/chaos/model"
)

// honest makes the history of a small system that keeps its word: one writer,
// two readers and one phone, at two carriers.
func honest(seed uint64) *model.History {
	h := &model.History{Start: time.UnixMilli(1_700_000_000_000)}
	r := rand.New(rand.NewPCG(seed, 1))
	at, seq := time.Duration(0), uint64(0)
	step := func() (start, end time.Duration) {
		start = at
		at += time.Duration(1+r.IntN(5)) * time.Millisecond
		end = at
		at += time.Millisecond
		return start, end
	}
	for t := range 4 {
		tube, set := fmt.Sprintf("tube-%d", t), uint64(0)
		read := func(carrier string, final bool) {
			s, e := step()
			h.Add(model.Op{Client: 2, Kind: model.Read, Carrier: carrier, Start: s, End: e, Outcome: model.OK, Tube: tube, Members: set, Final: final})
		}
		for m := range 6 {
			s, e := step()
			seq++
			person, key := 1+t, fmt.Sprintf("key-%d-%d", t, m)
			rcpt := model.Receipt{Level: model.Replicated, Origin: "unicom/nucleic/0/1", First: seq, Last: seq}
			op := model.Op{Client: 1, Kind: model.Register, Carrier: "unicom", Start: s, End: e, Outcome: model.OK,
				Key: key, Tube: tube, Member: m, Person: person, Sampled: h.Wall(s), Receipt: &rcpt}
			h.Add(op)
			set |= 1 << m
			sr, er := step()
			h.Add(model.Op{Client: 1, Kind: model.Result, Carrier: "unicom", Start: sr, End: er, Outcome: model.OK, Person: person, Sampled: op.Sampled})
			again := rcpt
			again.Replayed = true
			s2, e2 := step()
			h.Add(model.Op{Client: 1, Kind: model.Repeat, Carrier: "unicom", Start: s2, End: e2, Outcome: model.OK, Key: key, Receipt: &again})
			read("unicom", false)
			read("mobile", false)
			at += 2 * slack
			s3, e3 := step()
			h.Add(model.Op{Client: 3, Kind: model.Show, Carrier: "mobile", Start: s3, End: e3, Outcome: model.OK, Person: person,
				View: &model.View{Colour: "green", Status: "negative", Sampled: op.Sampled, AsOf: map[string]int64{"unicom": h.Wall(s3)}}})
		}
		read("unicom", true)
		read("mobile", true)
	}
	s, e := step()
	h.Add(model.Op{Client: 4, Kind: model.Restrict, Carrier: "mobile", Start: s, End: e, Outcome: model.OK, Person: 99, Colour: "red"})
	s, e = step()
	h.Add(model.Op{Client: 4, Kind: model.Show, Carrier: "mobile", Start: s, End: e, Outcome: model.OK, Person: 99, View: &model.View{Colour: "red"}})
	return h
}

// pick returns the n-th operation of a kind that the function likes.
func pick(h *model.History, n int, like func(*model.Op) bool) *model.Op {
	var all []*model.Op
	for i := range h.Ops {
		if like(&h.Ops[i]) {
			all = append(all, &h.Ops[i])
		}
	}
	return all[n%len(all)]
}

func kind(k model.Kind) func(*model.Op) bool { return func(op *model.Op) bool { return op.Kind == k } }

// plants are lies, each with the check that must find it.
var plants = []struct {
	name, check string
	plant       func(h *model.History, n int)
}{
	{"an acknowledged member is in no read after it (an acknowledgement before it is durable)", Lost, func(h *model.History, n int) {
		w := pick(h, n, kind(model.Register))
		for i := range h.Ops {
			if op := &h.Ops[i]; op.Kind == model.Read && op.Tube == w.Tube {
				op.Members &^= 1 << w.Member
			}
		}
	}},
	{"one carrier never shows a member (a feed that skips)", Lost, func(h *model.History, n int) {
		w := pick(h, n, kind(model.Register))
		for i := range h.Ops {
			if op := &h.Ops[i]; op.Final && op.Carrier == "mobile" && op.Tube == w.Tube {
				op.Members &^= 1 << w.Member
			}
		}
	}},
	{"a read shows a member that nobody sent", Lost, func(h *model.History, n int) { pick(h, n, kind(model.Read)).Strange = 1 }},
	{"one read misses what the read before it showed (a replica that serves old state)", Linearizable, func(h *model.History, n int) {
		pick(h, n, func(op *model.Op) bool {
			return op.Kind == model.Read && op.Carrier == "unicom" && op.Members > 1 && !op.Final
		}).Members = 0
	}},
	{"a read shows a member before it was sent", Linearizable, func(h *model.History, n int) {
		pick(h, n, func(op *model.Op) bool {
			return op.Kind == model.Read && op.Carrier == "unicom" && op.Members < 1<<5 && !op.Final
		}).Members |= 1 << 5
	}},
	{"a receipt says replicated and the other carrier does not have it", Receipts, func(h *model.History, n int) {
		r := pick(h, n, func(op *model.Op) bool { return op.Kind == model.Read && op.Carrier == "mobile" && !op.Final })
		r.Members = 0
	}},
	{"two requests are given one address", Receipts, func(h *model.History, n int) {
		a := pick(h, n, kind(model.Register))
		b := pick(h, n+1, kind(model.Register))
		b.Receipt.First, b.Receipt.Last = a.Receipt.First, a.Receipt.Last
	}},
	{"a repeat is done again", Repeats, func(h *model.History, n int) {
		r := pick(h, n, kind(model.Repeat))
		r.Receipt.First += 1000
		r.Receipt.Last += 1000
	}},
	{"a phone goes back to an older test", Monotonic, func(h *model.History, n int) {
		v := pick(h, n, func(op *model.Op) bool { return op.Kind == model.Show && op.Person < 99 })
		again := *v
		again.View = &model.View{Colour: "green", Status: "negative", Sampled: v.View.Sampled - 1000, AsOf: map[string]int64{}}
		again.Start, again.End = h.Ops[len(h.Ops)-1].End, h.Ops[len(h.Ops)-1].End+1
		h.Add(again)
	}},
	{"a result is taken back to waiting", Monotonic, func(h *model.History, n int) {
		v := pick(h, n, func(op *model.Op) bool { return op.Kind == model.Show && op.Person < 99 })
		a, b := *v, *v
		end := h.Ops[len(h.Ops)-1].End
		top := int64(1) << 60
		a.View = &model.View{Status: "negative", Sampled: top}
		b.View = &model.View{Status: "pending", Sampled: top}
		a.Start, a.End, b.Start, b.End = end, end+1, end+2, end+3
		h.Add(a)
		h.Add(b)
	}},
	{"green as of now without the newest test (silently stale)", StaleGreen, func(h *model.History, n int) {
		pick(h, n, func(op *model.Op) bool { return op.Kind == model.Show && op.Person < 99 }).View.Sampled--
	}},
	{"a restricted person is shown green, with a word about its age", StaleGreen, func(h *model.History, n int) {
		v := pick(h, n, func(op *model.Op) bool { return op.Kind == model.Show && op.Person == 99 }).View
		v.Colour, v.Stale = "green", true
	}},
	{"a restricted person is shown yellow without a word", StaleGreen, func(h *model.History, n int) {
		pick(h, n, func(op *model.Op) bool { return op.Kind == model.Show && op.Person == 99 }).View.Colour = "yellow"
	}},
	{"a restriction is forgotten", StaleGreen, func(h *model.History, n int) {
		pick(h, n, func(op *model.Op) bool { return op.Kind == model.Show && op.Person == 99 }).View.Colour = "green"
	}},
}

func finding(t *testing.T, h *model.History, name string) Finding {
	t.Helper()
	for _, f := range History(h, model.Committed) {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no check is called %s", name)
	return Finding{}
}

// TestHonestHistoriesPass: what a true system can answer breaks nothing, and
// every check has something to look at.
func TestHonestHistoriesPass(t *testing.T) {
	for seed := range uint64(20) {
		for _, f := range History(honest(seed), model.Committed) {
			if f.Broken > 0 || f.Unsure != "" || f.Looked == 0 {
				t.Errorf("seed %d: %+v", seed, f)
			}
		}
	}
}

// TestEveryPlantIsFound: each lie, at many places, is found by the check that
// is there for it.
func TestEveryPlantIsFound(t *testing.T) {
	for _, p := range plants {
		for n := range 12 {
			h := honest(uint64(n))
			p.plant(h, n)
			if f := finding(t, h, p.check); f.Broken == 0 {
				t.Errorf("%s, at place %d: %s found nothing", p.name, n, p.check)
			}
		}
	}
}

// TestOneInTenThousand: a replica that drops one fact in 10,000 is found, and
// what was dropped is named.
func TestOneInTenThousand(t *testing.T) {
	h := &model.History{}
	const tubes, each = 200, 50
	for i := range tubes {
		tube, all := fmt.Sprint(i), uint64(1<<each-1)
		for m := range each {
			h.Add(model.Op{Kind: model.Register, Carrier: "unicom", Outcome: model.OK, Tube: tube, Member: m, Start: 1, End: 2})
		}
		if i == 77 {
			all &^= 1 << 33
		}
		h.Add(model.Op{Kind: model.Read, Carrier: "mobile", Outcome: model.OK, Tube: tube, Members: all, Final: true, Start: 3, End: 4})
	}
	f := finding(t, h, Lost)
	if f.Broken != 1 || f.Looked != tubes*each || len(f.First) != 1 {
		t.Errorf("%+v", f)
	}
}

// TestUnknownIsUnknown: a write whose answer was lost may show or not, and may
// show late; only what was acknowledged must show.
func TestUnknownIsUnknown(t *testing.T) {
	write := model.Op{Client: 1, Kind: model.Register, Carrier: "unicom", Tube: "t", Start: 1, End: 5, Outcome: model.Unknown}
	read := func(start time.Duration, members uint64) model.Op {
		return model.Op{Client: 2, Kind: model.Read, Carrier: "unicom", Tube: "t", Start: start, End: start + 1, Outcome: model.OK, Members: members}
	}
	for name, c := range map[string]struct {
		ops    []model.Op
		broken bool
	}{
		"never done":        {[]model.Op{write, read(6, 0), read(8, 0)}, false},
		"done late":         {[]model.Op{write, read(6, 0), read(8, 1)}, false},
		"done and undone":   {[]model.Op{write, read(6, 1), read(8, 0)}, true},
		"stale and says so": {[]model.Op{write, read(6, 1), {Client: 2, Kind: model.Read, Carrier: "unicom", Tube: "t", Start: 8, End: 9, Outcome: model.OK, Stale: true}}, false},
	} {
		h := &model.History{Ops: c.ops}
		if f := finding(t, h, Linearizable); (f.Broken > 0) != c.broken {
			t.Errorf("%s: %+v", name, f)
		}
		if f := finding(t, h, Lost); f.Broken > 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestAHistoryIsKept(t *testing.T) {
	h := honest(3)
	path := filepath.Join(t.TempDir(), "history")
	if err := h.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := model.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Ops, h.Ops) || !got.Start.Equal(h.Start) {
		t.Error("a history that was written down reads otherwise")
	}
}

// TestRepeatsInAnotherLife: keys go with the disks. Where those are destroyed
// the next life of a carrier may give a repeat another address; the same life
// may not, nor may anybody where no disk is destroyed.
func TestRepeatsInAnotherLife(t *testing.T) {
	at := func(origin string, seq uint64) *model.Receipt {
		return &model.Receipt{Level: model.Committed, Origin: origin, First: seq, Last: seq}
	}
	for name, c := range map[string]struct {
		owed   model.Level
		again  *model.Receipt
		broken int
	}{
		"another life, disks destroyed": {model.Replicated, at("unicom/nucleic/0/2", 1), 0},
		"another life, disks kept":      {model.Committed, at("unicom/nucleic/0/2", 1), 1},
		"the same life":                 {model.Replicated, at("unicom/nucleic/0/1", 9), 1},
		"another shard":                 {model.Replicated, at("unicom/nucleic/1/1", 7), 1},
	} {
		h := &model.History{Ops: []model.Op{
			{Kind: model.Register, Carrier: "unicom", Outcome: model.OK, Key: "k", Receipt: at("unicom/nucleic/0/1", 7)},
			{Kind: model.Repeat, Carrier: "unicom", Outcome: model.OK, Key: "k", Receipt: c.again},
			{Kind: model.Repeat, Carrier: "unicom", Outcome: model.OK, Key: "k", Receipt: c.again},
		}}
		f := checkRepeats(h, c.owed)
		if c.broken == 0 && f.Broken != 0 || c.broken > 0 && f.Broken == 0 {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestWhatIsOwed: where disks are destroyed only what was called replicated
// must still be there, and that must.
func TestWhatIsOwed(t *testing.T) {
	for level, broken := range map[model.Level]int{model.Committed: 0, model.Replicated: 1} {
		h := &model.History{Ops: []model.Op{
			{Kind: model.Register, Carrier: "mobile", Outcome: model.OK, Tube: "t", Start: 1, End: 2, Receipt: &model.Receipt{Level: level}},
			{Kind: model.Read, Carrier: "unicom", Outcome: model.OK, Tube: "t", Final: true, Start: 3, End: 4},
		}}
		if f := checkLost(h, model.Replicated); f.Broken != broken {
			t.Errorf("%s: %+v", level, f)
		}
	}
}
