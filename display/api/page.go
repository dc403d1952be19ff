package api

import (
	"embed"
	"net/http"
	"path"
	"strings"

	"qianma/cluster/problem"
)

// page is the one plain page of a phone. It loads nothing from anywhere else.
//
//go:embed page
var page embed.FS

// policy lets the page run its own script, show its own pictures, and talk to
// the process it came from; nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var pageTypes = map[string]string{".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

// showPage is GET /.
func (a *API) showPage(w http.ResponseWriter, _ *http.Request) error {
	return servePage(w, "index.html")
}

// showPageFile is GET /page/{file}.
func (a *API) showPageFile(w http.ResponseWriter, r *http.Request) error {
	return servePage(w, r.PathValue("file"))
}

func servePage(w http.ResponseWriter, name string) error {
	raw, err := page.ReadFile("page/" + name)
	if err != nil || strings.ContainsAny(name, "/\\") {
		return problem.New(problem.NotFound, "there is nothing at this path", "see / for the page")
	}
	h := w.Header()
	h.Set("Content-Type", pageTypes[path.Ext(name)])
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "max-age=300")
	_, err = w.Write(raw)
	return err
}
