package api

import (
	"net/http"
	"time"

	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/display/source"
	pb "qianma/middle-store/middlestorepb"
)

// retryPause is what those are told who ask for what is away just now.
const retryPause = 5 * time.Second

// vaccinations is what the middle store has of a person's doses.
type vaccinations struct {
	Person   string  `json:"person"`
	Count    uint32  `json:"count"`
	LastDay  *string `json:"last_day"`
	Conflict bool    `json:"conflict"`
	Doses    []dose  `json:"doses"`
	Data     struct {
		AsOf     *string                  `json:"as_of"`
		Carriers map[string]AnswerCarrier `json:"carriers"`
		Source   string                   `json:"source"`
		Stale    bool                     `json:"stale"`
	} `json:"data"`
}

type dose struct {
	Dose     uint32 `json:"dose"`
	Day      string `json:"day"`
	Product  string `json:"product"`
	Batch    string `json:"batch"`
	Site     string `json:"site"`
	Conflict bool   `json:"conflict"`
}

// showVaccinations is GET /v1/vaccinations: the summary that the middle store
// has, with its age, whether or not a vaccine process lives.
func (a *API) showVaccinations(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	got := a.Source.Get(r.Context(), pb.PersonID(q.person), q.seen.marks)
	if got.Kind == source.None {
		return problem.New(problem.Unavailable, "vaccination records cannot be reached now", "try again in a minute; the code itself does not depend on them").After(retryPause)
	}
	d := &got.Person.Doses
	out := vaccinations{Person: q.person.String(), Count: d.Count, Conflict: d.Conflict, Doses: []dose{}}
	if d.Count > 0 {
		last := day(d.LastDay)
		out.LastDay = &last
	}
	for _, x := range d.Doses {
		out.Doses = append(out.Doses, dose{x.Dose, day(x.Day), x.Product, x.Batch, x.Site, x.Conflict})
	}
	a.sayAge(&out, &got, r)
	return web.WriteJSON(w, http.StatusOK, &out)
}

// sayAge says how old the records are, carrier by carrier.
func (a *API) sayAge(out *vaccinations, got *source.Answer, r *http.Request) {
	now := a.now()
	rs := a.rules.active(r.Context(), now)
	out.Data.Source, out.Data.Stale, out.Data.Carriers = got.Kind.String(), got.Behind, map[string]AnswerCarrier{}
	oldest, heard := now, false
	for _, f := range got.Batch.Freshness {
		if f.Subsystem != "vaccine" {
			continue
		}
		heard = true
		at := min(f.AsOf, now)
		oldest = min(oldest, at)
		carrier := AnswerCarrier{AsOf: optional(at)}
		if at != 0 {
			age := float64(now-at) / 1000
			carrier.Age = &age
		}
		out.Data.Carriers[f.Carrier] = carrier
		out.Data.Stale = out.Data.Stale || !rs.Fresh(now, at)
	}
	if !heard {
		oldest, out.Data.Stale = 0, true
	}
	out.Data.AsOf = optional(oldest)
}

// optional is a time as answers write it; nil for none.
func optional(ms int64) *string {
	if ms == 0 {
		return nil
	}
	s := moment(ms)
	return &s
}
