package api

import (
	"net/http"

	"qianma/cluster/intake"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

// row is one thing a request asks for.
type row = intake.Row

// look says how to find out what became of rows whose answer was lost.
const look = "ask for the tubes concerned"

// draft is a fact under construction at the door.
type draft interface{ AppendFact([]byte) []byte }

// always is a time after which nothing lies. The door looks at the clock for
// stamping alone; whether a time lies in the future is judged once, where the
// judgement is kept with the idempotency key, so that a repeat is judged alike.
const always int64 = 1<<63 - 1

// check refuses early what the rules would refuse whatever is held.
func check(f *nucleicpb.Fact) *problem.Problem { return refusal(rules.Check(f, always)) }

// refusal is the problem of a code; nil where there is none.
func refusal(code string) *problem.Problem {
	if code == "" {
		return nil
	}
	return explain(code)
}

// rowOf turns a checked fact into a row of the tube's or site's shard.
func (a *API) rowOf(id []byte, d draft) row { return a.rowIn(new(space), id, d) }

// rowIn is rowOf with the command laid into a space that a request shares.
func (a *API) rowIn(s *space, id []byte, d draft) row {
	return row{Shard: rules.ShardOf(id, a.proposer.Shards()), Command: s.lay(d)}
}

// space is where the commands of one request lie. It is never used again,
// because a proposer may hold on to commands after a wait was given up.
type space struct {
	room []byte
	used bool
}

// roomOfOne holds nearly every command, roomOfMany a hundred or so.
const (
	roomOfOne  = 160
	roomOfMany = 16 << 10
)

func (s *space) lay(d draft) []byte {
	if cap(s.room)-len(s.room) < roomOfOne {
		size := roomOfOne
		if s.used {
			size = roomOfMany
		}
		s.room, s.used = make([]byte, 0, size), true
	}
	start := len(s.room)
	s.room = d.AppendFact(s.room)
	return s.room[start:len(s.room):len(s.room)]
}

// submitOne answers a request of one row.
func (a *API) submitOne(w http.ResponseWriter, r *http.Request, o web.Options, one row) error {
	receipt, err := a.intake.One(r.Context(), o, one)
	if err != nil {
		return err
	}
	a.lead(w, one.Shard)
	return web.WriteOne(w, receipt, explain)
}

// submit answers a batch. Rows that cannot become commands are told so in
// their place; the others are committed, those of one shard together.
func (a *API) submit(w http.ResponseWriter, r *http.Request, o web.Options, rows []row) error {
	receipts, outcomes, err := a.intake.Many(r.Context(), o, rows)
	if err != nil {
		return err
	}
	if a.proposer.Shards() == 1 {
		a.lead(w, 0)
	}
	return web.WriteRows(w, receipts, outcomes, explain)
}

// lead tells a caller who writes much where the shard's leader is, so that it
// can spare the province a hop. It is advice: every node takes every write.
func (a *API) lead(w http.ResponseWriter, shard int) {
	if a.leader == nil {
		return
	}
	if at := a.leader(shard); at != "" {
		w.Header()["X-Leader"] = []string{at}
	}
}
