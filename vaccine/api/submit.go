package api

import (
	"net/http"

	"qianma/cluster/identity"
	"qianma/cluster/intake"
	"qianma/cluster/machine"
	"qianma/cluster/web"
)

// row is one thing a request asks for.
type row struct {
	intake.Row
	flags identity.Flags // what is odd about the document
}

// submitOne answers a request of one row: what a rule refuses is a problem.
func (a *API) submitOne(w http.ResponseWriter, r *http.Request, o web.Options, one row) error {
	receipt, err := a.intake.One(r.Context(), o, one.Row)
	if err != nil {
		return err
	}
	outcome := one.outcome(web.Outcome{Status: receipt.Rows[0].Status, Code: receipt.Rows[0].Code})
	if outcome.Status == machine.Rejected || outcome.Status == machine.Conflicts {
		return web.WriteOne(w, receipt, explain)
	}
	return web.WriteRows(w, []machine.Receipt{receipt}, []web.Outcome{outcome}, explain)
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
	for i := range rows {
		outcomes[i] = rows[i].outcome(outcomes[i])
	}
	return web.WriteRows(w, receipts, outcomes, explain)
}

// outcome names a row whose document was odd though it was accepted.
func (r *row) outcome(o web.Outcome) web.Outcome {
	if o.Problem == nil && o.Status == machine.Accepted && r.flags.Has(identity.CheckDigit) {
		o.Code = codeCheckDigit
	}
	return o
}
