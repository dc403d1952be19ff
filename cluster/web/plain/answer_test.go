package plain

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answers are what handlers say.
var answers = map[string]http.HandlerFunc{
	"nothing": func(http.ResponseWriter, *http.Request) {},
	"text":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "text") },
	"json": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	},
	"html":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<ht"); fmt.Fprint(w, "ml>") },
	"untyped": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Content-Type"] = nil; fmt.Fprint(w, "text") },
	"zipped": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprint(w, "zip")
	},
	"unzipped": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "")
		fmt.Fprint(w, "zip")
	},
	"large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte("x"), large)) },
	"parts": func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			fmt.Fprint(w, "<html> and so on ")
		}
	},
	"empty-write": func(w http.ResponseWriter, _ *http.Request) { n, err := w.Write(nil); note(w, n, err) },
	"201":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); fmt.Fprint(w, "made") },
	"204":         bare(204),
	"304":         bare(304),
	"404":         func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
	"303":         func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v1/echo/x", http.StatusSeeOther) },
	"299":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) },
	"999":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(999) },
	"99":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(99) },
	"1000":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(1000) },
	"twice": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(202)
		w.WriteHeader(500)
		fmt.Fprint(w, "once")
	},
	"late-status": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "text"); w.WriteHeader(500) },
	"late-header": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-One", "1")
		w.WriteHeader(200)
		w.Header().Set("X-One", "2")
		w.Header().Set("X-Two", "2")
		fmt.Fprint(w, "text")
	},
	"late-header-after-a-write": func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "text")
		w.Header().Set("X-Two", "2")
		w.Header().Set("Content-Type", "application/json")
	},
	"two-lines": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Two"] = []string{"a", "b"}
		w.Header()["x-small"] = []string{"", " c\t"}
		w.Header()["X-None"] = nil
	},
	"two-in-one": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Two", "a\r\nX-Three: b\n")
	},
	"two-in-one-name": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X: a\r\nX-Two"] = []string{"b"}
		w.Header()["X Two"] = []string{"c"}
		w.Header()[""] = []string{"d"}
		w.Header()["X.Two!"] = []string{"e"}
	},
	"dated":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "Tue, 01 Dec 2026 00:00:00 GMT") },
	"undated": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil },
	"long": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "4")
		fmt.Fprint(w, "text")
	},
	"bad-long": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "-4")
		fmt.Fprint(w, "text")
	},
	"closing": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "text")
	},
	"keeping": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "keep-alive")
		fmt.Fprint(w, "text")
	},
	"in-chunks": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Transfer-Encoding", "chunked")
		fmt.Fprint(w, "text")
	},
	"copied": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("text")) },
	"content": func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "x.json", time.Unix(1e9, 0), strings.NewReader("{}"))
	},
	"unread": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "text") },
	"panic":  func(w http.ResponseWriter, _ *http.Request) { panic("a name") },
}

// bare says something where nothing may be said.
func bare(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "4")
		w.Header().Set("Etag", "x")
		w.WriteHeader(status)
		n, err := fmt.Fprint(w, "text")
		if n != 0 || err != http.ErrBodyNotAllowed {
			panic("it may be said")
		}
	}
}

// note says in the answer what became of a write before it.
func note(w http.ResponseWriter, n int, err error) { fmt.Fprint(w, n, err) }

// Goal: of what a handler says the caller hears what net/http would say. Method: as
// in TestACallerSeesNoDifference.
func TestAnAnswerIsAsNetHTTPSaysIt(t *testing.T) {
	s, other := start(t, desk()), alone(t)
	for name := range answers {
		t.Run(name, func(t *testing.T) {
			compare(t, s, other, one(name, asked("/v1/answers/"+name)))
		})
	}
}
