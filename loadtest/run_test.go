package loadtest

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"qianma/cluster/identity"
	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
	"qianma/loadtest/internal/fake"
	"qianma/loadtest/ledger"
	"qianma/loadtest/population"
	"qianma/loadtest/profiles"
	"qianma/loadtest/province"
	"qianma/loadtest/report"
)

// options is a short run against a fake.
func options(t *testing.T, p *fake.Province, profile string, rate float64, d time.Duration) Options {
	t.Helper()
	people := population.New(7, 100_000)
	s, err := Province(p.Endpoints, nil, province.Config{People: people, Ack: "committed", Format: province.Binary})
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Settings: profiles.Settings{Profile: profile, Rate: rate, Duration: d, Seed: 7, People: people, Watches: 50, Positive: .05, Unseen: time.Minute},
		System:   s,
		Settle:   time.Second,
		Out:      t.TempDir(),
	}
}

func load(t *testing.T, o Options) *report.Result {
	t.Helper()
	res, _, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range res.Streams {
		s := &res.Streams[i]
		if u := s.Units; u.Asked != u.Acked+u.Failed+u.Unknown+u.Dropped {
			t.Errorf("%s does not add up: %+v", s.Name, u)
		}
	}
	return res
}

func TestAnHonestProvinceIsFoundExactInEveryProfile(t *testing.T) {
	for _, n := range profiles.Names {
		t.Run(n.Name, func(t *testing.T) {
			t.Parallel()
			p := fake.New(t, fake.Lies{Lag: 20 * time.Millisecond, Hint: true})
			o := options(t, p, n.Name, 300, 2*time.Second)
			o.Batch, o.Settle = 50, time.Minute
			if n.Name == "midnight" {
				o.Settings.People = population.New(7, 500)
				o.Wave = time.Second
			}
			res := load(t, o)
			if res.Acked == 0 || res.Failed+res.Unknown+res.Dropped > 0 {
				t.Errorf("acked %d, failed %d, unknown %d, dropped %d: %v", res.Acked, res.Failed, res.Unknown, res.Dropped, res.Notes)
			}
			if res.Ledger == nil {
				if n.Name != "display" && n.Name != "verify" && n.Name != "midnight" {
					t.Error("nothing was read back")
				}
				return
			}
			l := res.Ledger
			if l.Broken() || l.Acked != res.Acked || l.Checked != l.Acked || l.Visible != l.Acked || l.Tubes == 0 {
				t.Errorf("%+v", l)
			}
			if n.Name != "preload" && res.VisibleMS.Count == 0 || res.Unseen > 0 {
				t.Errorf("visible %+v, unseen %d", res.VisibleMS, res.Unseen)
			}
			if res.Facts.Acknowledged != res.Facts.Committed {
				t.Errorf("facts %+v", res.Facts)
			}
		})
	}
}

// Goal: the ledger finds exactly what a lying province lost, no more, no less.
func TestEveryThousandthLostWriteIsFound(t *testing.T) {
	every, rate := int64(1000), 10_000.0
	if testing.Short() { // under the race detector: as many losses among fewer writes
		every, rate = 300, 3_000
	}
	p := fake.New(t, fake.Lies{LoseEvery: every})
	o := options(t, p, "batch", rate, 2*time.Second)
	res, l, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	lost := map[fake.Swab]bool{}
	for _, s := range p.Lost() {
		lost[s] = true
	}
	if len(lost) < 10 {
		t.Fatalf("the province lost %d; the test carried too little", len(lost))
	}
	found := map[fake.Swab]bool{}
	for _, i := range res.Ledger.Losses {
		e := l.At(i)
		person := identity.Document{Kind: identity.Resident, Number: string(o.People.AppendNumber(nil, e.Person))}
		found[fake.Swab{Tube: string(population.AppendTube(nil, l.Head.TubeNumber(e.Tube))), Person: p.Hasher.Person(person)}] = true
	}
	if !maps.Equal(found, lost) || res.Lost != int64(len(lost)) || res.Repeated != 0 || res.Wrong != 0 {
		t.Errorf("found lost %d, repeated %d, wrong %d; the province lost %d; found %v, lost %v", res.Lost, res.Repeated, res.Wrong, len(lost), found, lost)
	}
	if res.Code() != report.LedgerBroke {
		t.Errorf("exit code %d, want %d", res.Code(), report.LedgerBroke)
	}
}

