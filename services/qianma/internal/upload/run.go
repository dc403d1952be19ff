package upload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what to upload where.
type Config struct {
	Kind     Kind
	File     string // "": only what the spool still holds
	Spool    string // directory
	Rejected string // file for the rejected rows; "": none is written
	Carriers []Carrier
	Workers  int           // batches under way at once; at most MaxWorkers
	Settle   time.Duration // how long to wait for `replicated` once all is committed
	GiveUp   time.Duration // how long to go on while no carrier answers; 0: for ever
	Progress func(Progress)
}

// MaxWorkers bounds the batches under way at once.
const MaxWorkers = 64

// Totals says what became of the rows of one file.
type Totals struct {
	Rows, Accepted, Duplicate, Conflict, Rejected int
	Replicated                                    int // rows of batches that both carriers hold
	Rejects                                       []Reject
}

// Decided is how many rows have a final answer.
func (t Totals) Decided() int { return t.Accepted + t.Duplicate + t.Conflict + t.Rejected }

// Progress is a moment of the upload.
type Progress struct {
	Totals
	Trouble string // why nothing moves, or ""
}

// ErrSpooled means rows are left: they are safe in the spool, and running the
// command again, or Resume, goes on where this stopped.
var ErrSpooled = errors.New("rows are left in the spool")

// Run spools the file and uploads it; it returns ErrSpooled when it had to
// stop before every row was at both carriers.
func Run(ctx context.Context, cfg Config) (Totals, error) {
	e, err := spool(cfg.Spool, cfg.Kind, cfg.File)
	if err != nil {
		return Totals{}, err
	}
	return drain(ctx, cfg, e)
}

// Resume uploads what the spool still holds and returns the sum. carriers
// finds the endpoints of a subsystem.
func Resume(ctx context.Context, cfg Config, carriers func(subsystem string) []Carrier) (sum Totals, files int, err error) {
	left, err := pending(cfg.Spool)
	if err != nil {
		return Totals{}, 0, err
	}
	for _, e := range left {
		if e := e.open(); e != nil {
			return sum, files, e
		}
		cfg := cfg
		cfg.Kind = Kinds[e.meta.Kind]
		cfg.Carriers = carriers(cfg.Kind.Subsystem)
		t, failed := drain(ctx, cfg, openEntry(e.dir))
		err = errors.Join(err, failed, e.close())
		files++
		sum.Rows += t.Rows
		sum.Accepted += t.Accepted
		sum.Duplicate += t.Duplicate
		sum.Conflict += t.Conflict
		sum.Rejected += t.Rejected
		sum.Replicated += t.Replicated
		sum.Rejects = append(sum.Rejects, t.Rejects...)
	}
	return sum, files, err
}

// drain sends what the journal does not know to be replicated.
func drain(ctx context.Context, cfg Config, e *entry) (Totals, error) {
	if err := e.open(); err != nil {
		return Totals{}, err
	}
	defer e.close()
	if e.finished() {
		return e.result(), nil
	}
	r := newRun(cfg, e)
	err := r.run(ctx)
	t := e.result()
	switch {
	case e.finished():
		return t, errors.Join(r.saveRejects(t.Rejects), e.retire(), syncDir(e.dir))
	case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errGaveUp):
		return t, err
	}
	return t, fmt.Errorf("%w: %d of %d rows are not yet at both carriers", ErrSpooled, t.Rows-t.Replicated, t.Rows)
}

func (r *run) saveRejects(rejects []Reject) error {
	if r.cfg.Rejected == "" || len(rejects) == 0 {
		return nil
	}
	return writeRejects(r.cfg.Rejected, filepath.Join(r.entry.dir, "rows"), rejects)
}

// result is the totals with the rejected rows.
func (e *entry) result() Totals {
	t := e.totals()
	t.Rejects = e.rejects()
	return t
}

var errGaveUp = errors.New("no carrier answered for too long")

type run struct {
	cfg     Config
	entry   *entry
	sender  *sender
	moved   atomic.Int64 // Unix nanoseconds of the last answer
	mu      sync.Mutex
	trouble string
}

func newRun(cfg Config, e *entry) *run {
	cfg.Workers = min(max(cfg.Workers, 1), MaxWorkers)
	r := &run{cfg: cfg, entry: e, sender: &sender{
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Workers}},
		kind:     cfg.Kind,
		carriers: cfg.Carriers,
		turn:     map[string]int{},
	}}
	r.moved.Store(time.Now().UnixNano())
	return r
}

