package intake

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/machine/machinetest"
	"qianma/cluster/problem"
	"qianma/cluster/web"
)

// words holds each command once.
type words struct{}

func (words) Decide(r machine.Reader, _ int64, command []byte) machine.Decision {
	if _, held := r.Get(command); held {
		return machine.Decision{Status: machine.Duplicate}
	}
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

func (words) Fold(tx machine.Tx, fact []byte) error { tx.Set(fact, []byte{1}); return nil }
func (words) Reset()                                {}

const shards = 4

// door is a proposer of which some shards fail, or answer for fewer rows.
type door struct {
	*machinetest.Proposer
	fails map[int]error
	short bool

	mu    sync.Mutex
	waits []time.Duration // how long each proposal and claim may be waited for
}

func newDoor() (*door, *Intake) {
	d := &door{Proposer: machinetest.NewProposer(shards, func(int) machine.Machine { return words{} }), fails: map[int]error{}}
	return d, &Intake{Proposer: d, Wait: time.Minute, Look: "look it up"}
}

func (d *door) Propose(ctx context.Context, shard int, p machine.Proposal) (machine.Receipt, error) {
	d.bound(ctx, p.Wait)
	if err := d.fails[shard]; err != nil {
		return machine.Receipt{}, err
	}
	r, err := d.Proposer.Propose(ctx, shard, p)
	if d.short {
		r.Rows = r.Rows[:0]
	}
	return r, err
}

func (d *door) Claim(ctx context.Context, key, body [16]byte) error {
	d.bound(ctx, 0)
	return d.Proposer.Claim(ctx, key, body)
}

func (d *door) bound(ctx context.Context, wait time.Duration) {
	if end, ok := ctx.Deadline(); ok {
		wait = time.Until(end)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits = append(d.waits, wait)
}

// TestEveryWaitHasABound: for a row, one whose key belongs elsewhere, and several.
func TestEveryWaitHasABound(t *testing.T) {
	d, in := newDoor()
	for shard := range shards {
		if _, err := in.One(t.Context(), keyed(9, byte(shard)), Row{Shard: shard, Command: []byte{byte(shard)}}); err != nil && !problem.Is(err, problem.KeyReused) {
			t.Fatal(err)
		}
	}
	if _, err := in.One(t.Context(), web.Options{}, Row{Command: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.Many(t.Context(), web.Options{}, spread(1)); err != nil {
		t.Fatal(err)
	}
	for _, w := range d.waits {
		if w <= 0 || w > time.Minute {
			t.Errorf("waits of %v, want each within the minute that is given", d.waits)
			break
		}
	}
}

func keyed(key, body byte) web.Options {
	return web.Options{HasKey: true, Key: [16]byte{key}, Body: [16]byte{body}, Ack: machine.Committed}
}

// spread is n rows over all shards, every third of which is no command.
func spread(n int) (rows []Row) {
	for i := range n {
		r := Row{Shard: i % shards, Command: fmt.Append(nil, i)}
		if i%3 == 2 {
			r = Row{Problem: problem.New(problem.Malformed, "no", "no")}
		}
		rows = append(rows, r)
	}
	return rows
}

// TestManyAnswersEachRowInItsPlace: whatever shard a row went to, and whether
// or not its neighbour could become a command; and alike when it is repeated.
func TestManyAnswersEachRowInItsPlace(t *testing.T) {
	_, in := newDoor()
	if _, _, err := in.Many(t.Context(), web.Options{}, spread(8)); err != nil { // so that some rows are repeats
		t.Fatal(err)
	}
	for range 2 {
		_, outcomes, err := in.Many(t.Context(), keyed(1, 1), spread(20))
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range outcomes {
			switch {
			case i%3 == 2:
				if o.Problem == nil || o.Problem.Code != problem.Malformed {
					t.Errorf("row %d: %+v", i, o)
				}
			case o.Problem != nil || i < 8 && o.Status != machine.Duplicate:
				t.Errorf("row %d: %+v", i, o)
			}
		}
	}
	if receipts, outcomes, err := in.Many(t.Context(), keyed(2, 2), spread(3)[2:]); err != nil || len(receipts) != 0 || outcomes[0].Problem == nil {
		t.Errorf("nothing but a row that is no command: %v %v %v", receipts, outcomes, err)
	}
}

// TestKeyIsTakenWhereverItBelongs: in its own shard, whose facts it commits
// with, or in another one.
func TestKeyIsTakenWhereverItBelongs(t *testing.T) {
	for shard := range shards {
		_, in := newDoor()
		one := Row{Shard: shard, Command: []byte("a")}
		first, err := in.One(t.Context(), keyed(7, 1), one)
		if err != nil || first.Rows[0].Status != machine.Accepted {
			t.Fatalf("shard %d: %+v, %v", shard, first, err)
		}
		if again, err := in.One(t.Context(), keyed(7, 1), one); err != nil || again.Rows[0].Status == machine.Rejected {
			t.Errorf("shard %d, again: %+v, %v", shard, again, err)
		}
		if _, err := in.One(t.Context(), keyed(7, 2), Row{Shard: shard, Command: []byte("b")}); problem.From(err).Code != problem.KeyReused {
			t.Errorf("shard %d, another body: %v", shard, err)
		}
		if _, _, err := in.Many(t.Context(), keyed(7, 2), spread(8)); problem.From(err).Code != problem.KeyReused {
			t.Errorf("another body over all shards: %v", err)
		}
	}
}

// TestUnknownIsNeverCalledFailed: some shards committed, a wait that ended, a
// receipt of a build that cut the body otherwise.
func TestUnknownIsNeverCalledFailed(t *testing.T) {
	away := problem.New(problem.Unavailable, "nobody leads", "wait")
	d, in := newDoor()
	d.fails[1] = away
	if _, _, err := in.Many(t.Context(), web.Options{}, spread(8)); problem.From(err).Code != problem.Unknown {
		t.Errorf("a part is committed: %v", err)
	}
	for shard := range shards {
		d.fails[shard] = away
	}
	if _, _, err := in.Many(t.Context(), web.Options{}, spread(8)); problem.From(err).Code != problem.Unavailable {
		t.Errorf("nothing is committed: %v", err)
	}
	d, in = newDoor()
	for _, err := range []error{context.DeadlineExceeded, fmt.Errorf("the caller left: %w", context.Canceled)} {
		d.fails[0] = err
		if _, err := in.One(t.Context(), web.Options{}, Row{Command: []byte("a")}); problem.From(err).Code != problem.Unknown {
			t.Errorf("a wait that ended: %v", err)
		}
	}
	d.fails[0] = problem.Wrap(context.DeadlineExceeded, problem.Unavailable, "nothing was written", "wait")
	if _, err := in.One(t.Context(), web.Options{}, Row{Command: []byte("a")}); problem.From(err).Code != problem.Unavailable {
		t.Errorf("a problem that knows better: %v", err)
	}
	d, in = newDoor()
	d.short = true
	_, err := in.One(t.Context(), web.Options{}, Row{Command: []byte("a")})
	if p := problem.From(err); p.Code != problem.Unknown || !strings.HasPrefix(p.Fix, in.Look) {
		t.Errorf("a receipt of another build: %v", err)
	}
}

// TestLevel: a receipt says what was reached, and only who asked waits.
func TestLevel(t *testing.T) {
	d, in := newDoor()
	d.Replicate()
	o := web.Options{Ack: machine.Replicated, Wait: time.Minute}
	if r, err := in.One(t.Context(), o, Row{Command: []byte("a")}); err != nil || r.Level != machine.Replicated {
		t.Errorf("%+v, %v", r, err)
	}
	receipts, _, err := in.Many(t.Context(), o, spread(8))
	for _, r := range receipts {
		if r.Level != machine.Replicated {
			t.Errorf("%+v", r)
		}
	}
	if err != nil || len(receipts) != shards {
		t.Errorf("%d receipts, %v", len(receipts), err)
	}
	if _, err := in.One(t.Context(), o, Row{Problem: problem.New(problem.Malformed, "no", "no")}); problem.From(err).Code != problem.Malformed {
		t.Errorf("what is no command: %v", err)
	}
}

// far is a proposer whose other carrier does not answer until it is let.
type far struct {
	*door
	asked, answer chan struct{}
}

func (f far) Await(ctx context.Context, r machine.Receipt, want machine.Level) machine.Level {
	close(f.asked)
	<-f.answer
	return f.door.Await(ctx, r, want)
}

// TestWhoWaitsForTheOtherCarrierKeepsNobodyOut: its work here is done.
func TestWhoWaitsForTheOtherCarrierKeepsNobodyOut(t *testing.T) {
	d, in := newDoor()
	f := far{d, make(chan struct{}), make(chan struct{})}
	in.Proposer = f
	s, err := web.New(web.Config{Addr: "127.0.0.1:0", Limits: map[web.Class]web.Limit{web.Vital: {Concurrent: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	s.HandleClass(web.Vital, "POST /v1/words", func(w http.ResponseWriter, r *http.Request) error {
		o, err := web.WriteOptions(r)
		if err != nil {
			return err
		}
		receipt, err := in.One(r.Context(), o, Row{Command: []byte(r.URL.RawQuery)})
		if err != nil {
			return err
		}
		return web.WriteOne(w, receipt, nil)
	})
	post := func(query string) int {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("POST", "/v1/words?"+query, strings.NewReader("{}")))
		return w.Code
	}
	first := make(chan int)
	go func() { first <- post("ack=replicated") }()
	<-f.asked
	if got := post(""); got != http.StatusOK {
		t.Errorf("beside one that waits: %d", got)
	}
	close(f.answer)
	if got := <-first; got != http.StatusOK {
		t.Errorf("the one that waited: %d", got)
	}
}
