package client

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		in    string
		ended bool
		want  progress
		body  string
		code  int
		last  bool
		retry time.Duration
	}{
		"length":            {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", false, whole, "hi", 200, false, -1},
		"lower case":        {"HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nhi", false, whole, "hi", 200, false, -1},
		"no reason":         {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, whole, "", 200, false, -1},
		"refused":           {"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n", false, whole, "", 429, false, 3 * time.Second},
		"head in halves":    {"HTTP/1.1 200 OK\r\nContent-Le", false, more, "", 0, false, 0},
		"body in halves":    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", false, more, "", 200, false, -1},
		"cut off":           {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", true, bad, "", 200, false, -1},
		"too much":          {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhi", false, bad, "h", 200, false, -1},
		"chunked":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x=y\r\n yo\r\n0\r\n\r\n", false, whole, "hi yo", 200, false, -1},
		"chunked, trailer":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n", false, whole, "a", 200, false, -1},
		"chunked, not all":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", false, more, "", 200, false, -1},
		"chunked, nonsense": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n", false, bad, "", 200, false, -1},
		"to the end":        {"HTTP/1.1 200 OK\r\n\r\nhi", true, whole, "hi", 200, true, -1},
		"to the end, open":  {"HTTP/1.1 200 OK\r\n\r\nhi", false, more, "hi", 200, true, -1},
		"closing":           {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", false, whole, "hi", 200, true, -1},
		"interim":           {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, whole, "", 200, false, -1},
		"no content":        {"HTTP/1.1 204 No Content\r\n\r\n", false, whole, "", 204, false, -1},
		"bare newlines":     {"HTTP/1.0 200 000\n\n0\r\n\r\n", true, bad, "", 0, false, 0},
		"not HTTP":          {"SSH-2.0-OpenSSH_9.2\r\n\r\n", false, bad, "", 0, false, 0},
		"absurd length":     {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", false, bad, "", 0, false, 0},
		"negative length":   {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", false, bad, "", 0, false, 0},
	} {
		var a answer
		got := parse([]byte(c.in), c.ended, &a)
		if got != c.want {
			t.Errorf("%s: progress %v, want %v", name, got, c.want)
		}
		if got == whole && (string(a.body) != c.body || a.status != c.code || a.last != c.last || a.retryAfter != c.retry) {
			t.Errorf("%s: got %d %q last=%v retry=%v", name, a.status, a.body, a.last, a.retryAfter)
		}
	}
}

// Goal: what net/http accepts as one whole answer, parse reads the same, and
// nothing makes it crash or read past its input.
func FuzzParse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 503 X\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var a answer
		got := parse(bytes.Clone(p), true, &a)
		if got != whole {
			return
		}
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(p)), nil)
		if err != nil {
			return // we are laxer where it cannot matter
		}
		defer res.Body.Close()
		if res.StatusCode < 200 {
			return
		}
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode == a.status && !bytes.Equal(body, a.body) {
			t.Errorf("body %q, net/http reads %q", a.body, body)
		}
	})
}

func TestRequestIsWhatNetHTTPReads(t *testing.T) {
	raw := appendRequest(nil, "h:1", &Call{Post: true, Path: []byte("/a?b=c"), Key: []byte("k-1"), Type: "application/json", Body: []byte("{}")})
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(req.Body)
	if req.Method != "POST" || req.Host != "h:1" || req.RequestURI != "/a?b=c" || req.Header.Get("Idempotency-Key") != "k-1" ||
		req.Header.Get("Content-Type") != "application/json" || string(body) != "{}" {
		t.Errorf("read back %+v %q", req, body)
	}
	get := string(appendRequest(nil, "h:1", &Call{Path: []byte("/x")}))
	if get != "GET /x HTTP/1.1\r\nHost: h:1\r\n\r\n" || strings.Contains(get, "Content") {
		t.Errorf("GET is %q", get)
	}
}
