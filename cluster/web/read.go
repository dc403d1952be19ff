package web

import (
	"bytes"
	"encoding/binary"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"qianma/cluster/problem"
)

// Media types that batches come in.
const (
	JSON   = "application/json"
	NDJSON = "application/x-ndjson"
	Facts  = "application/x-qianma-facts" // length-prefixed facts of a contract
)

// strict refuses what a careless client may not notice: names the endpoint
// does not have, names that stand twice, other cases of a name, and text that
// is not UTF-8.
var strict = json.JoinOptions(json.RejectUnknownMembers(true), jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false))

// ReadJSON decodes the body, one JSON value of at most MaxJSON bytes, into v.
func ReadJSON(r *http.Request, v any) error {
	if t := MediaType(r); t != JSON {
		return wrongType(JSON)
	}
	raw, err := bodyOf(r).load(MaxJSON)
	if err != nil {
		return err
	}
	return Decode(raw, v)
}

// Decode is the strictness of ReadJSON for bytes at hand, such as a row.
func Decode(raw []byte, v any) error {
	if s := bytes.TrimSpace(raw); len(s) == 0 || string(s) == "null" {
		return problem.New(problem.Malformed, "there is no JSON value", "send the object that /openapi.yaml describes")
	}
	if err := json.Unmarshal(raw, v, strict); err != nil {
		return explain(err)
	}
	return nil
}

// MediaType is the body's media type; none stands for JSON.
func MediaType(r *http.Request) string {
	v := r.Header["Content-Type"]
	if len(v) == 0 || v[0] == JSON {
		return JSON
	}
	t, _, err := mime.ParseMediaType(v[0])
	if err != nil {
		return ""
	}
	// What curl -d says when it is told nothing.
	if t == "application/x-www-form-urlencoded" {
		return JSON
	}
	return t
}

func wrongType(want ...string) error {
	return problem.New(problem.Malformed, "the body's Content-Type is not one this endpoint reads", "send "+strings.Join(want, " or "))
}

// explain turns a decoder's error into words. It tells where, never what:
// what stands there may be a person's number.
func explain(err error) error {
	var semantic *json.SemanticError
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		return problem.New(problem.UnknownField, "the body names a field that this endpoint does not have"+at(semantic.JSONPointer), "check its spelling in /openapi.yaml, or leave it out")
	case errors.As(err, &semantic):
		return problem.New(problem.Malformed, "a value is not of the type it should be"+at(semantic.JSONPointer), "see /openapi.yaml for the type of each field")
	case errors.As(err, &syntax) && errors.Is(err, jsontext.ErrDuplicateName):
		return problem.New(problem.Malformed, "a field stands twice"+at(syntax.JSONPointer), "send each field once")
	case errors.As(err, &syntax):
		return problem.New(problem.Malformed, "the body is not valid JSON near byte "+strconv.FormatInt(syntax.ByteOffset, 10), "check brackets, quotes and commas, and that the text is UTF-8 and complete")
	}
	return problem.New(problem.Malformed, "the body cannot be read", "see /openapi.yaml for what this endpoint reads")
}

// at names a place if it is made of nothing but field names and positions:
// anything else in it is the client's own text.
func at(p jsontext.Pointer) string {
	if p == "" || len(p) > 64 {
		return ""
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		if c != '/' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return ""
		}
	}
	return " at " + string(p)
}

// EachRow calls fn with each row of a batch: the elements of {"rows":[…]}, or
// the lines of NDJSON. An element is one well-formed JSON value; a line is
// whatever stands there, for Decode to judge. The bytes are valid until the
// handler returns. An error of fn ends the walk and is returned as it is.
func EachRow(r *http.Request, maxRows int, fn func(i int, raw []byte) error) error {
	raw, err := Body(r)
	if err != nil {
		return err
	}
	switch MediaType(r) {
	case JSON:
		return eachElement(raw, maxRows, fn)
	case NDJSON:
		return eachLine(raw, maxRows, fn)
	}
	return wrongType(JSON, NDJSON)
}