func TestEveryRepeatedWriteIsFound(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{RepeatEvery: 100})
	res := load(t, options(t, p, "batch", 1500, 2*time.Second))
	want := int64(p.Swabs()) - res.Acked
	if want < 10 {
		t.Fatalf("the province repeated %d; the test carried too little", want)
	}
	// Each is seen at both carriers, and is one.
	if res.Repeated != want || res.Lost != 0 || !res.RepeatedChecked || res.Facts.Excess() != want {
		t.Errorf("found repeated %d, lost %d, %+v; the province repeated %d", res.Repeated, res.Lost, res.Facts, want)
	}
}

// Goal: what was committed and never sent breaks the ledger where no tube shows
// it, and only where it can be known.
func TestFactsThatNobodySentBreakTheLedger(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{DoubleEvery: 20})
	res := load(t, options(t, p, "scan", 300, 2*time.Second))
	if res.Facts.Excess() < 5 || res.Repeated+res.Lost+res.Wrong > 0 || res.Code() != report.LedgerBroke {
		t.Errorf("facts %+v, repeated %d, code %d; want them broken by the facts alone", res.Facts, res.Repeated, res.Code())
	}
	if text := res.Text(false); !strings.Contains(text, "that nobody sent") {
		t.Errorf("the text does not say why:\n%s", text)
	}
	o := options(t, p, "scan", 300, 2*time.Second)
	o.Shared, o.Settings.Seed = true, 8
	if res := load(t, o); res.Facts.Excess() > 0 || !strings.Contains(res.Text(false), "not measured: others write to the province too") {
		t.Errorf("a shared province: %+v\n%s", res.Facts, res.Text(false))
	}
	busy := fake.New(t, fake.Lies{Others: true})
	if res := load(t, options(t, busy, "scan", 300, time.Second)); res.Facts.Unmeasured == "" || res.Code() == report.LedgerBroke {
		t.Errorf("facts moved before the run: %+v, code %d", res.Facts, res.Code())
	}
}

// Goal: what the system still owed at the last answer is on a second bill, which
// is drawn up when every replica holds every fact.
func TestWhatIsStillOwedIsBilledToo(t *testing.T) {
	t.Parallel()
	const owed = time.Second
	o := options(t, fake.New(t, fake.Lies{Owe: owed}), "scan", 300, time.Second)
	o.System.Processes = func() ([]cost.Process, error) {
		return []cost.Process{{Name: "x", Role: "nucleic", PID: os.Getppid()}}, nil
	}
	res := load(t, o)
	if res.SettledS < owed.Seconds()/2 || len(res.Settled) != 2 || res.CPUPerOpSettled < res.CPUPerOp || res.CPUPerOp <= 0 {
		t.Errorf("settled after %v s, %v; CPU %v, settled %v", res.SettledS, res.Settled, res.CPUPerOp, res.CPUPerOpSettled)
	}
	if res.Facts.Committed != res.Facts.Acknowledged {
		t.Errorf("facts %+v", res.Facts)
	}
}

