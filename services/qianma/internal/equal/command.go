package equal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"qianma/services/qianma/internal/province"
)

// Command is `qianma verify`.
type Command struct {
	province.Flags
	Output string        `short:"o" help:"text or json." enum:"text,json" default:"text"`
	Wait   time.Duration `help:"Ask again until equal, at most this long." default:"0s"`
}

// ErrNotEqual is the verdict as an exit code.
var ErrNotEqual = errors.New("not equal")

// owes says which origins each subsystem's processes hold.
var owes = map[string][]string{
	"nucleic":     {"nucleic"},
	"vaccine":     {"vaccine"},
	"display":     {"display"},
	"middlestore": {"nucleic", "vaccine"},
}

// Run prints the verdict; it fails with ErrNotEqual when replicas differ.
func (c *Command) Run(ctx context.Context) error {
	p, err := c.Find(ctx)
	if err != nil {
		return err
	}
	r := settle(ctx, holders(p), c.Wait)
	if c.Output == "json" {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = print(r)
	}
	if err == nil && !r.Equal {
		return ErrNotEqual
	}
	return err
}

// askAgain is how long to rest between two rounds.
const askAgain = 250 * time.Millisecond

func settle(ctx context.Context, holders []Holder, wait time.Duration) Report {
	deadline := time.Now().Add(wait)
	for {
		r := Check(ctx, http.DefaultClient, holders)
		if r.Equal || time.Now().After(deadline) {
			return r
		}
		select {
		case <-ctx.Done():
			return r
		case <-time.After(askAgain):
		}
	}
}

func holders(p *province.Province) []Holder {
	var out []Holder
	for _, carrier := range p.Names() {
		for subsystem, origins := range owes {
			for i, url := range p.URLs(carrier, subsystem) {
				out = append(out, Holder{Name: carrier + "-" + subsystem + "-" + strconv.Itoa(i+1), URL: url, Subsystems: origins})
			}
		}
	}
	return out
}

func print(r Report) error {
	if r.Equal {
		fmt.Printf("equal: %d facts of %d origins, the same at all %d holders\n", r.Facts, len(r.Origins), r.Holders)
		return nil
	}
	fmt.Printf("not equal: %d differences, %d of %d holders do not answer\n", len(r.Differences), len(r.Unreachable), r.Holders)
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	for _, d := range r.Differences {
		fmt.Fprintf(w, "  %s\t%s\t%s\thas %d (%s)\tshould have %d (%s)\n", d.Process, d.Origin, d.What, d.Have.Seq, brief(d.Have.Digest), d.Want.Seq, brief(d.Want.Digest))
	}
	for name, why := range r.Unreachable {
		fmt.Fprintf(w, "  %s\t\t%s\n", name, why)
	}
	return w.Flush()
}

// brief is the part of a digest that people compare.
func brief(digest string) string {
	if digest == "" {
		return "nothing"
	}
	return digest[:min(len(digest), 12)]
}
