package api

import (
	"net/http"
	"time"

	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

// site is POST /v1/sites and the answer of GET /v1/sites/{site}.
type site struct {
	Site     string    `json:"site"`
	Name     string    `json:"name"`
	Division string    `json:"division"`
	OpenedAt time.Time `json:"opened_at"`
	Operator string    `json:"operator"`
}

// openSite makes a testing site known, or renames it.
func (a *API) openSite(w http.ResponseWriter, r *http.Request) error {
	var in site
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	now := a.now()
	f := nucleicpb.Fact{Kind: nucleicpb.KindSiteOpened}
	m := &f.SiteOpened
	*m = nucleicpb.SiteOpened{
		Site: []byte(in.Site), Name: []byte(in.Name), Division: []byte(in.Division), OpenedAt: or(in.OpenedAt, now),
		Operator: []byte(in.Operator), DoorAt: now,
	}
	if bad := check(&f); bad != nil {
		return bad
	}
	return a.submitOne(w, r, o, a.rowOf(m.Site, m))
}

// siteAnswer is GET /v1/sites/{site}.
type siteAnswer struct {
	Site     string  `json:"site"`
	Name     string  `json:"name"`
	Division string  `json:"division"`
	OpenedAt *string `json:"opened_at"`
	Operator string  `json:"operator"`
	freshness
}

// showSite looks a site up.
func (a *API) showSite(w http.ResponseWriter, r *http.Request) error {
	id := []byte(r.PathValue("site"))
	v, stale, err := a.view(r.Context(), rules.ShardOf(id, a.proposer.Shards()))
	if err != nil {
		return err
	}
	defer v.Close()
	m, ok := rules.ReadSite(v, id)
	if !ok {
		return problem.New(problem.NotFound, "nobody has opened this site", "check its id, or open it with POST /v1/sites")
	}
	return web.WriteJSON(w, http.StatusOK, siteAnswer{
		Site: string(m.Site), Name: string(m.Name), Division: string(m.Division), OpenedAt: moment(m.OpenedAt), Operator: string(m.Operator),
		freshness: fresh(v.AsOf(), stale),
	})
}