// Goal: a display run over nobody is no success, and what is old is said.
func TestDisplaysThatShowNobodyMiss(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{Stale: true})
	o := options(t, p, "display", 200, time.Second)
	o.Settings.People = population.New(7, 200)
	o.Objectives = report.Objectives{Failures: -1, Found: report.Usual("display").Found}
	if res := load(t, o); res.Valid && (res.Code() != report.Missed || res.FoundShare != 0 || res.StaleShare != 1) {
		t.Errorf("code %d, found %v, stale %v: %s", res.Code(), res.FoundShare, res.StaleShare, res.Text(false))
	}
	fill := options(t, p, "preload", 2000, time.Second)
	fill.Settings.People, fill.Settings.Watches, fill.Batch = o.Settings.People, -1, 50
	load(t, fill)
	res := load(t, o)
	if res.FoundShare < .9 || res.Valid && res.Code() != report.Held {
		t.Errorf("code %d, found %v after loading: %s", res.Code(), res.FoundShare, res.Text(false))
	}
}

// Goal: of a target that cannot be asked for tubes nothing is said that only they
// could tell: not that nothing is repeated, and not that a test is there which a
// newer one of its person hides.
func TestNoTubesNoWordOfRepeats(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{NoTubes: true})
	o := options(t, p, "scan", 300, time.Second)
	o.People, o.Positive = population.New(7, 100), 0
	res := load(t, o)
	l := res.Ledger
	if res.RepeatedChecked || l.Tubes != 0 || l.Acked != 300 || l.Checked != 100 || l.Visible != 100 || l.Hidden != 0 {
		t.Errorf("repeats looked for %v, %+v", res.RepeatedChecked, l)
	}
	if !strings.Contains(res.Text(false), "repeated n/a") {
		t.Error(res.Text(false))
	}
}

// Goal: a reply that was lost makes the outcome unknown, the same key is tried
// again, and nothing is done twice.
func TestALostReplyIsTriedAgainWithItsKey(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{DropReplyEvery: 50})
	res := load(t, options(t, p, "scan", 500, 2*time.Second))
	var retries, replayed int64
	for _, k := range res.Main().Kinds {
		retries += k.Retries
		replayed += k.Replayed
	}
	if retries < 10 || replayed == 0 {
		t.Errorf("retries %d, replayed %d", retries, replayed)
	}
	if res.Unknown > 0 || res.Lost+res.Repeated > 0 || res.Acked != res.Main().Units.Asked {
		t.Errorf("unknown %d, lost %d, repeated %d, acked %d of %d", res.Unknown, res.Lost, res.Repeated, res.Acked, res.Main().Units.Asked)
	}
}

// TestNothingIsReadBackBeforeTheRest: reading back loads the system, so whoever
// watches it recover must be able to come first. A run opens its target once for
// the load and once more for reading back.
func TestNothingIsReadBackBeforeTheRest(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", 100, time.Second)
	opened, before := 0, 0
	open := o.System.Open
	o.System.Open = func(run string) (drive.Target, error) {
		opened++
		return open(run)
	}
	o.Rest = func(context.Context) { before = opened }
	res := load(t, o)
	if before != 1 || opened != 2 || res.Ledger == nil {
		t.Errorf("opened %d times when all was sent, %d after the run; ledger %v", before, opened, res.Ledger)
	}
}

func TestARejectedRowOfABatchFailsAlone(t *testing.T) {
	p := fake.New(t, fake.Lies{RejectEvery: 40})
	o := options(t, p, "batch", 1000, 2*time.Second)
	o.Objectives.Failures = .03
	res := load(t, o)
	u := res.Main().Units
	if u.Failed != u.Asked/40 || res.Lost+res.Repeated > 0 {
		t.Errorf("%+v, lost %d, repeated %d", u, res.Lost, res.Repeated)
	}
	// Not its code: a machine that is too busy for the generator makes the run
	// invalid, which is no word about the rows.
	if len(res.Checks) == 0 || slices.ContainsFunc(res.Checks, func(c report.Check) bool { return !c.Held }) {
		t.Errorf("%+v: %s", res.Checks, res.Text(true))
	}
}

