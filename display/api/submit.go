package api

import (
	"net/http"

	"qianma/cluster/identity"
	"qianma/cluster/intake"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/display/displaypb"
)

// row is one thing a request asks for.
type row struct {
	intake.Row
	place string // where what it makes can be looked at
}

// refused is a row that cannot become a command.
func refused(p *problem.Problem) row { return row{Row: intake.Row{Problem: p}} }

// rowOf turns a fact into a row of its person's shard.
func (a *API) rowOf(f displaypb.Body) row {
	return row{Row: intake.Row{Shard: a.shardOf(identity.Person(f.PersonOf())), Command: displaypb.Append(nil, f)}}
}

// submitOne answers a request of one row.
func (a *API) submitOne(w http.ResponseWriter, r *http.Request, o web.Options, one row) error {
	receipt, err := a.intake.One(r.Context(), o, one.Row)
	if err != nil {
		return err
	}
	if one.place != "" && receipt.Rows[0].Status != machine.Rejected {
		w.Header().Set("Location", one.place)
	}
	return web.WriteOne(w, receipt, explain)
}

// submit answers a batch. Rows that cannot become commands are told so in
// their place; the others are committed, those of one shard together.
func (a *API) submit(w http.ResponseWriter, r *http.Request, o web.Options, rows []row) error {
	taken := make([]intake.Row, len(rows))
	for i := range rows {
		taken[i] = rows[i].Row
	}
	receipts, outcomes, err := a.intake.Many(r.Context(), o, taken)
	if err != nil {
		return err
	}
	return web.WriteRows(w, receipts, outcomes, explain)
}
