package api

import (
	"errors"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/intake"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/vaccine/vaccinepb"
)

// dose is a dose as clients write it.
type dose struct {
	Document *identity.Document `json:"document"`
	Person   string             `json:"person"`
	Product  string             `json:"product"`
	Batch    string             `json:"batch"`
	Dose     uint32             `json:"dose"`
	Site     string             `json:"site"`
	Day      string             `json:"day"`
	Operator string             `json:"operator"`
}

// correction is a correction as clients write it.
type correction struct {
	Document    *identity.Document `json:"document"`
	Person      string             `json:"person"`
	Fact        string             `json:"fact"`
	Operator    string             `json:"operator"`
	Reason      string             `json:"reason"`
	CorrectedAt time.Time          `json:"corrected_at"`
}

func refused(err error) row { return row{Row: intake.Row{Problem: problem.From(err)}} }

// rowOf is a command in the shard where the person's facts live.
func (a *API) rowOf(person vaccinepb.Person, command []byte) row {
	return row{Row: intake.Row{Shard: machine.ShardOfKey(person[:], a.proposer.Shards()), Command: command}}
}

func (a *API) doseRow(in *dose) row {
	person, flags, err := a.person(in.Document, in.Person)
	if err != nil {
		return refused(err)
	}
	day, err := parseDay(in.Day)
	if err != nil {
		return refused(err)
	}
	d := vaccinepb.DoseGiven{Person: person, Product: in.Product, Batch: in.Batch, Dose: in.Dose, Site: in.Site, Day: day, Operator: in.Operator}
	out := a.rowOf(person, vaccinepb.AppendDoseGiven(nil, &d))
	out.flags = flags
	return out
}

func (a *API) correctionRow(in *correction) row {
	person, _, err := a.person(in.Document, in.Person)
	if err != nil {
		return refused(err)
	}
	target, err := vaccinepb.ParseID(in.Fact)
	if err != nil {
		return refused(problem.New(problem.Invalid, "that is not the id of a fact", `ids are "f_" and 26 letters and digits, as GET /v1/persons/{person}/doses shows them`))
	}
	at := in.CorrectedAt
	if at.IsZero() {
		at = a.clock.Now()
	}
	c := vaccinepb.Corrected{Person: person, Target: target, Operator: in.Operator, Reason: in.Reason, At: at.UnixMilli()}
	return a.rowOf(person, vaccinepb.AppendCorrected(nil, &c))
}

// factRow takes a fact as machines send it. It must be written in the one
// canonical way, because its bytes are its identity.
func (a *API) factRow(raw []byte) row {
	f, err := vaccinepb.Decode(raw)
	if errors.Is(err, vaccinepb.ErrUnknown) {
		return refused(problem.New(problem.Unsupported, "a kind of fact that this build does not know", "send it when this subsystem has been upgraded"))
	}
	if err != nil || string(f.Append(nil)) != string(raw) {
		return refused(problem.New(problem.Malformed, "not a fact of vaccine.proto in canonical form", "write fields in the order of their numbers, each once, and leave out what is empty"))
	}
	return a.rowOf(f.PersonOf(), raw)
}

// person finds out who is meant: by a document, or by the name this system
// gave.
func (a *API) person(doc *identity.Document, name string) (vaccinepb.Person, identity.Flags, error) {
	switch {
	case (doc == nil) == (name == ""):
		return vaccinepb.Person{}, 0, problem.New(problem.Invalid, "a row needs a document or a person, and not both", `send "document" as it was read, or "person" as this system named it`)
	case doc == nil:
		p, err := identity.ParsePerson(name)
		return vaccinepb.Person(p), 0, err
	}
	normal, flags, err := doc.Normalize()
	if err != nil {
		return vaccinepb.Person{}, 0, err
	}
	return vaccinepb.Person(a.hasher.Person(normal)), flags, nil
}

// Days are those of the sites' calendar, counted from 1970-01-01.

const secondsOfDay = 24 * 60 * 60

func parseDay(s string) (int32, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < 1970 {
		return 0, problem.New(problem.Invalid, "the day is missing or not a day of the calendar", "write it as 2022-01-05")
	}
	return int32(t.Unix() / secondsOfDay), nil
}

func formatDay(day int32) string {
	return time.Unix(int64(day)*secondsOfDay, 0).UTC().Format(time.DateOnly)
}
