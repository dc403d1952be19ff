package serve

import (
	_ "embed"
	"net/http"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/middle-store/middlestorepb"
)

//go:embed openapi.yaml
var openAPI []byte

// Route is one endpoint.
type Route struct {
	Class   web.Class
	Pattern string // of http.ServeMux
	Handler func(w http.ResponseWriter, r *http.Request) error
}

// Routes lists the endpoints. They are for people and tools of operations:
// display asks over RPC.
func (s *Server) Routes() []Route {
	return []Route{
		{web.Normal, "POST /v1/lookup", s.lookUp},
		{web.Optional, "GET /v1/persons/{person}", s.showPerson},
		{web.Normal, "GET /openapi.yaml", s.showContract},
	}
}

// RegisterHTTP adds the endpoints to a server.
func (s *Server) RegisterHTTP(w *web.Server) {
	for _, r := range s.Routes() {
		w.HandleClass(r.Class, r.Pattern, r.Handler)
	}
}

// question is POST /v1/lookup.
type question struct {
	Persons []identity.Person `json:"persons"`
	Tubes   uint32            `json:"tubes"`
	Seen    string            `json:"seen"` // of an earlier answer
	StaleOK bool              `json:"stale_ok"`
}

type answer struct {
	Persons   []shownPerson    `json:"persons"`
	Freshness []shownFreshness `json:"freshness"`
	Seen      string           `json:"seen"` // send it back and never see the past
	Behind    bool             `json:"behind"`
	ServedBy  string           `json:"served_by"`
}

type shownPerson struct {
	Person    identity.Person `json:"person"`
	Status    string          `json:"status"`
	Tubes     []shownTube     `json:"tubes"`
	MoreTubes bool            `json:"more_tubes"`
	DecidedBy string          `json:"decided_by,omitempty"` // a tube
	Doses     *shownDoses     `json:"doses,omitempty"`
}

type shownTube struct {
	Tube       string `json:"tube"`
	Pool       string `json:"pool"`
	SampledAt  string `json:"sampled_at"`
	ReceivedAt string `json:"received_at,omitempty"`
	TestedAt   string `json:"tested_at,omitempty"`
	ReportedAt string `json:"reported_at,omitempty"`
	Outcome    string `json:"outcome"`
	Revision   uint32 `json:"revision,omitempty"`
}

type shownDoses struct {
	Count    uint32      `json:"count"`
	LastDay  string      `json:"last_day"`
	Conflict bool        `json:"conflict"`
	Doses    []shownDose `json:"doses"`
}

type shownDose struct {
	Dose     uint32 `json:"dose"`
	Day      string `json:"day"`
	Product  string `json:"product"`
	Batch    string `json:"batch"`
	Site     string `json:"site"`
	Conflict bool   `json:"conflict"`
}

type shownFreshness struct {
	Carrier   string `json:"carrier"`
	Subsystem string `json:"subsystem"`
	AsOf      string `json:"as_of,omitempty"` // absent: not known
	Newest    string `json:"newest,omitempty"`
	Behind    uint64 `json:"behind"`
}

// lookUp is POST /v1/lookup.
func (s *Server) lookUp(w http.ResponseWriter, r *http.Request) error {
	var in question
	if err := web.ReadJSON(r, &in); err != nil {
		return err
	}
	if len(in.Persons) == 0 {
		return problem.New(problem.Invalid, "there are no persons to look up", "send at least one")
	}
	return s.show(w, in)
}

// showPerson is GET /v1/persons/{person}.
func (s *Server) showPerson(w http.ResponseWriter, r *http.Request) error {
	person, err := identity.ParsePerson(r.PathValue("person"))
	if err != nil {
		return err
	}
	return s.show(w, question{Persons: []identity.Person{person}, Tubes: middlestorepb.MaxTubes, Seen: r.URL.Query().Get("seen")})
}

func (s *Server) show(w http.ResponseWriter, in question) error {
	req := middlestorepb.LookupRequest{Tubes: in.Tubes, StaleOK: in.StaleOK}
	for _, p := range in.Persons {
		req.Persons = append(req.Persons, middlestorepb.PersonID(p))
	}
	var err error
	if req.Seen, err = middlestorepb.ParseMarks(in.Seen); err != nil {
		return problem.Wrap(err, problem.Invalid, "seen is not what an earlier answer gave", "send it back as it was, or leave it out")
	}
	raw, err := s.Answer(&req, nil)
	if err != nil {
		return overHTTP(err)
	}
	var got middlestorepb.LookupResponse
	if err := got.Decode(raw); err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, render(in.Persons, &got))
}

// overHTTP gives a code that only this subsystem has the status of what it is.
func overHTTP(err error) error {
	if p := problem.From(err); p.Code == middlestorepb.CodeBehind {
		return problem.New(problem.Unavailable, p.Message, p.Fix).After(p.RetryAfter)
	}
	return err
}

func render(persons []identity.Person, got *middlestorepb.LookupResponse) answer {
	out := answer{Persons: []shownPerson{}, Freshness: []shownFreshness{}, Seen: got.Marks.String(), Behind: got.Behind, ServedBy: got.ServedBy}
	for i := range got.Persons {
		out.Persons = append(out.Persons, renderPerson(persons[i], &got.Persons[i]))
	}
	for _, f := range got.Freshness {
		out.Freshness = append(out.Freshness, shownFreshness{f.Carrier, f.Subsystem, moment(f.AsOf), moment(f.Newest), f.Behind})
	}
	return out
}

func renderPerson(id identity.Person, p *middlestorepb.Person) shownPerson {
	out := shownPerson{Person: id, Status: p.Status.String(), Tubes: []shownTube{}, MoreTubes: p.MoreTubes}
	for i := range p.Tubes {
		t := &p.Tubes[i]
		out.Tubes = append(out.Tubes, shownTube{
			Tube: t.Tube, Pool: t.PoolName(), SampledAt: moment(t.SampledAt), ReceivedAt: moment(t.ReceivedAt),
			TestedAt: moment(t.TestedAt), ReportedAt: moment(t.ReportedAt), Outcome: t.OutcomeName(), Revision: t.Revision,
		})
	}
	if p.DecidedBy > 0 && int(p.DecidedBy) <= len(p.Tubes) {
		out.DecidedBy = p.Tubes[p.DecidedBy-1].Tube
	}
	if p.HasDoses {
		out.Doses = &shownDoses{Count: p.Doses.Count, LastDay: day(p.Doses.LastDay), Conflict: p.Doses.Conflict, Doses: []shownDose{}}
		for _, d := range p.Doses.Doses {
			out.Doses.Doses = append(out.Doses.Doses, shownDose{d.Dose, day(d.Day), d.Product, d.Batch, d.Site, d.Conflict})
		}
	}
	return out
}

func moment(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano)
}

func day(days int32) string {
	return time.Unix(int64(days)*24*60*60, 0).UTC().Format(time.DateOnly)
}

// showContract is GET /openapi.yaml.
func (s *Server) showContract(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "application/yaml")
	h.Set("Cache-Control", "max-age=300")
	_, err := w.Write(openAPI)
	return err
}
