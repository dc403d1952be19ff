package plain

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

const (
	get  = "GET /v1/code?person=42 HTTP/1.1\r\nHost: code.example\r\nAccept: */*\r\n\r\n"
	post = "POST /v1/swabs HTTP/1.1\r\nHost: code.example\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"a\": 42}"
)

// head is a GET with some header lines beside its Host.
func head(lines ...string) string {
	return "GET /v1/code HTTP/1.1\r\nHost: code.example\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// asked is a GET of a target.
func asked(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: code.example\r\n\r\n" }

// sent is a POST with some header lines and a body.
func sent(body string, lines ...string) string {
	return "POST /v1/swabs HTTP/1.1\r\nHost: code.example\r\n" + strings.Join(append(lines, "", body), "\r\n")
}

// many is so many header lines, each of its own name.
func many(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-Line-%d: %d", i, i))
	}
	return lines
}

// kinds of bytes, and what they are under /v1/.
var kinds = []struct {
	name  string
	is    verdict
	bytes string
}{
	{"a GET with a query", plain, get},
	{"a POST with a body", plain, post},
	{"two at once", plain, post + get},
	{"a GET with a length of nothing", plain, head("Content-Length: 0")},
	{"a POST of nothing", plain, sent("", "Content-Length: 0")},
	{"a length with zeros before it", plain, sent("abc", "Content-Length: 0000003")},
	{"names in small letters", plain, "GET /v1/code HTTP/1.1\r\nhost: code.example\r\nx-one_two-3: a\r\n\r\n"},
	{"a name twice", plain, head("Accept: a", "Accept: b", "accept: c")},
	{"a name twice before another", plain, head("Accept: a", "Accept: b", "X: c", "Accept: d", "Y: e")},
	{"blanks about a value", plain, head("Accept: \t a b \t ")},
	{"a value of nothing", plain, head("Accept:", "X-Two: ")},
	{"keep-alive", plain, head("Connection: Keep-Alive")},
	{"as many names as there is room for", plain, head(many(maxFields)...)},
	{"one name more often than there is room for", plain, head(strings.Split(strings.Repeat("X: 1,", 40)+"X: 1", ",")...)},
	{"a host with a port", plain, "GET /v1/code HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"},
	{"the prefix alone", plain, asked("/v1/")},
	{"a query of nothing", plain, asked("/v1/code?")},
	{"a query with two question marks", plain, asked("/v1/code??")},
	{"a query with anything printed", plain, asked("/v1/code?a=%zz&b=\"<>{}|\\^`;//../")},
	{"dots in a name", plain, asked("/v1/a.b..c./d-e_f.")},
	{"a slash at the end", plain, asked("/v1/code/")},

	{"nothing", unfinished, ""},
	{"half a line", unfinished, "GET /v1/co"},
	{"half a head", unfinished, get[:len(get)-2]},
	{"half a body", unfinished, post[:len(post)-4]},
	{"a POST that may yet have a length", unfinished, "POST /v1/swabs HTTP/1.1\r\nHost: code.example\r\n"},
	{"a line that may yet be a plain one", unfinished, "rubbish"},

	{"HTTP/1.0", other, "GET /v1/code HTTP/1.0\r\nHost: code.example\r\n\r\n"},
	{"HTTP/2", other, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{"a version that is longer", other, "GET /v1/code HTTP/1.1 \r\nHost: code.example\r\n\r\n"},
	{"no version", other, "GET /v1/code\r\nHost: code.example\r\n\r\n"},
	{"HEAD", other, "HEAD /v1/code HTTP/1.1\r\nHost: code.example\r\n\r\n"},
	{"PUT", other, "PUT /v1/code HTTP/1.1\r\nHost: code.example\r\nContent-Length: 0\r\n\r\n"},
	{"get in small letters", other, "get /v1/code HTTP/1.1\r\nHost: code.example\r\n\r\n"},
	{"OPTIONS of all", other, "OPTIONS * HTTP/1.1\r\nHost: code.example\r\n\r\n"},
	{"an empty line before it", other, "\r\n" + get},
	{"no Host", other, "GET /v1/code HTTP/1.1\r\nAccept: */*\r\n\r\n"},
	{"no header", other, "GET /v1/code HTTP/1.1\r\n\r\n"},
	{"two Hosts", other, head("Host: code.example")},
	{"a Host of nothing", other, "GET /v1/code HTTP/1.1\r\nHost:\r\n\r\n"},
	{"a Host with a path", other, "GET /v1/code HTTP/1.1\r\nHost: a/b\r\n\r\n"},
	{"a Host of two words", other, "GET /v1/code HTTP/1.1\r\nHost: a b\r\n\r\n"},
	{"two lengths", other, sent("abc", "Content-Length: 3", "Content-Length: 3")},
	{"two lengths of nothing", other, sent("", "Content-Length: 0", "Content-Length: 0")},
	{"a length of eight digits", other, sent("abc", "Content-Length: 00000003")},
	{"a length with a sign", other, sent("abc", "Content-Length: +3")},
	{"a length of nothing at all", other, sent("abc", "Content-Length:")},
	{"a length of two words", other, sent("abc", "Content-Length: 3 3")},
	{"a GET with a body", other, head("Content-Length: 3") + "abc"},
	{"a POST without a length", other, sent("")},
	{"chunks", other, sent("3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked")},
	{"chunks and a length", other, sent("3\r\nabc\r\n0\r\n\r\n", "Content-Length: 13", "Transfer-Encoding: chunked")},
	{"Expect", other, sent("abc", "Content-Length: 3", "Expect: 100-continue")},
	{"Upgrade", other, head("Upgrade: websocket")},
	{"Trailer", other, head("Trailer: X")},
	{"TE", other, head("te: trailers")},
	{"Pragma, of which net/http makes another line", other, head("Pragma: no-cache")},
	{"close", other, head("Connection: close")},
	{"an upgrade of the connection", other, head("Connection: keep-alive, Upgrade")},
	{"a folded line", other, head("Accept: a", " b")},
	{"a folded line first", other, "GET /v1/code HTTP/1.1\r\n Host: code.example\r\n\r\n"},
	{"LF alone", other, "GET /v1/code HTTP/1.1\nHost: code.example\n\n"},
	{"LF alone first", other, "\n" + get},
	{"LF alone in the middle", other, head("Accept: a\nX: b")},
	{"CR alone", other, head("Accept: a\rX: b")},
	{"a NUL in a value", other, head("Accept: a\x00b")},
	{"a DEL in a value", other, head("Accept: a\x7f")},
	{"a value beyond ASCII", other, head("Accept: é")},
	{"a name beyond ASCII", other, head("É: e")},
	{"no name", other, head(": a")},
	{"a blank after a name", other, head("Accept : a")},
	{"a bracket in a name", other, head("A(b): a")},
	{"no colon", other, head("Accept")},
	{"one name too many", other, head(many(maxFields + 1)...)},
	{"another path", other, asked("/readyz")},
	{"a path that is shorter", other, asked("/v1")},
	{"a whole URL", other, asked("http://code.example/v1/code")},
	{"no path", other, asked("?a")},
	{"a path without a slash before it", other, asked("v1/code")},
	{"an escape", other, asked("/v1/a%2fb")},
	{"a blank in disguise", other, asked("/v1/a+b")},
	{"a letter beyond ASCII", other, asked("/v1/é")},
	{"a dot", other, asked("/v1/./code")},
	{"two dots", other, asked("/v1/a/../code")},
	{"a dot at the end", other, asked("/v1/.")},
	{"a file with a dot before it", other, asked("/v1/.code")},
	{"two slashes", other, asked("/v1/a//b")},
	{"two slashes at the end", other, asked("/v1//")},
	{"a semicolon", other, asked("/v1/a;b")},
	{"a fragment", other, asked("/v1/code#a")},
	{"a fragment in the query", other, asked("/v1/code?a#b")},
	{"a blank in the query", other, asked("/v1/code?a b")},
	{"a control character in the query", other, asked("/v1/code?a\x01b")},
	{"a letter beyond ASCII in the query", other, asked("/v1/code?a=é")},
	{"rubbish", other, "rubbish\r\n\r\n"},
	{"rubbish that has not ended", other, "rubbish\r\n"},
	{"half a line of rubbish in a head", other, "GET /v1/code HTTP/1.1\r\nrubbish\r\nHo"},
	{"half a head of another", other, "PUT /v1/code HTTP/1.1\r\n"},
	{"a handshake", other, "\x16\x03\x01\x00\n\x01"},
}

// Goal: what is plain, what is not, and what may yet be. Method: each is read under
// /v1/, and what is plain also by net/http.
func TestWhatIsPlain(t *testing.T) {
	var used message
	for _, c := range kinds {
		t.Run(c.name, func(t *testing.T) {
			if v := agree(t, &used, "/v1/", []byte(c.bytes)); v != c.is {
				t.Errorf("%q is %d, not %d", c.bytes, v, c.is)
			}
			for _, prefix := range prefixes {
				agree(t, &used, prefix, []byte(c.bytes))
			}
		})
	}
}

// Goal: a message may be used again. Method: one reads each of the kinds after each
// other, and has what a fresh one would.
func TestAMessageKeepsNothing(t *testing.T) {
	for _, a := range kinds {
		for _, b := range kinds {
			var used message
			var r http.Request
			used.parse([]byte(a.bytes), "/v1/", &r)
			agree(t, &used, "/v1/", []byte(b.bytes))
		}
	}
}

// Goal: whoever has the body whole need not read it. Method: the body of a POST and
// one of net/http, and a body of which a part was read.
func TestWhole(t *testing.T) {
	var m message
	var r http.Request
	if v, _ := m.parse([]byte(post), "/v1/", &r); v != plain {
		t.Fatal(v)
	}
	if n, err := r.Body.Read(nil); n != 0 || err != nil {
		t.Errorf("reading nothing: %d, %v", n, err)
	}
	if _, err := io.ReadFull(r.Body, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if all, ok := Whole(r.Body); !ok || string(all) != `{"a": 42}` {
		t.Errorf("%q, %t", all, ok)
	}
	if rest, err := io.ReadAll(r.Body); err != nil || string(rest) != `: 42}` {
		t.Errorf("%q, %v", rest, err)
	}
	if err := r.Body.Close(); err != nil {
		t.Error(err)
	}
	if all, ok := Whole(http.NoBody); ok || all != nil {
		t.Errorf("%q of no body", all)
	}
}
