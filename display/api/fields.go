package api

import (
	"net/http"
	"strconv"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/cluster/web"
)

// who is a person as a row names one.
type who struct {
	Person   string             `json:"person"`
	Document *identity.Document `json:"document"`
}

// known is who the row means; the flags say what is odd about the document.
func (a *API) known(w *who) (p identity.Person, flags identity.Flags, bad *problem.Problem) {
	switch {
	case w.Person == "" && w.Document == nil:
		return p, 0, explain(codeWhoMissing)
	case w.Person != "" && w.Document != nil:
		return p, 0, explain(codeWhoTwice)
	case w.Document == nil:
		p, err := identity.ParsePerson(w.Person)
		if err != nil {
			return p, 0, coded(err, codeInvalidPerson)
		}
		return p, 0, nil
	}
	doc, flags, err := w.Document.Normalize()
	if err != nil {
		return p, 0, coded(err, codeInvalidDocument)
	}
	return a.Hasher.Person(doc), flags, nil
}

// coded gives a floor's problem this subsystem's code for it.
func coded(err error, code problem.Code) *problem.Problem {
	p := *problem.From(err)
	p.Code = code
	return &p
}

// or is the time given, else the other.
func or(t time.Time, other int64) int64 {
	if t.IsZero() {
		return other
	}
	return t.UnixMilli()
}

// read reads what every write begins with: its options and its body.
func read(r *http.Request, v any) (web.Options, error) {
	o, err := web.WriteOptions(r)
	if err != nil {
		return o, err
	}
	return o, web.ReadJSON(r, v)
}

// ruleRef names a rule set and its version.
func ruleRef(name string, version uint32) string {
	return name + "@" + strconv.FormatUint(uint64(version), 10)
}
