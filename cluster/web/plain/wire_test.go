package plain

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// echo answers with all that a handler sees of a request.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintln(w, r.Method, r.RequestURI, r.URL, r.Proto, r.Host, r.ContentLength, r.TransferEncoding, r.Close, r.Pattern, r.PathValue("rest"))
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		fmt.Fprintf(w, "%s: %q\n", name, r.Header[name])
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	_, ours := r.Context().Value(http.ServerContextKey).(*http.Server)
	fmt.Fprintln(w, host, local.Network(), ours, r.Context().Value(based{}), r.Context().Err(), r.TLS, r.Trailer, err)
	fmt.Fprintln(w, r.Form, r.PostForm, r.PathValue("own"))
	r.SetPathValue("own", "left") // or is it anybody's?
	_ = r.ParseForm()
	_, _ = w.Write(body)
}

// based is the key of what BaseContext gives.
type based struct{}

// desk is a server of all that is asked here.
func desk() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/echo/{rest...}", echo)
	mux.HandleFunc("/readyz", echo)
	for name, h := range answers {
		mux.HandleFunc("GET /v1/answers/"+name, h)
	}
	return &http.Server{
		Handler:        mux,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), based{}, "base")
		},
	}
}

// alone is net/http's own server at the same desk.
func alone(t *testing.T) *counted {
	hs, l := desk(), listen(t)
	done := make(chan error)
	go func() { done <- hs.Serve(l) }()
	t.Cleanup(func() {
		_ = hs.Close()
		<-done
	})
	return l
}

// probe is asked last, to see whether the connection is kept.
const probe = "GET /v1/echo/probe HTTP/1.1\r\nHost: code.example\r\n\r\n"

// script is what a caller says, and to which methods it hears answers.
type script struct {
	name    string
	pieces  []string // each is said when the one before has been read
	answers []string // methods
}

// told is what a caller hears who says all that, and then the probe.
func told(t *testing.T, l *counted, s script) string {
	t.Helper()
	c := call(t, l)
	defer c.Close()
	var heard []string
	read, closed := l.read.Load(), l.closed.Load()
	for i, piece := range s.pieces {
		if i > 0 {
			until(t, "it was read", func() bool { return l.read.Load() >= read || l.closed.Load() > closed })
		}
		if _, err := io.WriteString(c, piece); err != nil {
			break // it was refused before its end
		}
		read += int64(len(piece))
	}
	for _, method := range append(slices.Clone(s.answers), "") {
		if method == "" {
			_, _ = io.WriteString(c, probe)
		}
		answer, err := c.hear(method)
		if err != nil {
			return strings.Join(append(heard, "the end"), "\n--\n")
		}
		heard = append(heard, answer)
	}
	return strings.Join(heard, "\n--\n")
}

// bytewise is each byte by itself.
func bytewise(s string) []string { return strings.Split(s, "") }

func one(name, said string) script {
	method, _, _ := strings.Cut(said, " ")
	return script{name, []string{said}, []string{method}}
}

const large = 100 << 10

// toEcho replaces the paths of a request.
var toEcho = strings.NewReplacer("/v1/code", "/v1/echo/code", "/v1/swabs", "/v1/echo/swabs").Replace

