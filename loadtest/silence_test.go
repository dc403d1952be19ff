package loadtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/internal/fake"
	"qianma/loadtest/ledger"
	"qianma/loadtest/report"
)

// mute is a target whose tries end as it is told.
type mute struct {
	drive.Target
	ended []*drive.Op
}

func (m *mute) Start(op *drive.Op) { m.ended = append(m.ended, op) }

func (m *mute) Poll(_ time.Duration, done func(*drive.Op)) error {
	for _, op := range m.ended {
		done(op)
	}
	m.ended = nil
	return nil
}

// Goal: a carrier is given up when it has answered nothing for the whole bound, and
// for no less: any answer begins the wait anew, and those of others are not its own.
// Method: tries on a clock of the test's.
func TestOnlyACarrierThatAnswersNothingIsGivenUp(t *testing.T) {
	var clock time.Duration
	gaveUp := 0
	var said []string
	how := Reading{Absent: 30 * time.Second, Say: func(s string) { said = append(said, s) }}
	e := newEar(&mute{}, []string{"unicom", "mobile"}, how, func() { gaveUp++ })
	e.now = func() time.Duration { return clock }
	try := func(carrier int, k drive.Kind, o drive.Outcome, status int) {
		t.Helper()
		op := &drive.Op{Carrier: carrier, Kind: k, Outcome: o}
		op.Call.Status = status
		e.Start(op)
		if err := e.Poll(0, func(*drive.Op) {}); err != nil {
			t.Fatal(err)
		}
	}
	const unicom, mobile = 0, 1
	for _, answer := range []struct {
		o      drive.Outcome
		status int
	}{{drive.OK, 200}, {drive.Refused, 503}, {drive.Rejected, 404}, {drive.Unknown, 500}} {
		try(mobile, drive.Display, drive.NotSent, 0)
		clock += 29 * time.Second
		try(mobile, drive.Display, drive.Unknown, 0)
		try(mobile, drive.Display, answer.o, answer.status)
	}
	if gaveUp > 0 || len(said) != 4 {
		t.Fatalf("gave up %d times, said %q: it answered within the bound each time", gaveUp, said)
	}
	try(mobile, drive.Display, drive.NotSent, 0)
	clock += 31 * time.Second
	try(unicom, drive.Display, drive.OK, 200)
	try(mobile, drive.Tube, drive.OK, 200)
	try(mobile, drive.Display, drive.NotSent, 0)
	if gaveUp != 1 || e.silent == nil || !strings.Contains(e.silent.Error(), "nobody at mobile answered any question about people for 31s") {
		t.Errorf("gave up %d times: %v", gaveUp, e.silent)
	}
	e.silent = nil
	try(unicom, drive.Display, drive.NotSent, 0)
	clock += 31 * time.Second
	try(unicom, drive.Display, drive.NotSent, 0)
	if e.silent == nil || !strings.Contains(e.silent.Error(), "nobody at unicom and mobile answered") {
		t.Errorf("neither answers: %v", e.silent)
	}
}

// counted counts the questions that are begun.
type counted struct {
	drive.Target
	begun *int
}

func (c counted) Start(op *drive.Op) {
	if op.Tries == 1 {
		*c.begun++
	}
	c.Target.Start(op)
}

// Goal: a carrier that is gone when the ledger is to be read back ends that, and not
// the report: it says that nobody looked, why, and how to look later. Nobody else is
// asked about meanwhile.
func TestACarrierThatIsGoneIsNotReadBack(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", 500, 2*time.Second)
	o.Absent = 200 * time.Millisecond
	o.Rest = func(context.Context) { p.Stop("mobile") }
	opened, begun := 0, 0
	open := o.System.Open
	o.System.Open = func(run string) (drive.Target, error) {
		target, err := open(run)
		if opened++; opened == 2 {
			target = counted{target, &begun}
		}
		return target, err
	}
	var said []string
	o.Say = func(s string) { said = append(said, s) }
	res := load(t, o)
	kept, err := ledger.Load(filepath.Join(o.Out, "ledger"))
	if err != nil || int64(kept.Count()[ledger.Acked]) != res.Acked {
		t.Errorf("kept %v, %v", kept, err)
	}
	saved, err := report.Load(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	note := func(s string) bool {
		return strings.Contains(s, "nobody at mobile answered any question") && strings.HasSuffix(s, "qianma load check "+o.Out+" reads it back later")
	}
	if saved.Ledger != nil || !slices.ContainsFunc(saved.Notes, note) || !slices.Contains(saved.NotMeasured, "lost, wrong, repeated (the ledger was not read back)") {
		t.Errorf("ledger %v, notes %q, not measured %q", saved.Ledger, saved.Notes, saved.NotMeasured)
	}
	if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "mobile does not answer") }) {
		t.Errorf("nobody was told of the wait: %q", said)
	}
	// Unicom's questions are answered until the width is full of mobile's.
	if all := 2 * kept.Len(); begun == 0 || begun > all*3/4 {
		t.Errorf("%d questions were begun, of %d people's alone", begun, all)
	}
	if err := (&RunCommand{}).unread(res); exitCode(err) != CouldNotRun {
		t.Errorf("the command would end with %v: nobody looked, though it was asked", err)
	}
}

