package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
)

// poolText is a pool as JSON writes it: "10", 10 or "household".
type poolText string

// UnmarshalJSON takes a string or a whole number.
func (p *poolText) UnmarshalJSON(raw []byte) error {
	if len(raw) >= 2 && raw[0] == '"' {
		s, err := strconv.Unquote(string(raw))
		*p = poolText(s)
		return err
	}
	if _, err := strconv.ParseUint(string(raw), 10, 32); err != nil {
		return errors.New("a pool is a string or a whole number")
	}
	*p = poolText(raw)
	return nil
}

// known is the pool, or an invalid one for the rules to refuse.
func (p poolText) known() nucleicpb.Pool {
	pool, ok := nucleicpb.ParsePool(string(p))
	if !ok {
		return -1
	}
	return pool
}

// who is a person as a row names one.
type who struct {
	Person   string             `json:"person"`
	Document *identity.Document `json:"document"`
}

// known is who the row means; the flags say what is odd about the document.
func (a *API) known(w *who) (p identity.Person, flags identity.Flags, bad *problem.Problem) {
	switch {
	case w.Person == "" && w.Document == nil:
		return p, 0, explain(whoIsMissing)
	case w.Person != "" && w.Document != nil:
		return p, 0, explain(whoStandsTwice)
	case w.Document == nil:
		p, err := identity.ParsePerson(w.Person)
		if err != nil {
			return p, 0, coded(err, "invalid_person")
		}
		return p, 0, nil
	}
	doc, flags, err := w.Document.Normalize()
	if err != nil {
		return p, 0, coded(err, invalidDocument)
	}
	return a.hasher.Person(doc), flags, nil
}

// coded gives a floor's problem this subsystem's code for it.
func coded(err error, code problem.Code) *problem.Problem {
	p := *problem.From(err)
	p.Code = code
	return &p
}

// ms is a time of a row; the zero time is "not given".
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// or is the time given, else the door's.
func or(t time.Time, now int64) int64 {
	if t.IsZero() {
		return now
	}
	return t.UnixMilli()
}

// moment is a time as answers write it; nil when it was not given.
func moment(ms int64) *string {
	if ms == 0 {
		return nil
	}
	s := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00")
	return &s
}

// readOptional reads a JSON body where none is fine too.
func readOptional(r *http.Request, v any) error {
	raw, err := web.Body(r)
	if err != nil || len(raw) == 0 {
		return err
	}
	return web.ReadJSON(r, v)
}

// write reads what every write begins with: its options and its body.
func write(r *http.Request, v any) (web.Options, error) {
	o, err := web.WriteOptions(r)
	if err != nil {
		return o, err
	}
	return o, web.ReadJSON(r, v)
}
