// Package equal asks every replica of a province how far it holds each origin
// and says whether they hold the same facts, or exactly what differs.
//
// Two holders with equal marks (sequence and running digest) hold equal facts;
// that is what the digest is for. The package trusts no summary: it compares
// the marks of every process that owes an origin, and a process that does not
// answer makes the province not equal.
package equal

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"sync"
	"time"
)

// Holder is a process that owes facts: all origins of the named subsystems.
type Holder struct {
	Name       string
	URL        string
	Subsystems []string
}

// Mark is how far a holder has got with an origin.
type Mark struct {
	Seq    uint64 `json:"seq"`
	Digest string `json:"digest"`
}

// Difference is one holder that does not hold what the furthest one does.
type Difference struct {
	Origin  string `json:"origin"`
	Process string `json:"process"`
	What    string `json:"what"`
	Have    Mark   `json:"have"`
	Want    Mark   `json:"want"`
}

// Report is the verdict.
type Report struct {
	Equal       bool              `json:"equal"`
	Facts       uint64            `json:"facts"`   // facts of all origins together
	Origins     map[string]Mark   `json:"origins"` // the furthest mark of each
	Holders     int               `json:"holders"`
	Differences []Difference      `json:"differences"`
	Unreachable map[string]string `json:"unreachable"`
}

// answer is what a process says of itself at GET /v1/marks.
type answer struct {
	Origins map[string]Mark `json:"origins"`
}

// Check asks every holder once.
func Check(ctx context.Context, client *http.Client, holders []Holder) Report {
	r := Report{Origins: map[string]Mark{}, Holders: len(holders), Unreachable: map[string]string{}}
	answers := make([]*answer, len(holders))
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, h := range holders {
		wg.Go(func() {
			a, err := ask(ctx, client, h)
			mu.Lock()
			defer mu.Unlock()
			if answers[i] = a; err != nil {
				r.Unreachable[h.Name] = err.Error()
			}
		})
	}
	wg.Wait()
	r.compare(holders, answers)
	r.Equal = len(r.Differences) == 0 && len(r.Unreachable) == 0
	return r
}

// askLimit bounds one question.
const askLimit = 5 * time.Second

func ask(ctx context.Context, client *http.Client, h Holder) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+"/v1/marks", nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("does not answer")
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answers with status %d", res.StatusCode)
	}
	a := new(answer)
	if err := json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(a); err != nil {
		return nil, fmt.Errorf("answers with something that is not marks")
	}
	return a, nil
}

func (r *Report) compare(holders []Holder, answers []*answer) {
	for _, a := range answers {
		if a == nil {
			continue
		}
		for origin, m := range a.Origins {
			if best, ok := r.Origins[origin]; !ok || m.Seq > best.Seq {
				r.Origins[origin] = m
			}
		}
	}
	origins := make([]string, 0, len(r.Origins))
	for o, m := range r.Origins {
		origins = append(origins, o)
		r.Facts += m.Seq
	}
	sort.Strings(origins)
	for _, o := range origins {
		for i, h := range holders {
			if answers[i] != nil && slices.Contains(h.Subsystems, subsystem(o)) {
				r.hold(o, h, answers[i].Origins[o])
			}
		}
	}
}

// hold compares one holder's mark with the furthest.
func (r *Report) hold(origin string, h Holder, have Mark) {
	want := r.Origins[origin]
	d := Difference{Origin: origin, Process: h.Name, Have: have, Want: want}
	switch {
	case have == want, want.Seq == 0: // of an origin without facts, everybody holds all
		return
	case have.Seq == want.Seq:
		d.What = "holds other facts at the same addresses"
	default:
		d.What = fmt.Sprintf("is %d facts behind", want.Seq-have.Seq)
	}
	r.Differences = append(r.Differences, d)
}

// subsystem is the second part of an origin.
func subsystem(origin string) string {
	slash := 0
	for i, c := range origin {
		if c != '/' {
			continue
		}
		if slash > 0 {
			return origin[slash+1 : i]
		}
		slash = i
	}
	return ""
}