// run makes two passes over the file: the first until every batch is
// committed somewhere, the second asks again for what is not replicated yet.
// The second starts only when the first is through, so a cut line between the
// carriers never slows the taking in of rows.
func (r *run) run(ctx context.Context) error {
	defer r.sender.client.CloseIdleConnections()
	if err := r.pass(ctx, levelCommitted); err != nil {
		return err
	}
	r.sender.wants(levelReplicated)
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Settle)
	defer cancel()
	for !r.entry.finished() {
		if err := r.pass(ctx, levelReplicated); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// pass sends every batch that has not reached the level, Workers at a time.
func (r *run) pass(ctx context.Context, level string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *batch)
	var wg sync.WaitGroup
	for w := range r.cfg.Workers {
		wg.Go(func() {
			for b := range queue {
				if err := r.settle(ctx, b, w, level); err != nil {
					cancel(err)
				}
			}
		})
	}
	err := r.batches(level, func(b *batch) error {
		select {
		case queue <- b:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(queue)
	wg.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return errors.Join(err, r.cause(ctx))
}

// cause is why a worker ended the pass, if one did.
func (r *run) cause(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// batches cuts the file and hands out the batches short of the level.
func (r *run) batches(level string, fn func(*batch) error) error {
	b := &batch{}
	flush := func() error {
		full := b
		b = &batch{number: full.number + 1}
		o, known := r.entry.known(full.number)
		if full.size() == 0 || known && (level == levelCommitted || o.Level == levelReplicated) {
			return nil
		}
		full.key = key(r.entry.id, full.number)
		full.body = append(full.body, "]}"...)
		return fn(full)
	}
	err := eachRow(filepath.Join(r.entry.dir, "rows"), r.cfg.Kind, func(row row) error {
		b.add(row)
		if b.size() == r.entry.meta.Batch {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (b *batch) add(row row) {
	if row.reject != nil {
		b.rejects = append(b.rejects, *row.reject)
		return
	}
	if len(b.rows) == 0 {
		b.body = append(b.body, `{"rows":[`...)
	} else {
		b.body = append(b.body, ',')
	}
	b.body = append(b.body, row.json...)
	b.rows = append(b.rows, row.number)
}

// settle sends one batch until it has an answer, and records it. On the second
// pass one try is enough: the pass comes round again.
func (r *run) settle(ctx context.Context, b *batch, prefer int, level string) error {
	if len(b.rows) == 0 {
		return r.finish(b, nil, "", nil)
	}
	for try := 0; ; try++ {
		a, carrier, t := r.sender.send(ctx, b, prefer)
		if ctx.Err() != nil {
			return nil
		}
		if t == nil || t.final {
			r.moved.Store(time.Now().UnixNano())
			return r.finish(b, a, carrier, t)
		}
		if err := r.stuck(t); err != nil {
			return err
		}
		if err := pause(ctx, try, t); err != nil || level == levelReplicated {
			return nil
		}
	}
}

// stuck tells people why nothing moves and decides whether to go on.
func (r *run) stuck(t *trouble) error {
	idle := time.Since(time.Unix(0, r.moved.Load()))
	r.tell(fmt.Sprintf("%s; the rows are safe in the spool and are being tried again (%s without an answer)", t.Error(), idle.Round(time.Second)))
	if r.cfg.GiveUp > 0 && idle > r.cfg.GiveUp {
		return errGaveUp
	}
	return nil
}

// pause waits before the next round: what the server asked for, or an
// exponential backoff with jitter, at most two seconds.
func pause(ctx context.Context, try int, t *trouble) error {
	d := min(2*time.Second, 50*time.Millisecond<<min(try, 6))
	d = max(d/2+rand.N(d/2+1), time.Duration(t.AfterMS)*time.Millisecond)
	timer := time.NewTimer(min(d, 5*time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish turns the answer into the batch's outcome and makes it durable.
func (r *run) finish(b *batch, a *answer, carrier string, t *trouble) error {
	o := outcome{Batch: b.number, Rows: b.size(), Level: levelReplicated, Carrier: carrier, Rejected: len(b.rejects), Rejects: b.rejects}
	switch {
	case a != nil:
		o.take(b, a)
	case t != nil:
		o.refuse(b, t)
	}
	if old, ok := r.entry.known(b.number); ok && old.Rejected == o.Rejected {
		// A repeat at the other carrier answers "duplicate" for rows that the
		// first answer accepted; what people are told is the first answer.
		o.Accepted, o.Duplicate, o.Conflict = old.Accepted, old.Duplicate, old.Conflict
	}
	if err := r.entry.record(o); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	r.tell("")
	return nil
}

func (o *outcome) take(b *batch, a *answer) {
	o.Level = a.level()
	o.Accepted, o.Duplicate, o.Conflict = a.Accepted, a.Duplicate, a.Conflict
	o.Rejected += a.Rejected
	for _, row := range a.Rows {
		if row.Status == "rejected" && row.Row >= 0 && row.Row < len(b.rows) {
			o.Rejects = append(o.Rejects, Reject{b.rows[row.Row], row.Code, row.Message, row.Fix})
		}
	}
}

// refuse records that the whole batch was turned away.
func (o *outcome) refuse(b *batch, t *trouble) {
	o.Rejected += len(b.rows)
	for _, n := range b.rows {
		o.Rejects = append(o.Rejects, Reject{n, t.Code, t.Message, t.Fix})
	}
}

func (r *run) tell(trouble string) {
	if r.cfg.Progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = trouble
	r.cfg.Progress(Progress{r.entry.totals(), trouble})
}
