package upload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"qianma/services/qianma/internal/province"
)

// Command is `qianma upload`.
type Command struct {
	Registrations fileCommand   `cmd:"" help:"Upload who was swabbed into which tube."`
	Results       fileCommand   `cmd:"" help:"Upload what the lab found in each tube."`
	Doses         fileCommand   `cmd:"" help:"Upload vaccine doses."`
	Resume        resumeCommand `cmd:"" help:"Go on with every file that the spool still holds."`
}

// options are what all uploads share.
type options struct {
	province.Flags
	Carrier string        `help:"Send to this carrier first; the other takes over when it does not answer." placeholder:"NAME"`
	Spool   string        `help:"Where rows are kept until both carriers have them; default: DATA/spool." type:"path" placeholder:"DIR"`
	Workers int           `help:"Batches of 500 rows under way at once." default:"4"`
	Settle  time.Duration `help:"How long to wait for both carriers to hold the rows, once all are committed." default:"60s"`
	GiveUp  time.Duration `help:"Stop after this long without an answer; the rows stay in the spool. 0: never." default:"0s"`
}

type fileCommand struct {
	options
	File     string `arg:"" type:"existingfile" help:"CSV in UTF-8 or GB18030 with a header, or NDJSON."`
	Rejected string `help:"Where to write rejected rows; default: FILE.rejected.csv." type:"path" placeholder:"FILE"`

	kind Kind
}

// BeforeApply tells the three uploads apart by the place they stand at.
func (c *Command) BeforeApply() error {
	c.Registrations.kind, c.Results.kind, c.Doses.kind = Kinds["registrations"], Kinds["results"], Kinds["doses"]
	return nil
}

// Run uploads the file.
func (c *fileCommand) Run(ctx context.Context) error {
	cfg, find, err := c.config(ctx)
	if err != nil {
		return err
	}
	cfg.Kind, cfg.File, cfg.Rejected = c.kind, c.File, c.Rejected
	if cfg.Rejected == "" {
		cfg.Rejected = c.File + ".rejected.csv"
	}
	cfg.Carriers = find(cfg.Kind.Subsystem)
	show := newShow(filepath.Base(c.File))
	cfg.Progress = show.progress
	t, err := Run(ctx, cfg)
	show.stop()
	return tell(t, cfg, err)
}

type resumeCommand struct{ options }

// Run goes on with what is left.
func (c *resumeCommand) Run(ctx context.Context) error {
	cfg, find, err := c.config(ctx)
	if err != nil {
		return err
	}
	show := newShow("spool")
	cfg.Progress = show.progress
	t, files, err := Resume(ctx, cfg, find)
	show.stop()
	if files == 0 && err == nil {
		fmt.Println("the spool is empty: every row is at both carriers")
		return nil
	}
	return tell(t, cfg, err)
}

func (o *options) config(ctx context.Context) (Config, func(string) []Carrier, error) {
	p, err := o.Find(ctx)
	if err != nil {
		return Config{}, nil, err
	}
	if o.Spool == "" {
		o.Spool = filepath.Join(o.Data, "spool")
	}
	find := func(subsystem string) []Carrier { return order(p, subsystem, o.Carrier) }
	return Config{Spool: o.Spool, Workers: o.Workers, Settle: o.Settle, GiveUp: o.GiveUp}, find, nil
}

// order puts the preferred carrier first, or leaves both to share the work.
func order(p *province.Province, subsystem, first string) []Carrier {
	var out []Carrier
	for _, name := range p.Names() {
		c := Carrier{Name: name, URLs: p.URLs(name, subsystem)}
		if name == first {
			out = append([]Carrier{c}, out...)
			out[0].First = true
			continue
		}
		out = append(out, c)
	}
	return out
}

// tell prints the sum that has to add up, and where the rest is.
func tell(t Totals, cfg Config, err error) error {
	fmt.Printf("accepted %d + duplicate %d + conflict %d + rejected %d = %d of %d rows read; %d at both carriers\n",
		t.Accepted, t.Duplicate, t.Conflict, t.Rejected, t.Decided(), t.Rows, t.Replicated)
	if t.Rejected > 0 && cfg.Rejected != "" && err == nil {
		fmt.Printf("the rejected rows, each with its reason and fix: %s\n", cfg.Rejected)
	}
	if errors.Is(err, ErrSpooled) {
		return fmt.Errorf("%w; nothing is lost: go on with `qianma upload resume`", err)
	}
	return err
}

// show is the progress on a terminal, or a line now and then elsewhere.
type show struct {
	name   string
	bars   *mpb.Progress
	bar    *mpb.Bar
	said   time.Time
	last   string
	isTerm bool
	words  atomic.Pointer[string] // read by the bar's own goroutine
}

func newShow(name string) *show {
	info, err := os.Stderr.Stat()
	return &show{name: name, said: time.Now(), isTerm: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (s *show) progress(p Progress) {
	s.words.Store(&p.Trouble)
	if !s.isTerm {
		s.line(p)
		return
	}
	if s.bars == nil {
		s.bars = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(50))
		s.bar = s.bars.AddBar(int64(p.Rows),
			mpb.PrependDecorators(decor.Name(s.name+" "), decor.CountersNoUnit("%d/%d")),
			mpb.AppendDecorators(decor.Percentage(), decor.Any(func(decor.Statistics) string { return " " + *s.words.Load() })))
	}
	s.bar.SetCurrent(int64(p.Decided()))
}

// line says how far it is every few seconds, and every new trouble at once.
func (s *show) line(p Progress) {
	const every = 5 * time.Second
	if time.Since(s.said) < every && (p.Trouble == "") == (s.last == "") {
		return
	}
	s.said, s.last = time.Now(), p.Trouble
	fmt.Fprintf(os.Stderr, "%s: %d of %d rows decided, %d at both carriers", s.name, p.Decided(), p.Rows, p.Replicated)
	if p.Trouble != "" {
		fmt.Fprintf(os.Stderr, "; %s", p.Trouble)
	}
	fmt.Fprintln(os.Stderr)
}

func (s *show) stop() {
	if s.bars == nil {
		return
	}
	s.bar.Abort(false)
	s.bars.Wait()
}
