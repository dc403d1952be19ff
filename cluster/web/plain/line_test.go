package plain

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must come, before it fails.
const patience = time.Minute

// TestMain fails if any goroutine of the package is left behind.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(patience); code == 0; <-time.After(time.Millisecond) {
		all := make([]byte, 1<<20)
		if all = all[:runtime.Stack(all, true)]; !bytes.Contains(all, []byte("plain.(*")) {
			break
		}
		if time.Now().After(end) {
			fmt.Printf("left behind:\n%s", all)
			code = 1
		}
	}
	os.Exit(code)
}

// until waits for a fact.
func until(t *testing.T, what string, fact func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !fact(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// counted is a listener that counts what is read of its connections, and the
// connections that are closed.
type counted struct {
	net.Listener
	read, closed atomic.Int64
}

type countedConn struct {
	*net.TCPConn
	by   *counted
	gone atomic.Bool
}

func listen(t *testing.T) *counted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &counted{Listener: l}
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{TCPConn: c.(*net.TCPConn), by: l}, nil
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.by.read.Add(int64(n))
	return n, err
}

func (c *countedConn) Close() error {
	if !c.gone.Swap(true) {
		c.by.closed.Add(1)
	}
	return c.TCPConn.Close()
}

func (c *countedConn) SyscallConn() (syscall.RawConn, error) { return c.TCPConn.SyscallConn() }

// served is a server at work.
type served struct {
	*Server
	lis  *counted
	done chan error // what Serve returned
}

// start serves /v1/ until the test ends, and then looks that nothing is left.
func start(t *testing.T, hs *http.Server) *served {
	t.Helper()
	if hs.ErrorLog == nil {
		hs.ErrorLog = log.New(io.Discard, "", 0)
	}
	s := &served{New(hs, "/v1/"), listen(t), make(chan error, 1)}
	go func() { s.done <- s.Serve(s.lis) }()
	t.Cleanup(func() {
		_ = s.Close()
		s.ended(t)
	})
	return s
}

// ended waits until the server has left nothing behind.
func (s *served) ended(t *testing.T) {
	t.Helper()
	err := <-s.done
	s.done <- err
	if !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
	<-s.empty
}

// size is how many connections are open.
func (s *Server) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// only is the one connection that is open.
func (s *Server) only(t *testing.T) (c *conn) {
	t.Helper()
	until(t, "one connection", func() bool { return s.size() == 1 })
	s.mu.Lock()
	defer s.mu.Unlock()
	for c = range s.open {
	}
	return c
}

// caller is one who asks.
type caller struct {
	t *testing.T
	*net.TCPConn
	in *bufio.Reader
}

func call(t *testing.T, l net.Listener) *caller {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &caller{t, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *caller) say(what string) {
	c.t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		c.t.Fatal(err)
	}
}

// hear is the next answer to a method: its first line, its header lines in order of
// the alphabet, and its body. What is in chunks is told as if it were not.
func (c *caller) hear(method string) (string, error) {
	var lines []string
	length, chunks := -1, false
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "Date":
			if when, err := time.Parse(http.TimeFormat, value); err != nil || time.Since(when).Abs() < patience {
				line = name
			}
		case "Content-Length":
			length, _ = strconv.Atoi(value)
		case "Transfer-Encoding":
			chunks = true
			continue
		}
		lines = append(lines, line)
	}
	body, err := c.body(method, lines[0], length, chunks)
	if chunks {
		lines = append(lines, fmt.Sprint("Content-Length: ", len(body)))
	}
	slices.Sort(lines[1:])
	return strings.Join(append(lines, "", string(body)), "\n"), err
}

func (c *caller) body(method, status string, length int, chunks bool) (body []byte, err error) {
	code := strings.Fields(status)[1]
	switch {
	case method == http.MethodHead || code[0] == '1' || code == "204" || code == "304":
	case chunks:
		if body, err = io.ReadAll(httputil.NewChunkedReader(c.in)); err == nil {
			_, err = c.in.ReadString('\n')
		}
	case length >= 0:
		body = make([]byte, length)
		_, err = io.ReadFull(c.in, body)
	default:
		body, err = io.ReadAll(c.in)
	}
	return body, err
}

// hears fails unless the next answer, to a GET, ends like this.
func (c *caller) hears(end string) string {
	c.t.Helper()
	got, err := c.hear(http.MethodGet)
	if err != nil || !strings.HasSuffix(got, end) {
		c.t.Fatalf("%q, %v, not %q", got, err, end)
	}
	return got
}

// cut fails unless the connection ends now, without another byte.
func (c *caller) cut() {
	c.t.Helper()
	if _, err := c.in.ReadByte(); err == nil || errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
		c.t.Fatalf("not cut: %v", err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
