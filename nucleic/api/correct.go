package api

import (
	"net/http"
	"time"

	"qianma/nucleic/nucleicpb"
)

// correction is POST /v1/corrections: of a registration when it names a
// person, of a result when it names a revision.
type correction struct {
	who
	Tube        string     `json:"tube"`
	Revision    uint32     `json:"revision"`
	Lab         string     `json:"lab"`
	Outcome     string     `json:"outcome"`
	Rebind      *rebinding `json:"rebind"`
	CorrectedAt time.Time  `json:"corrected_at"`
	Operator    string     `json:"operator"`
	Reason      string     `json:"reason"`
}

// rebinding is who the swab really belongs to, and what else was wrong; what
// it leaves out stays as it was.
type rebinding struct {
	who
	Pool      *poolText `json:"pool"`
	SampledAt time.Time `json:"sampled_at"`
}

// correct voids a registration or a result, and may give a swab to the person
// it belongs to. Nothing is erased.
func (a *API) correct(w http.ResponseWriter, r *http.Request) error {
	var in correction
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	return a.submitOne(w, r, o, a.correction(&in))
}

func (a *API) correction(in *correction) row {
	now := a.now()
	f := nucleicpb.Fact{Kind: nucleicpb.KindCorrected}
	m := &f.Corrected
	*m = nucleicpb.Corrected{
		Tube: []byte(in.Tube), Revision: in.Revision, Lab: []byte(in.Lab), Outcome: outcomeOf(in.Outcome),
		CorrectedAt: or(in.CorrectedAt, now), Operator: []byte(in.Operator), Reason: []byte(in.Reason), DoorAt: now,
	}
	if in.Person != "" || in.Document != nil {
		person, _, bad := a.known(&in.who)
		if bad != nil {
			return row{Problem: bad}
		}
		m.Person = person[:]
	}
	if in.Rebind != nil {
		bound, one := a.rebinding(in.Rebind)
		if one.Problem != nil {
			return one
		}
		m.Rebind = bound
	}
	if bad := check(&f); bad != nil {
		return row{Problem: bad}
	}
	return a.rowOf(m.Tube, m)
}

// outcomeOf reads an outcome that may be left out.
func outcomeOf(s string) nucleicpb.Outcome {
	o, ok := nucleicpb.ParseOutcome(s)
	if s != "" && !ok {
		return nucleicpb.OutcomeConflict // no fact may carry it: the rules refuse it
	}
	return o
}

func (a *API) rebinding(in *rebinding) ([]byte, row) {
	person, flags, bad := a.known(&in.who)
	if bad != nil {
		return nil, row{Problem: bad}
	}
	bound := nucleicpb.Registered{Person: person[:], SampledAt: ms(in.SampledAt), Flags: uint32(flags)}
	if in.Pool != nil {
		bound.Pool = in.Pool.known()
	}
	return bound.Append([]byte{}), row{}
}
