package api

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
)

// packing is POST /v1/boxes.
type packing struct {
	Box      string    `json:"box"`
	Tubes    []string  `json:"tubes"`
	PackedAt time.Time `json:"packed_at"`
	Operator string    `json:"operator"`
}

// packBox packs tubes into a box, each by itself: a wrong barcode does not
// hold up the others.
func (a *API) packBox(w http.ResponseWriter, r *http.Request) error {
	var in packing
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	if err := bounded(len(in.Tubes)); err != nil {
		return err
	}
	now := a.now()
	rows, s := make([]row, len(in.Tubes)), new(space)
	f := nucleicpb.Fact{Kind: nucleicpb.KindBoxed}
	for i, tube := range in.Tubes {
		m := &f.Boxed
		*m = nucleicpb.Boxed{Box: []byte(in.Box), Tube: []byte(tube), PackedAt: or(in.PackedAt, now), Operator: []byte(in.Operator), DoorAt: now}
		if rows[i].Problem = check(&f); rows[i].Problem == nil {
			rows[i] = a.rowIn(s, m.Tube, m)
		}
	}
	return a.submit(w, r, o, rows)
}

// bounded refuses an empty list and one that is too long.
func bounded(n int) error {
	switch {
	case n == 0:
		return problem.New(problem.Invalid, "there are no tubes in the list", "send at least one")
	case n > MaxRows:
		return problem.New(problem.TooLarge, "there are more than "+strconv.Itoa(MaxRows)+" tubes in the list", "send them in several requests")
	}
	return nil
}

// reception is POST /v1/receptions.
type reception struct {
	Lab        string    `json:"lab"`
	Tubes      []string  `json:"tubes"`
	Box        string    `json:"box"`
	ReceivedAt time.Time `json:"received_at"`
	Operator   string    `json:"operator"`
}

// receive takes tubes, or a whole box, into a lab.
func (a *API) receive(w http.ResponseWriter, r *http.Request) error {
	var in reception
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	if (in.Box == "") == (len(in.Tubes) == 0) {
		return explain("reception_of_what")
	}
	now := a.now()
	f := nucleicpb.Fact{Kind: nucleicpb.KindLabReceived}
	m := &f.LabReceived
	*m = nucleicpb.LabReceived{Lab: []byte(in.Lab), Box: []byte(in.Box), ReceivedAt: or(in.ReceivedAt, now), Operator: []byte(in.Operator), DoorAt: now}
	if in.Box != "" {
		return a.receiveBox(w, r, o, &f)
	}
	if err := bounded(len(in.Tubes)); err != nil {
		return err
	}
	rows, s := make([]row, len(in.Tubes)), new(space)
	for i, tube := range in.Tubes {
		m.Tube = []byte(tube)
		if rows[i].Problem = check(&f); rows[i].Problem == nil {
			rows[i] = a.rowIn(s, m.Tube, m)
		}
	}
	return a.submit(w, r, o, rows)
}

// receiveBox tells every shard, because the tubes of a box are spread over
// them. To whoever asked it is one row: accepted where it was news to any.
func (a *API) receiveBox(w http.ResponseWriter, r *http.Request, o web.Options, f *nucleicpb.Fact) error {
	if bad := check(f); bad != nil {
		return bad
	}
	command := f.Append(nil)
	rows := make([]row, a.proposer.Shards())
	for shard := range rows {
		rows[shard] = row{Shard: shard, Command: command}
	}
	if len(rows) == 1 {
		return a.submitOne(w, r, o, rows[0])
	}
	receipts, outcomes, err := a.intake.Many(r.Context(), o, rows)
	if err != nil {
		return err
	}
	return web.WriteRows(w, receipts, []web.Outcome{joined(outcomes)}, explain)
}

// joined is what became of one row that several shards were told: what was
// refused anywhere must be told, and what was news anywhere is news.
func joined(outcomes []web.Outcome) web.Outcome {
	return slices.MinFunc(outcomes, func(a, b web.Outcome) int { return rank(a.Status) - rank(b.Status) })
}

func rank(s machine.Status) int {
	switch s {
	case machine.Rejected:
		return 0
	case machine.Accepted:
		return 1
	}
	return 2
}