// Goal: coordinated omission shows. Method: the whole province stands still for
// two seconds. Whatever should have started meanwhile waited, though nothing of
// it was in flight: the response times must say so, and the service times of a
// generator with one connection must not. A busy machine makes some services
// slow as well; as many as waited it makes only of a generator that omits.
func TestAStallShowsInResponseAndNotInService(t *testing.T) {
	const stall = 2 * time.Second
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "display", 400, 5*time.Second)
	people := o.People
	s, err := Province(p.Endpoints, nil, province.Config{People: people, Client: oneConnection})
	if err != nil {
		t.Fatal(err)
	}
	o.System = s
	o.Live = func(v View) {
		if v.Second == 1 {
			p.Stall(stall)
		}
	}
	res := load(t, o)
	display := res.Main().Kinds["display"]
	slow := stall / 4
	waited, served := display.Response.Above(slow), display.Service.Above(slow)
	// 400/s for three quarters of the stall.
	if least := int64(400 * .75 * stall.Seconds() * .9); waited < least {
		t.Errorf("%d responses waited more than %v, want at least %d", waited, slow, least)
	}
	if served > waited/8 { // a connection to each of the four nodes, and one each behind it, if nothing else is slow
		t.Errorf("%d services took more than %v, and %d responses: the two are told apart", served, slow, waited)
	}
}

func TestASaturatedGeneratorMakesTheRunInvalid(t *testing.T) {
	rate := 3_000_000.0
	if testing.Short() { // the race detector saturates it much sooner
		rate /= 5
	}
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "display", rate, 300*time.Millisecond)
	o.Drive = drive.Config{Open: 1 << 30, Tries: 1}
	res := load(t, o)
	if res.Valid || res.Code() != report.InvalidRun || !strings.Contains(res.Text(false), "saturated") {
		t.Errorf("valid %v, code %d: %s", res.Valid, res.Code(), res.Text(false))
	}
	if res.Dropped == 0 || res.Late == 0 {
		t.Errorf("dropped %d, late %d", res.Dropped, res.Late)
	}
}

func TestRefusalsOfASurgeAreCountedAndTimed(t *testing.T) {
	t.Parallel()
	surge := func() *report.Result {
		o := options(t, fake.New(t, fake.Lies{RefuseEvery: 3}), "surge", 200, 5*time.Second)
		o.Objectives = report.Usual("surge")
		return load(t, o)
	}
	res := surge()
	for n := 1; n < 5 && res.Surge != nil && res.Surge.GoodputPerS == 0; n++ {
		res = surge() // on a busy machine all that was asked in the height was done after it
	}
	s := res.Surge
	if s == nil || s.RefusalMS.Count == 0 || s.WithoutHint != s.RefusalMS.Count || res.Failed == 0 || s.GoodputPerS == 0 {
		t.Fatalf("%+v, failed %d", s, res.Failed)
	}
	if s.DisplayUnserved != 0 || s.BindingUnserved != s.BindingRefused {
		t.Errorf("%d displays and %d bindings were never served, %d bindings refused: nothing else went wrong here", s.DisplayUnserved, s.BindingUnserved, s.BindingRefused)
	}
	if s.BindingRefused == 0 || s.DisplayRefused != 0 {
		t.Errorf("of the refused, %d were bindings and %d displays; only writes are refused here", s.BindingRefused, s.DisplayRefused)
	}
	if s.HeightPerS["tests"] != s.GoodputPerS || s.HeightPerS["displays"] == 0 {
		t.Errorf("at the height %v, goodput %v", s.HeightPerS, s.GoodputPerS)
	}
	if s.RecoveryS != -1 || res.Code() == report.Held {
		t.Errorf("a province that refuses for ever has recovered after %v s; code %d", s.RecoveryS, res.Code())
	}
	if res.Lost+res.Repeated+res.Wrong > 0 {
		t.Errorf("lost %d, repeated %d, wrong %d", res.Lost, res.Repeated, res.Wrong)
	}
}