var scripts = []script{
	one("GET", toEcho(get)),
	one("POST", toEcho(post)),
	one("POST of nothing", toEcho(sent("", "Content-Length: 0"))),
	{"byte by byte", bytewise(toEcho(post + get)), []string{"POST", "GET"}},
	{"many at once", []string{toEcho(get + post + post + get + get)}, []string{"GET", "POST", "POST", "GET", "GET"}},
	{"more at once than there is room for", []string{strings.Repeat(toEcho(post), 100)}, slices.Repeat([]string{"POST"}, 100)},
	{"head and body apart", []string{toEcho(post[:len(post)-9]), post[len(post)-9:]}, []string{"POST"}},
	{"cut in the end of a head", []string{toEcho(get[:len(get)-1]), get[len(get)-1:]}, []string{"GET"}},
	{"one and a half, and the rest", []string{toEcho(get) + "GET /v1/ec", "ho/more HTTP/1.1\r\nHost: a\r\n\r\n"}, []string{"GET", "GET"}},
	one("a body that fits", toEcho(sent(strings.Repeat("x", 3000), "Content-Length: 3000"))),
	one("a body that does not", toEcho(sent(strings.Repeat("x", room), fmt.Sprint("Content-Length: ", room)))),
	one("a large body", toEcho(sent(strings.Repeat("x", large), fmt.Sprint("Content-Length: ", large)))),
	{"a large body apart", []string{toEcho(sent("", fmt.Sprint("Content-Length: ", large))), strings.Repeat("x", large)}, []string{"POST"}},
	one("a head as large as there is room for", padded(room)),
	one("a head that is one byte larger", padded(room+1)),
	one("a large head", padded(6<<10)),
	one("a head that is too large", padded(40<<10)),
	one("a large query", asked("/v1/echo/code?"+strings.Repeat("q", 6<<10))),
	one("chunks", toEcho(sent("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))),
	one("HTTP/1.0", "GET /v1/echo/code HTTP/1.0\r\n\r\n"),
	one("HTTP/1.0 that stays", "GET /v1/echo/code HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
	one("HEAD", "HEAD /v1/echo/code HTTP/1.1\r\nHost: a\r\n\r\n"),
	one("OPTIONS", "OPTIONS /v1/echo/code HTTP/1.1\r\nHost: a\r\n\r\n"),
	one("OPTIONS of all", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
	one("PUT", "PUT /v1/echo/code HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
	one("DELETE", "DELETE /v1/echo/code HTTP/1.1\r\nHost: a\r\n\r\n"),
	one("a GET with a body", toEcho(head("Content-Length: 3")+"abc")),
	one("a POST without a length", toEcho(sent(""))),
	one("close", toEcho(head("Connection: close"))),
	one("keep-alive", toEcho(head("Connection: keep-alive"))),
	one("a folded line", toEcho(head("Accept: a", " b"))),
	one("LF alone", "GET /v1/echo/code HTTP/1.1\nHost: a\n\n"),
	one("no Host", "GET /v1/echo/code HTTP/1.1\r\n\r\n"),
	one("two Hosts", toEcho(head("Host: b"))),
	one("a bad length", toEcho(sent("abc", "Content-Length: x"))),
	one("two lengths", toEcho(sent("abc", "Content-Length: 3", "Content-Length: 4"))),
	one("an encoding that nobody knows", toEcho(sent("abc", "Transfer-Encoding: zip"))),
	one("an expectation that nobody knows", toEcho(head("Expect: luck"))),
	one("Pragma", toEcho(head("Pragma: no-cache"))),
	one("another version", "GET /v1/echo/code HTTP/2.0\r\nHost: a\r\n\r\n"),
	one("rubbish", "rubbish\r\n\r\n"),
	one("rubbish that has not ended", "rubbish\r\n"),
	one("rubbish in a head that has not ended", "GET /v1/echo/code HTTP/1.1\r\nrubbish\r\n"),
	one("another path", asked("/readyz")),
	one("no such path", asked("/v1/nowhere")),
	one("no such path elsewhere", asked("/nowhere")),
	one("another method than the path has", strings.Replace(sent("", "Content-Length: 0"), "/v1/swabs", "/v1/answers/text", 1)),
	one("two slashes", asked("/v1//echo/code?a=b")),
	one("dots", asked("/v1/echo/a/../b")),
	one("an escape", asked("/v1/echo/a%2Fb%20c?d=%20")),
	one("a query of nothing", asked("/v1/echo/code?")),
	{"100-continue", []string{toEcho(sent("", "Content-Length: 3", "Expect: 100-continue")), "abc"}, []string{"POST", "POST"}},
	{"an empty line after a POST", []string{toEcho(post) + "\r\n" + toEcho(get)}, []string{"POST", "GET"}},
	{"an empty line after a POST, by itself", []string{toEcho(post), "\r\n", toEcho(get)}, []string{"POST", "GET"}},
	{"an empty line after a GET", []string{toEcho(get) + "\r\n" + toEcho(get)}, []string{"GET", "GET"}},
	{"plain, one that is not, plain", []string{toEcho(get) + asked("/v1/echo/a%20b") + toEcho(post)}, []string{"GET", "GET", "POST"}},
	{"plain, one that is not, plain, each by itself", []string{toEcho(get), asked("/v1/echo/a%20b"), toEcho(post)}, []string{"GET", "GET", "POST"}},
	{"plain, and rubbish", []string{toEcho(post) + "rubbish\r\n\r\n"}, []string{"POST", "GET"}},
}

// Goal: a handler whose body has no room here begins when the head has come, as in
// net/http. Method: the body is sent once it has begun.
func TestALargeBodyIsNotWaitedFor(t *testing.T) {
	o := newOffice()
	s := start(t, &http.Server{Handler: o})
	p := call(t, s.lis)
	body := strings.Repeat("x", room)
	p.say(sent("", fmt.Sprint("Content-Length: ", len(body))))
	<-o.began
	close(o.free)
	p.say(body)
	p.hears("done")
}

// padded is a GET of so many bytes.
func padded(size int) string {
	rest := size - len(toEcho(head("X: ")))
	return toEcho(head("X: " + strings.Repeat("x", rest)))
}

// Goal: whoever asks sees no difference to net/http. Method: scripts of what is sent
// are played to both, with the same handler; all that is answered is compared, and
// whether the connection is kept.
func TestACallerSeesNoDifference(t *testing.T) {
	s, other := start(t, desk()), alone(t)
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			if want := compare(t, s, other, sc); strings.Count(want, "\n--\n") < len(sc.answers) {
				t.Errorf("a script with too few answers:\n%s", want)
			}
		})
	}
}

// compare plays a script to both, and returns what net/http answers.
func compare(t *testing.T, s *served, other *counted, sc script) string {
	t.Helper()
	want, got := told(t, other, sc), told(t, s.lis, sc)
	if got != want {
		t.Errorf("%q is answered\n%s\n\nand by net/http\n%s", clipped(sc.pieces), clipped([]string{got}), clipped([]string{want}))
	}
	return want
}

func clipped(pieces []string) string {
	all := strings.Join(pieces, "")
	return all[:min(len(all), 2000)]
}
