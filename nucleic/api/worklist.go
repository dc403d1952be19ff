package api

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/rules"
)

// Bounds of a worklist's page.
const (
	pageDefault = 100
	pageMax     = 1000
	hoursMax    = 8760
	placeMax    = 128
)

type worklistAnswer struct {
	Worklist string        `json:"worklist"`
	Entries  []entryAnswer `json:"entries"`
	// Next is where the next page begins; absent on the last one.
	Next string `json:"next,omitempty"`
	freshness
}

type entryAnswer struct {
	Tube         string   `json:"tube"`
	Since        *string  `json:"since"`
	HoursWaiting *float64 `json:"hours_waiting"`
	Conflicts    []string `json:"conflicts,omitempty"`
}

// page is what a reader asks of a worklist.
type page struct {
	list   rules.Worklist
	after  []byte
	before int64
	limit  int
}

// showWorklist pages through what people must look at, the longest waiting
// first.
func (a *API) showWorklist(w http.ResponseWriter, r *http.Request) error {
	now := a.now()
	p, err := readPage(r.PathValue("list"), r.URL.Query(), now)
	if err != nil {
		return err
	}
	entries, f, err := a.entries(r, p)
	if err != nil {
		return err
	}
	out := worklistAnswer{Worklist: r.PathValue("list"), freshness: f}
	if len(entries) > p.limit {
		entries = entries[:p.limit]
		out.Next = base64.RawURLEncoding.EncodeToString(entries[p.limit-1].Place)
	}
	out.Entries = each(entries, func(e *rules.Entry) entryAnswer { return answerEntry(e, now) })
	return web.WriteJSON(w, http.StatusOK, out)
}

func readPage(name string, q url.Values, now int64) (p page, err error) {
	var ok bool
	if p.list, ok = rules.ParseWorklist(name); !ok {
		p := *explain(unknownList)
		p.Code = problem.NotFound
		return page{}, &p
	}
	hours, err := number(q.Get("hours"), 0, 0, hoursMax, invalidHours)
	if err != nil {
		return p, err
	}
	// Without hours everything is asked for, also what the clock of a booth
	// has put a little into the future.
	p.before = now + rules.Ahead.Milliseconds() + 1
	if hours > 0 {
		p.before = now - int64(hours)*time.Hour.Milliseconds()
	}
	if p.limit, err = number(q.Get("limit"), pageDefault, 1, pageMax, invalidLimit); err != nil {
		return p, err
	}
	p.after, err = base64.RawURLEncoding.DecodeString(q.Get("after"))
	if err != nil || len(p.after) > placeMax {
		return p, explain(invalidAfter)
	}
	return p, nil
}

func number(s string, standard, least, most int, code string) (int, error) {
	if s == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, explain(code)
	}
	return n, nil
}

// entries merges one page's worth of every shard, and one entry more, which
// tells that there is another page.
func (a *API) entries(r *http.Request, p page) (all []rules.Entry, f freshness, err error) {
	var asOf int64
	anyStale := false
	for shard := range a.proposer.Shards() {
		v, stale, err := a.view(r.Context(), shard)
		if err != nil {
			return nil, f, err
		}
		all = append(all, rules.List(v, p.list, p.after, p.before, p.limit+1)...)
		asOf, anyStale = max(asOf, v.AsOf()), anyStale || stale
		_ = v.Close()
	}
	slices.SortFunc(all, func(a, b rules.Entry) int { return bytes.Compare(a.Place, b.Place) })
	return all, fresh(asOf, anyStale), nil
}

func answerEntry(e *rules.Entry, now int64) entryAnswer {
	out := entryAnswer{Tube: string(e.Tube), Conflicts: rules.ConflictNames(e.Conflicts)}
	if e.Since != 0 {
		hours := float64(max(0, now-e.Since)/360_000) / 10
		out.Since, out.HoursWaiting = moment(e.Since), &hours
	}
	return out
}
