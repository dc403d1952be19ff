//go:build linux

package client

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The server of the benchmark is a process of its own, so that the processor
// time of this one is the client's alone.
func TestMain(m *testing.M) {
	if os.Getenv("CLIENT_BENCH_SERVER") == "" {
		os.Exit(m.Run())
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(ln.Addr())
	go func() { // the parent holds the other end; when it goes, so do we
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	body := bytes.Repeat([]byte("x"), 220)
	panic(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(body)
	})))
}

func serverProcess(b *testing.B) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CLIENT_BENCH_SERVER=1")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(string(line[:n]))
}

func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const inFlight = 32

var benchBody = bytes.Repeat([]byte("b"), 260)

// BenchmarkClients reports what one request costs the client, system calls
// included, in three ways of sending it.
func BenchmarkClients(b *testing.B) {
	addr := serverProcess(b)
	for _, c := range []struct {
		name string
		run  func(b *testing.B, addr string)
	}{{"loop", runLoop}, {"goroutines", runGoroutines}, {"nethttp", runNetHTTP}} {
		b.Run(c.name, func(b *testing.B) {
			before := spent()
			c.run(b, addr)
			b.ReportMetric(float64((spent()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/req")
		})
	}
}

func runLoop(b *testing.B, addr string) {
	l, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	g, err := l.Group([]string{"http://" + addr})
	if err != nil {
		b.Fatal(err)
	}
	key := []byte("0123456789abcdef")
	started, ended := 0, 0
	next := func(c *Call) { started++; l.Start(g, c) }
	for range min(inFlight, b.N) {
		next(&Call{Post: true, Path: []byte("/v1/registrations"), Key: key, Type: "application/json", Body: benchBody})
	}
	for ended < b.N {
		if err := l.Poll(time.Second, func(c *Call) {
			if c.Err != nil {
				b.Fatal(c.Err)
			}
			ended++
			if started < b.N {
				next(c)
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// runGoroutines is the same wire format over net.Conn, one goroutine each.
func runGoroutines(b *testing.B, addr string) {
	var wg sync.WaitGroup
	for w := range inFlight {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			call := &Call{Post: true, Path: []byte("/v1/registrations"), Key: []byte("0123456789abcdef"), Type: "application/json", Body: benchBody}
			var out []byte
			in := make([]byte, 4096)
			for range share(b.N, w) {
				out = appendRequest(out[:0], addr, call)
				if _, err := conn.Write(out); err != nil {
					b.Error(err)
					return
				}
				var a answer
				for n := 0; ; {
					k, err := conn.Read(in[n:])
					if err != nil {
						b.Error(err)
						return
					}
					if n += k; parse(in[:n], false, &a) == whole {
						break
					}
				}
			}
		})
	}
	wg.Wait()
}

func runNetHTTP(b *testing.B, addr string) {
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: inFlight, DisableCompression: true}}
	defer hc.CloseIdleConnections()
	var wg sync.WaitGroup
	for w := range inFlight {
		wg.Go(func() {
			for range share(b.N, w) {
				req, _ := http.NewRequest("POST", "http://"+addr+"/v1/registrations", bytes.NewReader(benchBody))
				req.Header.Set("Idempotency-Key", "0123456789abcdef")
				req.Header.Set("Content-Type", "application/json")
				res, err := hc.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
	wg.Wait()
}

func share(n, worker int) int {
	k := n / inFlight
	if worker < n%inFlight {
		k++
	}
	return k
}