func TestWithoutThePersonKeyPeopleAreResolvedOverHTTP(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	p.Endpoints.Data = t.TempDir()
	res := load(t, options(t, p, "scan", 200, time.Second))
	if res.Acked == 0 || res.Ledger.Visible != res.Acked || len(res.Notes) == 0 {
		t.Errorf("acked %d, %+v, %v", res.Acked, res.Ledger, res.Notes)
	}
}

func TestClosedSaysSo(t *testing.T) {
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "display", 1000, time.Second)
	o.Drive.Closed = 8
	res := load(t, o)
	o.Objectives = report.Usual("display")
	res.Judge(o.Objectives)
	if len(res.NotMeasured) != 1 || !strings.Contains(res.NotMeasured[0], "closed") {
		t.Errorf("not measured %v: a closed run has no latency to judge", res.NotMeasured)
	}
	if !res.Closed || !res.Valid || res.Acked == 0 || !strings.Contains(res.Text(false), "closed:") {
		t.Errorf("closed %v, valid %v, acked %d: %s", res.Closed, res.Valid, res.Acked, res.Text(false))
	}
}

func TestAnInterruptedRunIsInvalidAndKeepsItsLedger(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", 200, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	o.Live = func(v View) {
		if v.Second == 1 {
			cancel()
		}
	}
	res, l, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Valid || l.Len() == 0 {
		t.Errorf("valid %v, %d tests", res.Valid, l.Len())
	}
	kept, err := ledger.Load(o.Out + "/ledger")
	if err != nil || kept.Len() != l.Len() {
		t.Errorf("kept %v, %v", kept, err)
	}
}

// Goal: a test whose answer was lost for good is unknown: neither failed nor
// acknowledged, and no loss whether it is there or not.
func TestAnAnswerLostForGoodIsUnknown(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"scan", "batch"} {
		p := fake.New(t, fake.Lies{DropReplyEvery: 7})
		o := options(t, p, profile, 400, 2*time.Second)
		o.Batch, o.Drive.Tries = 20, 1
		res := load(t, o)
		u := res.Main().Units
		if u.Unknown < 10 || u.Failed > 0 || u.Acked == 0 {
			t.Errorf("%s: %+v", profile, u)
		}
		if f := res.Facts; f.Committed <= f.Acknowledged || f.Excess() > 0 {
			t.Errorf("%s: facts %+v: what is unknown may be there", profile, f)
		}
		if l := res.Ledger; l.Broken() || l.Acked != u.Acked || l.Visible != l.Acked {
			t.Errorf("%s: %+v", profile, l)
		}
	}
}

// Goal: batches can have displays beside them, and without asking have none.
func TestDisplaysBesideBatches(t *testing.T) {
	t.Parallel()
	for _, displays := range []float64{0, 200} {
		o := options(t, fake.New(t, fake.Lies{Hint: true}), "batch", 300, time.Second)
		o.Batch, o.Displays = 50, displays
		res := load(t, o)
		want := 1
		if displays > 0 {
			want = 2
		}
		if len(res.Streams) != want || res.Unit != "tests" || res.Streams[want-1].Units.Acked == 0 {
			t.Errorf("%g displays a second: %d streams of %s", displays, len(res.Streams), res.Unit)
		}
	}
}

// Goal: at midnight everybody refreshes, and nobody twice: neither a few who
// repeat nor some who never ask stand in for the population.
func TestAtMidnightEverybodyAsksOnce(t *testing.T) {
	t.Parallel()
	for _, poisson := range []bool{false, true} {
		p := fake.New(t, fake.Lies{})
		o := options(t, p, "midnight", .001, 3*time.Second) // nobody before and after it
		o.People, o.Wave, o.Poisson = population.New(7, 997), time.Second, poisson
		res := load(t, o)
		asked := p.Asked()
		if len(asked) != 997 || res.Main().Units.Asked != 997 || res.Acked != 997 {
			t.Errorf("Poisson %v: %d of 997 people were asked about, in %d displays of which %d were shown", poisson, len(asked), res.Main().Units.Asked, res.Acked)
		}
		for person, times := range asked {
			if times != 1 {
				t.Errorf("Poisson %v: %v asked %d times", poisson, person, times)
			}
		}
	}
}