func eachElement(raw []byte, maxRows int, fn func(int, []byte) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(raw), strict)
	if err := open(d); err != nil {
		return err
	}
	n := 0
	for ; d.PeekKind() != ']'; n++ {
		row, err := d.ReadValue()
		switch {
		case err != nil:
			return explain(err)
		case n >= maxRows:
			return tooMany(maxRows)
		case len(row) > MaxRow:
			return rowTooLarge(n)
		}
		if err := fn(n, row); err != nil {
			return err
		}
	}
	return shut(d, n)
}

// open reads up to the first row.
func open(d *jsontext.Decoder) error {
	t, err := d.ReadToken()
	switch {
	case err != nil:
		return explain(err)
	case t.Kind() != '{':
		return notRows()
	}
	if t, err = d.ReadToken(); err != nil {
		return explain(err)
	}
	if t.Kind() != '"' {
		return notRows()
	}
	if t.String() != "rows" {
		return unknownBeside()
	}
	if t, err = d.ReadToken(); err != nil {
		return explain(err)
	}
	if t.Kind() != '[' {
		return notRows()
	}
	return nil
}

// shut reads what stands behind the last row: two brackets and nothing else.
func shut(d *jsontext.Decoder, rows int) error {
	if _, err := d.ReadToken(); err != nil {
		return explain(err)
	}
	t, err := d.ReadToken()
	if err != nil {
		return explain(err)
	}
	if t.Kind() != '}' {
		return unknownBeside()
	}
	if d.PeekKind() != 0 || len(bytes.TrimSpace(d.UnreadBuffer())) != 0 {
		return problem.New(problem.Malformed, "something stands behind the end of the body", "send one object with the list of rows, and nothing behind it")
	}
	if rows == 0 {
		return noRows()
	}
	return nil
}

func notRows() error {
	return problem.New(problem.Malformed, "the body is not a list of rows", `send {"rows":[…]}, or one JSON object a line with Content-Type application/x-ndjson`)
}

func unknownBeside() error {
	return problem.New(problem.UnknownField, `the body names a field other than "rows"`, `send {"rows":[…]} and nothing beside it`)
}

func noRows() error {
	return problem.New(problem.Malformed, "there are no rows", "send at least one")
}

func tooMany(bound int) error {
	n := strconv.Itoa(bound)
	return problem.New(problem.TooLarge, "there are more than "+n+" rows", "send at most "+n+" at a time")
}

func rowTooLarge(i int) error {
	return problem.New(problem.TooLarge, "row "+strconv.Itoa(i)+" is over the bound of a row", "check for a missing quote or line break; a row has at most 64 KiB")
}

func eachLine(raw []byte, maxRows int, fn func(int, []byte) error) error {
	n := 0
	for len(raw) > 0 {
		var line []byte
		if i := bytes.IndexByte(raw, '\n'); i >= 0 {
			line, raw = raw[:i], raw[i+1:]
		} else {
			line, raw = raw, nil
		}
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
			continue
		case n >= maxRows:
			return tooMany(maxRows)
		case len(line) > MaxRow:
			return rowTooLarge(n)
		}
		if err := fn(n, line); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return noRows()
	}
	return nil
}

// EachFact is EachRow for machines: facts of a contract, each behind its
// length as a uvarint.
func EachFact(r *http.Request, maxRows int, fn func(i int, fact []byte) error) error {
	if MediaType(r) != Facts {
		return wrongType(Facts)
	}
	raw, err := Body(r)
	if err != nil {
		return err
	}
	n := 0
	for ; len(raw) > 0; n++ {
		size, w := binary.Uvarint(raw)
		switch {
		case w <= 0 || size > uint64(len(raw)-w):
			return problem.New(problem.Malformed, "fact "+strconv.Itoa(n)+" is longer than the body", "write each fact behind its length as a uvarint")
		case n >= maxRows:
			return tooMany(maxRows)
		case size > MaxRow:
			return rowTooLarge(n)
		}
		end := w + int(size)
		if err := fn(n, raw[w:end:end]); err != nil {
			return err
		}
		raw = raw[end:]
	}
	if n == 0 {
		return noRows()
	}
	return nil
}
