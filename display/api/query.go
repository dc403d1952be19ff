package api

import (
	"net/url"
	"strconv"
	"strings"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/display/colour"
	pb "qianma/middle-store/middlestorepb"
)

// asked is what the query of a reading request says.
type asked struct {
	person  identity.Person
	offline bool
	qr      bool
	lang    colour.Lang
	seenRaw string
	seen    seen
}

// plain reports whether the answer is the one that most clients ask for.
func (q *asked) plain() bool { return !q.offline && !q.qr && q.lang == colour.ZH }

// seen is how far a reader has seen: marks of the middle store, and how many
// display facts about the person.
type seen struct {
	marks pb.Marks
	facts int
}

// maxSeen bounds the word a client sends back.
const maxSeen = 4096

// appendSeen writes the word that clients send back: marks, a dot, a count.
func appendSeen(dst []byte, m pb.Marks, facts int) []byte {
	dst = append(dst, m.String()...)
	return strconv.AppendInt(append(dst, '.'), int64(facts), 36)
}

func parseSeen(s string) (out seen, ok bool) {
	marks, facts, found := strings.Cut(s, ".")
	if !found || len(s) > maxSeen {
		return seen{}, false
	}
	n, err := strconv.ParseUint(facts, 36, 31)
	if err != nil {
		return seen{}, false
	}
	out.facts = int(n)
	if out.marks, err = pb.ParseMarks(marks); err != nil {
		return seen{}, false
	}
	return out, true
}

// parseQuery reads a query by hand: it is read for every code that is shown.
func parseQuery(raw string) (q asked, err error) {
	named := false
	for len(raw) > 0 {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		name, value, _ := strings.Cut(pair, "=")
		if strings.ContainsAny(value, "%+") {
			if value, err = url.QueryUnescape(value); err != nil {
				return q, invalid("the query cannot be read", "escape it as a URL's query")
			}
		}
		switch name {
		case "":
		case "person":
			if q.person, err = identity.ParsePerson(value); err != nil {
				return q, err
			}
			named = true
		default:
			if err := q.set(name, value); err != nil {
				return q, err
			}
		}
	}
	if !named {
		return q, invalid("the query names no person", "ask with ?person=p_…; POST /v1/persons/resolve finds it from a document")
	}
	return q, nil
}

func (q *asked) set(name, value string) error {
	ok := true
	switch name {
	case "seen":
		if value == "" {
			return nil
		}
		q.seenRaw = value
		q.seen, ok = parseSeen(value)
	case "lang":
		q.lang = colour.ZH
		if value == "en" {
			q.lang = colour.EN
		}
		ok = value == "en" || value == "zh"
	case "include":
		for part := range strings.SplitSeq(value, ",") {
			q.offline = q.offline || part == "offline"
			q.qr = q.qr || part == "qr"
			ok = ok && (part == "offline" || part == "qr")
		}
	default:
		return problem.New(problem.UnknownField, "the query names a parameter this endpoint does not have", "use person, include, lang and seen")
	}
	if !ok {
		return invalid("the parameter "+name+" is not one this endpoint reads", "see /openapi.yaml for its values; leave seen out to begin anew")
	}
	return nil
}

func invalid(message, fix string) *problem.Problem {
	return problem.New(problem.Invalid, message, fix)
}
