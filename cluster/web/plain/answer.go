package plain

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// answer is what a handler says: an http.ResponseWriter. It is whole before its
// first byte leaves, and used again and again.
type answer struct {
	header http.Header
	status int
	out    *[]byte  // the status and the header as they were when the status was said
	body   *[]byte  // nil: nothing was written
	way    []string // what the header says of the connection
	typed  bool     // the type of the body needs no guess
	dated  bool     // the handler has said the date
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

// putBack keeps a buffer unless one giant answer has made it a burden.
func putBack(b *[]byte) {
	if cap(*b) <= 64<<10 {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// begin makes it ready for the next request.
func (a *answer) begin() {
	if a.header == nil {
		a.header = make(http.Header, 8)
	}
	clear(a.header)
	*a = answer{header: a.header}
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter: the first status counts, with the
// header as it is then, and one that only announces another is not sent.
func (a *answer) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic("plain: a status of other than three digits")
	}
	if a.status != 0 || status < 200 {
		return
	}
	a.status, a.out = status, buffers.Get().(*[]byte)
	*a.out = append(appendStatus(append(*a.out, "HTTP/1.1 "...), status), "\r\n"...)
	for name, values := range a.header {
		switch name {
		case "Content-Length": // it has the length that it has
			continue
		case "Transfer-Encoding":
			a.typed = true
			continue
		case "Connection":
			a.way = values
			continue
		case "Content-Type":
			a.typed = true
			if status == http.StatusNotModified {
				continue
			}
		case "Content-Encoding":
			a.typed = a.typed || a.header.Get(name) != ""
		case "Date":
			a.dated = true
		}
		*a.out = appendField(*a.out, name, values)
	}
}

// bodiless reports whether the status is one of an answer without a body.
func (a *answer) bodiless() bool {
	return a.status == http.StatusNoContent || a.status == http.StatusNotModified
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.bodiless() && len(p) > 0 {
		return 0, http.ErrBodyNotAllowed
	}
	if a.body == nil {
		a.body = buffers.Get().(*[]byte)
	}
	*a.body = append(*a.body, p...)
	return len(p), nil
}

// last reports whether the handler ends the connection.
func (a *answer) last() bool { return len(a.way) > 0 && a.way[0] == "close" }

// end is the answer as it goes over the line. It is to be put back.
func (a *answer) end(now time.Time, last bool) *[]byte {
	var body []byte
	if a.body != nil {
		body = *a.body
		defer putBack(a.body)
	}
	b := *a.out
	if !a.dated {
		b = append(append(append(b, "Date: "...), date(now)...), "\r\n"...)
	}
	if last {
		b = append(b, "Connection: close\r\n"...)
	} else {
		b = appendField(b, "Connection", a.way)
	}
	if !a.bodiless() {
		if !a.typed && len(body) > 0 {
			b = append(append(append(b, "Content-Type: "...), http.DetectContentType(body)...), "\r\n"...)
		}
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10), "\r\n"...)
	}
	*a.out = append(append(b, "\r\n"...), body...)
	return a.out
}

func appendStatus(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "200 OK"...)
	}
	b = append(strconv.AppendInt(b, int64(status), 10), ' ')
	if text := http.StatusText(status); text != "" {
		return append(b, text...)
	}
	return strconv.AppendInt(append(b, "status code "...), int64(status), 10)
}

// appendField appends a header's lines. What is no name has none, and what would
// end a line is a blank.
func appendField(b []byte, name string, values []string) []byte {
	if !named(name) && !token(name) {
		return b
	}
	for _, v := range values {
		b = append(append(b, name...), ": "...)
		b = append(append(b, oneLine(v)...), "\r\n"...)
	}
	return b
}

// token reports whether s is a header's name, however odd.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || strings.IndexByte("\"(),/:;<=>?@[\\]{}", s[i]) >= 0 {
			return false
		}
	}
	return s != ""
}

// oneLine is a header's value without what would end its line.
func oneLine(v string) string {
	if strings.IndexByte(v, '\n') >= 0 || strings.IndexByte(v, '\r') >= 0 {
		v = strings.NewReplacer("\n", " ", "\r", " ").Replace(v)
	}
	return strings.Trim(v, " \t")
}

// dated is the header Date of one second.
type dated struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dated]

func date(now time.Time) string {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastDate.Store(d)
	}
	return d.text
}
