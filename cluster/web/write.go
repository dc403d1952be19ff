package web

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"qianma/cluster/problem"
)

// Header values that answers share; nobody may write to them.
var (
	typeJSON = []string{"application/json"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

// keep puts a buffer back unless one giant answer has made it a burden.
func keep(b *[]byte) {
	if cap(*b) <= 64<<10 {
		buffers.Put(b)
	}
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	raw, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return problem.Wrap(err, problem.Internal, "something went wrong on our side", "try again; if it stays, tell operations the time and the request id")
	}
	WriteRaw(w, status, raw)
	return nil
}

// WriteRaw answers with JSON that is already encoded. The bytes are free again
// when it returns.
func WriteRaw(w http.ResponseWriter, status int, raw []byte) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(raw))}
	w.WriteHeader(status)
	_, _ = w.Write(raw) // a reader that went away is no fault of ours
}

// writeProblem answers with a problem and a status.
func writeProblem(w http.ResponseWriter, p *problem.Problem, status int) {
	b := buffers.Get().(*[]byte)
	defer keep(b)
	*b = append(appendProblem((*b)[:0], p, RequestID(w)), '}', '\n')
	finishProblem(w, p, status, *b)
}

func finishProblem(w http.ResponseWriter, p *problem.Problem, status int, raw []byte) {
	if p.RetryAfter > 0 {
		w.Header()["Retry-After"] = []string{retryAfter(p.RetryAfter)}
	}
	WriteRaw(w, status, raw)
}

// appendProblem writes an object and leaves it open.
func appendProblem(b []byte, p *problem.Problem, id string) []byte {
	b = appendField(b, `{"code":`, string(p.Code))
	b = appendField(b, `,"message":`, p.Message)
	b = appendField(b, `,"fix":`, p.Fix)
	b = appendField(b, `,"side":`, string(p.Side()))
	if p.RetryAfter > 0 {
		b = strconv.AppendInt(append(b, `,"retry_after_ms":`...), p.RetryAfter.Milliseconds(), 10)
	}
	if id != "" {
		b = appendField(b, `,"request_id":`, id)
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	return appendString(append(b, name...), value)
}

// appendString quotes s; what is not UTF-8 becomes the replacement character.
func appendString(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil { // invalid UTF-8: the quoted form is written all the same
		return out
	}
	return out
}
