package api

import (
	"net/http"
	"time"

	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

// result is one row of POST /v1/results.
type result struct {
	Tube       string    `json:"tube"`
	Lab        string    `json:"lab"`
	Revision   *uint32   `json:"revision"` // nil: 1
	Outcome    string    `json:"outcome"`
	ReceivedAt time.Time `json:"received_at"`
	TestedAt   time.Time `json:"tested_at"`
	ReportedAt time.Time `json:"reported_at"`
	Method     string    `json:"method"`
	Operator   string    `json:"operator"`
}

// report takes one result of one tube.
func (a *API) report(w http.ResponseWriter, r *http.Request) error {
	var in result
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	return a.submitOne(w, r, o, a.result(new(space), &in))
}

// reportBatch takes many.
func (a *API) reportBatch(w http.ResponseWriter, r *http.Request) error {
	return a.batch(w, r, nucleicpb.KindResulted, func(s *space, raw []byte) (row, error) {
		var in result
		if err := web.Decode(raw, &in); err != nil {
			return row{}, err
		}
		return a.result(s, &in), nil
	})
}

func (a *API) result(s *space, in *result) row {
	revision := uint32(1)
	if in.Revision != nil {
		revision = *in.Revision
	}
	outcome, _ := nucleicpb.ParseOutcome(in.Outcome)
	m := &nucleicpb.Resulted{
		Tube: []byte(in.Tube), Lab: []byte(in.Lab), Revision: revision, Outcome: outcome,
		ReceivedAt: ms(in.ReceivedAt), TestedAt: ms(in.TestedAt), ReportedAt: ms(in.ReportedAt),
		Method: []byte(in.Method), Operator: []byte(in.Operator), DoorAt: a.now(),
	}
	if bad := refusal(rules.CheckResulted(m, always)); bad != nil {
		return row{Problem: bad}
	}
	return a.rowIn(s, m.Tube, m)
}