// Goal: reading back that is interrupted ends with the questions in flight, and the
// report is written all the same.
func TestReadingBackCanBeInterrupted(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", 500, 2*time.Second)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o.Rest = func(context.Context) { cancel() }
	begun, opened := 0, 0
	open := o.System.Open
	o.System.Open = func(run string) (drive.Target, error) {
		target, err := open(run)
		if opened++; opened == 2 {
			target = counted{target, &begun}
		}
		return target, err
	}
	res, l, err := Run(ctx, o)
	if err == nil || !strings.Contains(err.Error(), "qianma load check "+o.Out+" reads it back later") {
		t.Errorf("it ended with %v", err)
	}
	if begun > l.Len()/2 {
		t.Errorf("%d questions were begun after the interruption, for %d tests", begun, l.Len())
	}
	if saved, err := report.Load(o.Out); err != nil || saved.Acked != res.Acked || saved.Ledger != nil {
		t.Errorf("the report: %+v, %v", saved, err)
	}
}

// Goal: a system whose processes cannot be listed any more when all has ended costs
// the run its cost, and neither its ledger nor its report. Method: the source fails
// once the ledger is there, so that it must have been written before.
func TestTheLedgerIsKeptWhenTheSystemCanNoLongerBeMetered(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", 300, time.Second)
	path := filepath.Join(o.Out, "ledger")
	var failed atomic.Bool
	o.System.Processes = func() ([]cost.Process, error) {
		if _, err := os.Stat(path); err == nil {
			failed.Store(true)
			return nil, errors.New("no control socket")
		}
		return []cost.Process{{Name: "x", Role: "nucleic", PID: os.Getppid()}}, nil
	}
	res := load(t, o)
	if !failed.Load() {
		t.Fatal("the last time the processes were asked for, no ledger had been kept")
	}
	if len(res.Roles) != 1 || res.Roles[0].Role != cost.Generator || res.Roles[0].CPU <= 0 || res.Settled != nil || res.CPUPerOp >= 0 {
		t.Errorf("roles %+v, settled %v, CPU %v", res.Roles, res.Settled, res.CPUPerOp)
	}
	if !slices.ContainsFunc(res.Notes, func(s string) bool {
		return strings.Contains(s, "own cost was not measured") && strings.Contains(s, "no control socket")
	}) {
		t.Errorf("notes %q", res.Notes)
	}
	if res.Ledger == nil || res.Ledger.Visible != res.Acked {
		t.Errorf("the ledger was read back as %+v", res.Ledger)
	}
	if _, err := report.Load(o.Out); err != nil {
		t.Error(err)
	}
}

// Goal: a reading back that takes minutes says how far it is, and does not chatter.
func TestAReadingThatLastsSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	var said []string
	r := readback{say: func(s string) { said = append(said, s) }, todo: make([]question, 1000), asked: 300, missed: make([]question, 2)}
	for _, at := range []time.Duration{0, sayEvery - 1, sayEvery, sayEvery + 1, 2*sayEvery - 1, 2 * sayEvery} {
		r.progress(at)
	}
	if want := "asked 300 of 1000 questions, 2 of them to be asked again"; len(said) != 2 || said[0] != want {
		t.Errorf("it said %q", said)
	}
	(&readback{}).progress(time.Hour) // to nobody
}
