package api

import (
	"net/http"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/machine"
	"qianma/cluster/web"
	"qianma/vaccine/rules"
	"qianma/vaccine/vaccinepb"
)

// history is a person's whole vaccination history, what was withdrawn too.
type history struct {
	Person      string            `json:"person"`
	Count       int               `json:"count"`
	LastDay     string            `json:"last_day,omitempty"`
	Conflict    bool              `json:"conflict"`
	Doses       []shownDose       `json:"doses"`
	Corrections []shownCorrection `json:"corrections"`
	AsOf        string            `json:"as_of,omitempty"`
	Stale       bool              `json:"stale"`
}

type shownDose struct {
	Fact     string `json:"fact"`
	State    string `json:"state"`
	Dose     uint32 `json:"dose"`
	Product  string `json:"product"`
	Batch    string `json:"batch"`
	Site     string `json:"site"`
	Day      string `json:"day"`
	Operator string `json:"operator,omitempty"`
}

type shownCorrection struct {
	Fact        string `json:"fact"`
	Stands      bool   `json:"stands"`
	Corrects    string `json:"corrects"`
	Operator    string `json:"operator"`
	Reason      string `json:"reason"`
	CorrectedAt string `json:"corrected_at"`
}

// showDoses is GET /v1/persons/{person}/doses. It sees every dose that was
// acknowledged at this carrier before it was asked; where no majority can
// vouch for that it says stale.
func (a *API) showDoses(w http.ResponseWriter, r *http.Request) error {
	person, err := identity.ParsePerson(r.PathValue("person"))
	if err != nil {
		return err
	}
	view, stale, err := a.view(r.Context(), machine.ShardOfKey(person[:], a.proposer.Shards()))
	if err != nil {
		return err
	}
	h := rules.HistoryOf(view, vaccinepb.Person(person))
	asOf := view.AsOf()
	if err := view.Close(); err != nil {
		return err
	}
	out := render(person, &h, asOf)
	out.Stale = stale
	return web.WriteJSON(w, http.StatusOK, out)
}

func render(person identity.Person, h *vaccinepb.History, asOf int64) history {
	out := history{Person: person.String(), Count: h.Count, Conflict: h.Conflict, Doses: []shownDose{}, Corrections: []shownCorrection{}}
	if h.Count > 0 {
		out.LastDay = formatDay(h.LastDay)
	}
	if asOf > 0 {
		out.AsOf = time.UnixMilli(asOf / int64(time.Millisecond)).UTC().Format(time.RFC3339Nano)
	}
	for i := range h.Doses {
		d := &h.Doses[i]
		out.Doses = append(out.Doses, shownDose{
			Fact: d.ID.String(), State: d.State.String(), Dose: d.Dose, Product: d.Product,
			Batch: d.Batch, Site: d.Site, Day: formatDay(d.Day), Operator: d.Operator,
		})
	}
	for i := range h.Corrections {
		c := &h.Corrections[i]
		out.Corrections = append(out.Corrections, shownCorrection{
			Fact: c.ID.String(), Stands: c.Stands, Corrects: c.Target.String(), Operator: c.Operator,
			Reason: c.Reason, CorrectedAt: time.UnixMilli(c.At).UTC().Format(time.RFC3339Nano),
		})
	}
	return out
}
