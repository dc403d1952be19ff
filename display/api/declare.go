package api

import (
	"math"
	"net/http"
	"time"

	"qianma/display/displaypb"
)

// symptoms are the names of the API.
var symptoms = map[string]displaypb.Symptom{
	"fever": displaypb.Fever, "cough": displaypb.Cough, "fatigue": displaypb.Fatigue, "sore_throat": displaypb.SoreThroat,
	"loss_of_taste": displaypb.LossOfTaste, "breathless": displaypb.Breathless, "diarrhoea": displaypb.Diarrhoea, "other": displaypb.OtherSymptom,
}

// declare is POST /v1/declarations: what a person says about their own health.
func (a *API) declare(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		who
		Symptoms    []string  `json:"symptoms"`
		Temperature float64   `json:"temperature"` // degrees Celsius; 0: not measured
		Contact     bool      `json:"contact"`
		Declarant   string    `json:"declarant"`
		At          time.Time `json:"at"`
	}
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	person, _, bad := a.known(&in.who)
	if bad != nil {
		return bad
	}
	if in.Temperature < 0 || in.Temperature > 100 {
		return explain(codeSymptoms)
	}
	f := &displaypb.Declared{
		Person: displaypb.Person(person), At: or(in.At, a.now()), Temperature: uint32(math.Round(10 * in.Temperature)),
		Contact: in.Contact, Declarant: in.Declarant,
	}
	for _, name := range in.Symptoms {
		s, ok := symptoms[name]
		if !ok {
			return explain(codeSymptoms)
		}
		f.Symptoms |= s
	}
	return a.submitOne(w, r, o, a.rowOf(f))
}

// correct is POST /v1/corrections: the named declaration, application or
// guardian was a mistake.
func (a *API) correct(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		who
		Fact     string    `json:"fact"`
		Operator string    `json:"operator"`
		Reason   string    `json:"reason"`
		At       time.Time `json:"at"`
	}
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	person, _, bad := a.known(&in.who)
	if bad != nil {
		return bad
	}
	target, err := displaypb.ParseID(in.Fact)
	if err != nil {
		return explain(codeInvalidFact)
	}
	return a.submitOne(w, r, o, a.rowOf(&displaypb.Corrected{
		Person: displaypb.Person(person), Target: target, Operator: in.Operator, Reason: in.Reason, At: or(in.At, a.now()),
	}))
}
