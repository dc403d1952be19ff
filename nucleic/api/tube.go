package api

import (
	"net/http"
	"time"

	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

// opening is POST /v1/tubes.
type opening struct {
	Tube     string    `json:"tube"`
	Pool     poolText  `json:"pool"`
	Site     string    `json:"site"`
	OpenedAt time.Time `json:"opened_at"`
	Operator string    `json:"operator"`
	From     []string  `json:"from"` // other tubes: always refused, in words
}

// openTube puts a tube into use.
func (a *API) openTube(w http.ResponseWriter, r *http.Request) error {
	var in opening
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	now := a.now()
	f := nucleicpb.Fact{Kind: nucleicpb.KindTubeOpened}
	m := &f.TubeOpened
	*m = nucleicpb.TubeOpened{
		Tube: []byte(in.Tube), Pool: in.Pool.known(), Site: []byte(in.Site), OpenedAt: or(in.OpenedAt, now),
		Operator: []byte(in.Operator), DoorAt: now,
	}
	if len(in.From) > 0 {
		return explain(rules.PoolOfPools)
	}
	if bad := check(&f); bad != nil {
		return bad
	}
	return a.submitOne(w, r, o, a.rowOf(m.Tube, m))
}

// sealing is POST /v1/tubes/{tube}/seal; all of it may be left out.
type sealing struct {
	SealedAt time.Time `json:"sealed_at"`
	Operator string    `json:"operator"`
	Count    uint32    `json:"count"`
}

// sealTube closes a tube; a count that is given must be that of its people.
func (a *API) sealTube(w http.ResponseWriter, r *http.Request) error {
	o, err := web.WriteOptions(r)
	if err != nil {
		return err
	}
	var in sealing
	if err := readOptional(r, &in); err != nil {
		return err
	}
	now := a.now()
	f := nucleicpb.Fact{Kind: nucleicpb.KindTubeSealed}
	m := &f.TubeSealed
	*m = nucleicpb.TubeSealed{
		Tube: []byte(r.PathValue("tube")), SealedAt: or(in.SealedAt, now), Operator: []byte(in.Operator), Count: in.Count, DoorAt: now,
	}
	if bad := check(&f); bad != nil {
		return bad
	}
	return a.submitOne(w, r, o, a.rowOf(m.Tube, m))
}
