package ledger

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func head() Head {
	return Head{Run: "r", Start: time.UnixMilli(1_663_300_000_000), People: 1000, TubeBase: 77, Stride: 2, Part: 1, Carriers: []string{"unicom", "mobile"}}
}

func TestAFileHoldsEveryEntryAndNoticesDamage(t *testing.T) {
	l := New(head())
	for i := range uint32(100_000) {
		l.Add(Entry{Person: i, Tube: i / 10, Sampled: i * 3, Carrier: uint8(i % 2), State: State(i % 5), Pool: 10, Outcome: Negative})
	}
	path := filepath.Join(t.TempDir(), "ledger")
	if err := l.Save(path); err != nil {
		t.Fatal(err)
	}
	back, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if back.Len() != l.Len() || !back.Head.Start.Equal(l.Head.Start) {
		t.Fatalf("read back %d entries of %d", back.Len(), l.Len())
	}
	for i := range uint32(l.Len()) {
		if *back.At(i) != *l.At(i) {
			t.Fatalf("entry %d: %+v, wrote %+v", i, *back.At(i), *l.At(i))
		}
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 100_000*32 {
		t.Errorf("%d bytes for 100000 tests: %v", st.Size(), err)
	}
	raw, _ := os.ReadFile(path)
	raw[len(raw)/2] ^= 1
	_ = os.WriteFile(path, raw, 0o600)
	if _, err := Load(path); err == nil {
		t.Error("a damaged file was read")
	}
	_ = os.WriteFile(path, raw[:len(raw)/2], 0o600)
	if _, err := Load(path); err == nil {
		t.Error("half a file was read")
	}
}

// answer is what an honest display says of the newest test among entries.
func (l *Ledger) answer(entries ...uint32) Seen {
	newest := entries[0]
	for _, i := range entries {
		if l.At(i).Sampled > l.At(newest).Sampled {
			newest = i
		}
	}
	e := l.At(newest)
	return Seen{Found: true, Sampled: l.Head.SampledAt(e), Status: e.Status()}
}

func TestAuditFindsWhatIsLostWrongAndRepeated(t *testing.T) {
	l := New(head())
	for i := range uint32(40) {
		l.Add(Entry{Person: i, Tube: i / 10, Sampled: i, State: Acked, Pool: 10, Outcome: Negative})
	}
	l.At(5).State = Unknown
	l.At(6).State = Failed
	for i := uint32(30); i < 40; i++ {
		l.At(i).Outcome = Positive
	}
	a := l.Audit()
	if a.Persons() != 38 {
		t.Fatalf("%d questions, want 38: neither the unknown nor the failed test must be there", a.Persons())
	}
	for q := range a.Persons() {
		p := a.Person(q)
		for _, c := range l.Head.Carriers {
			s := l.answer(p)
			switch {
			case p == 11 && c == "mobile":
				s = Seen{}
			case p == 12:
				s.Sampled -= 86_400_000 // an older test of the same person
			case p == 33:
				s.Status = "negative"
			case p == 13:
				s.Sampled -= s.Sampled % 1000 // display shows whole seconds
			}
			if a.Pleases(q, s) != (p != 12 && p != 33 && (p != 11 || c != "mobile")) {
				t.Errorf("person %d at %s: pleases %v", p, c, a.Pleases(q, s))
			}
			a.Seen(q, c, s)
		}
	}
	for _, tube := range a.Tubes() {
		swabs := map[uint32]int{0: 9, 1: 9, 2: 12, 3: 10}[tube] // the unknown one is there; 11 and 12 are lost, one more hides
		a.SeenTube(tube, "unicom", swabs)
		a.SeenTube(tube, "mobile", swabs-swabs/12) // of the two that are there too often it shows one
	}
	got := a.Close(1, true)
	if got.Lost != 2 || got.Wrong != 1 || got.Repeated != 2 || got.Visible != 35 || got.Missing["mobile"] != 2 || got.Missing["unicom"] != 1 || got.Hidden != 0 || !slices.Equal(got.Losses, []uint32{11, 12}) {
		t.Errorf("%+v", got)
	}
	if !got.Broken() || len(got.First) == 0 || got.First[0].Tube == 0 {
		t.Errorf("broken %v, first %+v", got.Broken(), got.First)
	}
}

// Goal: of one person's several tests only the newest is shown, and that is
// no loss; but the newest acknowledged must not hide behind an older one.
func TestOnlyTheNewestTestOfAPersonIsShown(t *testing.T) {
	l := New(head())
	old := l.Add(Entry{Person: 1, Tube: 0, Sampled: 1000, State: Acked, Pool: 10})
	mid := l.Add(Entry{Person: 1, Tube: 1, Sampled: 2000, State: Acked, Pool: 10})
	perhaps := l.Add(Entry{Person: 1, Tube: 2, Sampled: 3000, State: Unknown, Pool: 10})
	a := l.Audit()
	if a.Persons() != 1 {
		t.Fatalf("%d questions, want 1", a.Persons())
	}
	for i, want := range map[uint32]bool{old: false, mid: true, perhaps: true} {
		if got := a.Pleases(0, l.answer(i)); got != want {
			t.Errorf("shown test %d: pleases %v, want %v", i, got, want)
		}
	}
	// The old one is looked for in its tube.
	a.Seen(0, "unicom", l.answer(mid))
	a.SeenTube(0, "unicom", 0)
	if got := a.Close(1, true); got.Lost != 1 || got.First[0].Test != old || got.Checked != 2 || got.Visible != 1 || got.Hidden != 0 {
		t.Errorf("%+v", got)
	}
}

// Goal: a test that no code shows and no tube was asked for counts neither as
// looked for nor as seen.
func TestWhatIsHiddenIsSeenInItsTubeOrNotAtAll(t *testing.T) {
	for _, c := range []struct {
		tubes                    bool
		checked, visible, hidden int64
	}{{true, 3, 2, 1}, {false, 2, 2, 0}} {
		l := New(head())
		l.Add(Entry{Person: 1, Tube: 0, Sampled: 1000, State: Acked, Pool: 10})
		l.Add(Entry{Person: 1, Tube: 1, Sampled: 2000, State: Acked, Pool: 10})
		l.Add(Entry{Person: 2, Tube: 1, Sampled: 2000, State: Acked, Pool: 10})
		got := l.Audit().Close(1, c.tubes)
		if got.Acked != 3 || got.Checked != c.checked || got.Visible != c.visible || got.Hidden != c.hidden || got.RepeatedChecked != c.tubes {
			t.Errorf("tubes looked at %v: %+v", c.tubes, got)
		}
	}
}

// Goal: generators of one run never share a tube, and their joint ledger knows
// every tube by the number it was sent under.
func TestMergedLedgersKeepTheirTubesApart(t *testing.T) {
	var parts []*Ledger
	sent := map[uint64]uint8{}
	for part := range uint64(3) {
		h := head()
		h.Stride, h.Part = 3, part
		l := New(h)
		for tube := range uint32(4) {
			l.Add(Entry{Person: uint32(part)*10 + tube, Tube: tube, Pool: uint8(part), State: Acked})
			sent[h.TubeNumber(tube)] = uint8(part)
		}
		parts = append(parts, l)
	}
	if len(sent) != 12 {
		t.Fatalf("%d tubes for 12: generators share some", len(sent))
	}
	all, err := Merge(parts)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(all.Len()) {
		e := all.At(i)
		if part, ok := sent[all.Head.TubeNumber(e.Tube)]; !ok || part != e.Pool {
			t.Errorf("entry %d of part %d is in tube %d", i, e.Pool, all.Head.TubeNumber(e.Tube))
		}
	}
	parts[1].Head.Seed++
	if _, err := Merge(parts); err == nil {
		t.Error("ledgers of two runs were merged")
	}
}

// Goal: a ledger that is read back after later runs of the same people finds its
// tests in their tubes, and still finds those that are lost.
func TestAnotherRunsTestHidesAndExcusesNothing(t *testing.T) {
	for _, c := range []struct {
		name                           string
		later                          bool
		swabs                          int // that the tube holds
		tubes                          bool
		lost, checked, visible, hidden int64
	}{
		{"the tube holds all", true, 3, true, 0, 3, 1, 2},
		{"the tube is short", true, 2, true, 1, 3, 1, 1},
		{"nobody looks into tubes", true, 0, false, 0, 1, 1, 0},
		{"a run of its own", false, 3, true, 2, 3, 1, 0},
	} {
		l := New(head())
		l.Later = c.later
		for i := range uint32(3) {
			l.Add(Entry{Person: i, Tube: 0, Sampled: 1000, State: Acked, Pool: 10})
		}
		a := l.Audit()
		later := Seen{Found: true, Sampled: l.Head.Start.UnixMilli() + 90_000, Status: "negative"}
		for q, s := range []Seen{l.answer(0), later, later} {
			if !a.Pleases(q, s) && !a.Overtaken(q, s) {
				a.Seen(q, "unicom", s)
			}
		}
		if c.tubes {
			a.SeenTube(0, "unicom", c.swabs)
		}
		if got := a.Close(1, c.tubes); got.Lost != c.lost || got.Checked != c.checked || got.Visible != c.visible || got.Hidden != c.hidden {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// Goal: a test that one carrier shows wrongly is wrong, and not hidden as well
// where the other carrier shows a later run's.
func TestWhatIsWrongIsNotHiddenToo(t *testing.T) {
	l := New(head())
	l.Later = true
	l.Add(Entry{Person: 1, Tube: 0, Sampled: 1000, State: Acked, Pool: 10})
	a := l.Audit()
	wrong := l.answer(0)
	wrong.Status = "positive"
	a.Seen(0, "unicom", wrong)
	if !a.Overtaken(0, Seen{Found: true, Sampled: l.Head.Start.UnixMilli() + 90_000}) {
		t.Fatal("a later run's test is not known for one")
	}
	if got := a.Close(1, true); got.Wrong != 1 || got.Hidden != 0 || got.Visible != 0 {
		t.Errorf("%+v", got)
	}
}