// Goal: a run asks other people than the one before it, whom that made warm; one
// that is given the draw of another asks the same.
func TestEachRunDrawsAnewUnlessItIsTold(t *testing.T) {
	t.Parallel()
	p := fake.New(t, fake.Lies{})
	run := func(draw uint64) (asked map[identity.Person]int, drawn uint64) {
		before := p.Asked()
		o := options(t, p, "display", 200, time.Second)
		o.Draw, o.Cold = draw, 1
		drawn = load(t, o).Settings["draw"].(uint64)
		asked = p.Asked()
		for person, times := range before {
			if asked[person] -= times; asked[person] == 0 {
				delete(asked, person)
			}
		}
		return asked, drawn
	}
	first, draw := run(0)
	second, _ := run(0)
	again, told := run(draw)
	known := 0
	for person := range second {
		if first[person] > 0 {
			known++
		}
	}
	if known > len(second)/10 || len(second) < 150 {
		t.Errorf("%d of the %d people of a run were asked about in the one before it", known, len(second))
	}
	if told != draw || !maps.Equal(first, again) {
		t.Errorf("told to draw %d a run drew %d, and others: %d people, not %d", draw, told, len(again), len(first))
	}
}

// Goal: a stall shows in what is seen of visibility, although nothing is
// acknowledged meanwhile and so nothing could be picked from what is. Method: the
// whole province stands still for two of five seconds. As many tests are watched
// as without that, and those that were to come in the stall waited for its end.
func TestAStallShowsInWhatIsVisible(t *testing.T) {
	t.Parallel()
	const stall, rate, watched = 2 * time.Second, 400, 50
	p := fake.New(t, fake.Lies{})
	o := options(t, p, "scan", rate, 5*time.Second)
	o.Mix = []population.Pool{{Size: 1, Share: 1}} // a tube is full at once, so the clock of each starts when it arrives
	o.Watches = watched
	o.Live = func(v View) {
		if v.Second == 1 {
			p.Stall(stall)
		}
	}
	res := load(t, o)
	if n := res.VisibleMS.Count; n < 5*watched-2 || n > 5*watched+2 {
		t.Errorf("%d tests were watched, not %d: the stall thinned them", n, 5*watched)
	}
	slow := stall / 4
	if n, least := res.Visible.Above(slow), int64(watched*.75*stall.Seconds()*.9); n < least {
		t.Errorf("%d tests took more than %v to show, want at least %d", n, slow, least)
	}
	if res.Unseen > 0 || res.Acked != 5*rate {
		t.Errorf("acked %d, unseen %d", res.Acked, res.Unseen)
	}
}

// Goal: a watched test that was never acknowledged flatters no percentile: it
// was not seen, and counts among the slowest.
func TestWhatIsNeverAcknowledgedIsUnseen(t *testing.T) {
	t.Parallel()
	for _, profile := range []string{"scan", "batch"} {
		p := fake.New(t, fake.Lies{DropReplyEvery: 5})
		o := options(t, p, profile, 400, 2*time.Second)
		o.Batch, o.Drive.Tries, o.Watches, o.Unseen = 20, 1, 1000, 5*time.Second
		res := load(t, o)
		never := res.Main().Units.Asked - res.Acked
		if never < 10 || res.Unseen != never || res.Visible.Above(4*time.Second) != never {
			t.Errorf("%s: of %d tests that were not acknowledged %d are unseen, and %d among the slowest", profile, never, res.Unseen, res.Visible.Above(4*time.Second))
		}
	}
}
