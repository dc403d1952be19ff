package plain

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkPlain and BenchmarkNetHTTP are one keep-alive connection for each
// goroutine, of a caller that costs next to nothing, and the same handler.
func BenchmarkPlain(b *testing.B) {
	benchmark(b, func(hs *http.Server, l net.Listener) (func() error, func() error) {
		s := New(hs, "/v1/")
		return func() error { return s.Serve(l) }, s.Close
	})
}

func BenchmarkNetHTTP(b *testing.B) {
	benchmark(b, func(hs *http.Server, l net.Listener) (func() error, func() error) {
		return func() error { return hs.Serve(l) }, hs.Close
	})
}

func benchmark(b *testing.B, serve func(*http.Server, net.Listener) (run, stop func() error)) {
	body := strings.Repeat("x", 300)
	for _, c := range []struct{ name, said string }{
		{"GET", "GET /v1/code?person=0123456789abcdef HTTP/1.1\r\nHost: code.example\r\nUser-Agent: phone\r\nAccept: application/json\r\n\r\n"},
		{"POST", "POST /v1/code HTTP/1.1\r\nHost: code.example\r\nContent-Type: application/json\r\nIdempotency-Key: 0123456789abcdef\r\nContent-Length: 300\r\n\r\n" + body},
	} {
		b.Run(c.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			run, stop := serve(&http.Server{Handler: http.HandlerFunc(reply)}, l)
			done := make(chan error)
			go func() { done <- run() }()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) { exchange(b, pb, l.Addr().String(), c.said) })
			b.StopTimer()
			_ = stop()
			<-done
		})
	}
}

// answered is what reply sends beside its header.
const answered = `{"colour":"green"}`

func reply(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header()["Content-Type"] = []string{"application/json"}
	_, _ = io.WriteString(w, answered)
}

// exchange asks and listens until there has been enough of it.
func exchange(b *testing.B, pb *testing.PB, addr, said string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer c.Close()
	request, buf := []byte(said), make([]byte, 4096)
	for pb.Next() {
		if _, err := c.Write(request); err != nil {
			b.Error(err)
			return
		}
		for n := 0; !strings.HasSuffix(string(buf[max(0, n-len(answered)):n]), answered); {
			more, err := c.Read(buf[n:])
			if err != nil {
				b.Error(err)
				return
			}
			n += more
		}
	}
}
