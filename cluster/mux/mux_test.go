package mux

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/cluster/leaktest"
	"qianma/cluster/pki"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// pair is a mux and a dialer that finds it under the name "b".
func pair(t *testing.T, secure bool) (*Mux, *Dialer) {
	t.Helper()
	var server, client *tls.Config
	if secure {
		server, client = configs(t)
	}
	m, err := Listen("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, &Dialer{TLS: client, Resolve: func(string) (string, error) { return m.Addr().String(), nil }}
}

func configs(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	a, err := pki.NewAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	fb, errB := a.Issue(dir, "b")
	fa, errA := a.Issue(dir, "a")
	server, errS := pki.Server(fb)
	client, errC := pki.Client(fa)
	if err := errors.Join(errA, errB, errS, errC); err != nil {
		t.Fatal(err)
	}
	return server, client
}

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func dialRPC(t *testing.T, d *Dialer) net.Conn {
	t.Helper()
	c, err := d.RPC(patience(t), "b")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dialGroup(t *testing.T, d *Dialer, id string) net.Conn {
	t.Helper()
	c, err := d.Group(patience(t), "b", id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// hungUp fails the test unless the other side closes c without a word.
func hungUp(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if n != 0 || err == nil || (errors.As(err, &timeout) && timeout.Timeout()) {
		t.Fatalf("read %d bytes, %v; want to be hung up on", n, err)
	}
}

func TestCallersReachWhatTheyAskFor(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("secure=", secure), func(t *testing.T) {
			m, d := pair(t, secure)
			g1, g2 := m.Group("nucleic/0"), m.Group("nucleic/1")

			c := dialRPC(t, d)
			write(t, c, "PRI * HTTP/2.0")
			s := accept(t, m.RPC())
			read(t, s, "PRI * HTTP/2.0") // the byte that was looked at is still there
			write(t, s, "hello")
			read(t, c, "hello")

			c2 := dialGroup(t, d, "nucleic/1")
			write(t, c2, "\x00raft") // the group's own first byte is its own business
			read(t, accept(t, g2), "\x00raft")
			write(t, dialGroup(t, d, "nucleic/0"), "vote")
			read(t, accept(t, g1), "vote")

			cs, ok := ConnectionState(s)
			if ok != secure || (secure && pki.PeerName(cs) != "a") {
				t.Fatalf("peer of the connection: %q, %v", pki.PeerName(cs), ok)
			}
		})
	}
}

func TestWhatIsNotHereIsHungUpOn(t *testing.T) {
	m, d := pair(t, true)
	hungUp(t, dialGroup(t, d, "nobody"))
	hungUp(t, dialGroup(t, d, ""))
	c := dialRPC(t, d)
	write(t, c, "GET / HTTP/1.1\r\n")
	hungUp(t, c)

	g := m.Group("short-lived")
	if m.Group("short-lived") != g {
		t.Fatal("the same group has two listeners")
	}
	g.Close()
	hungUp(t, dialGroup(t, d, "short-lived"))
	if again := m.Group("short-lived"); again == g {
		t.Fatal("a closed listener came back")
	}
}

func TestGroupIDsAreBounded(t *testing.T) {
	m, d := pair(t, false)
	long := strings.Repeat("x", MaxGroupID+1)
	if _, err := d.Group(patience(t), "b", long); err == nil {
		t.Fatal("an id over the bound was dialled")
	}
	if _, err := m.Group(long).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("listener of an id over the bound: %v", err)
	}
	exact := long[:MaxGroupID]
	g := m.Group(exact)
	write(t, dialGroup(t, d, exact), "x")
	read(t, accept(t, g), "x")
}

// A caller that says nothing, in TLS or after it, is hung up on in a bounded time.
func TestSilentCallersAreHungUpOn(t *testing.T) {
	server, client := configs(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := serve(l, server, 50*time.Millisecond)
	t.Cleanup(func() { m.Close() })
	raw, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	hungUp(t, raw)
	d := &Dialer{TLS: client, Resolve: func(string) (string, error) { return m.Addr().String(), nil }}
	c, err := d.RPC(patience(t), "b")
	if err != nil {
		return // hung up on before the dialer was done: as good
	}
	defer c.Close()
	hungUp(t, c)
}

// The time to open is not the time to live: a connection that was handed over
// may rest for longer.
func TestHandedOverConnectionsMayRest(t *testing.T) {
	const hello = 100 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := serve(l, nil, hello)
	t.Cleanup(func() { m.Close() })
	g := m.Group("g")
	d := &Dialer{Resolve: func(string) (string, error) { return m.Addr().String(), nil }}
	accepted := make(chan net.Conn, 1)
	go func() {
		if s, err := g.Accept(); err == nil {
			accepted <- s
		}
	}()
	var c, s net.Conn
	for s == nil { // a busy machine may not let this test say in time what it wants
		c = dialGroup(t, d, "g")
		hungUp := make(chan struct{})
		go func() {
			defer close(hungUp)
			_, _ = c.Read(make([]byte, 1))
		}()
		select {
		case s = <-accepted:
		case <-hungUp:
		}
	}
	defer s.Close()
	// Longer than the bound: a fault shows here, a slow machine changes nothing.
	<-time.After(2 * hello)
	write(t, c, "after a rest")
	read(t, s, "after a rest")
}

// Silent callers fill every slot, and a caller with something to say still
// gets through once they have been hung up on.
func TestSilentCallersDoNotKeepOthersOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := serve(l, nil, time.Second)
	t.Cleanup(func() { m.Close() })
	for range maxHandshakes + 10 {
		c, err := net.Dial("tcp", m.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write(t, c, "PRI")
	read(t, accept(t, m.RPC()), "PRI")
}

func TestAnotherProcessAtTheAddressIsRefused(t *testing.T) {
	_, d := pair(t, true)
	_, err := d.RPC(patience(t), "c") // resolves to b
	if err == nil || !strings.Contains(err.Error(), `asked for "c" but reached "b"`) {
		t.Fatal(err)
	}
}

func TestDialFrom(t *testing.T) {
	m, d := pair(t, false)
	d.From = "127.0.0.77"
	write(t, dialRPC(t, d), "P")
	s := accept(t, m.RPC())
	if host, _, _ := net.SplitHostPort(s.RemoteAddr().String()); host != d.From {
		t.Fatalf("dialled from %s", host)
	}
	d.From = "not an address"
	if _, err := d.RPC(patience(t), "b"); err == nil {
		t.Fatal("dialled from nowhere")
	}
}

func TestDialNamesWhatFailed(t *testing.T) {
	d := &Dialer{Resolve: func(string) (string, error) { return "", errors.New("no such process") }}
	if _, err := d.RPC(patience(t), "x-1"); err == nil || !strings.Contains(err.Error(), "x-1") {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, d = pair(t, true)
	if _, err := d.RPC(ctx, "b"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A listener nobody accepts from holds a bounded number of connections.
func TestBacklogIsBounded(t *testing.T) {
	m, d := pair(t, false)
	g := m.Group("slow").(*door)
	var conns []net.Conn
	for range backlog {
		conns = append(conns, dialGroup(t, d, "slow"))
	}
	until(t, func() bool { return len(g.conns) == backlog })
	hungUp(t, dialGroup(t, d, "slow"))
	g.Close()
	for _, c := range conns {
		hungUp(t, c)
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		<-time.After(time.Millisecond)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := serve(inner, nil, time.Hour) // nobody is hung up on for being slow
	d := &Dialer{Resolve: func(string) (string, error) { return inner.Addr().String(), nil }}
	g := m.Group("g")
	var wg sync.WaitGroup
	for _, l := range []net.Listener{m.RPC(), g} {
		wg.Go(func() {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v", err)
			}
		})
	}
	silent := dialRPC(t, d) // has not opened yet
	until(t, func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.young) == 1 })
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close waits for a caller that says nothing")
	}
	wg.Wait()
	hungUp(t, silent)
	if err := m.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	if _, err := m.Group("late").Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("group of a closed mux: %v", err)
	}
	if _, err := d.RPC(patience(t), "b"); err == nil {
		t.Fatal("the port is still open")
	}
}

// Connections that were handed over outlive the mux.
func TestCloseLeavesAcceptedConnections(t *testing.T) {
	m, d := pair(t, true)
	c := dialRPC(t, d)
	write(t, c, "P")
	s := accept(t, m.RPC())
	m.Close()
	write(t, c, "still here")
	read(t, s, "Pstill here")
}

func FuzzSniff(f *testing.F) {
	for _, s := range []string{"", "P", "PRI * HTTP/2.0", "\x01", "\x01\x00", "\x01\x01gx", "\x01\xffshort", "GET"} {
		f.Add([]byte(s))
	}
	m := &Mux{groups: map[string]*door{}}
	m.rpc = &door{}
	m.groups["g"] = &door{}
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		go func() {
			_, _ = b.Write(in)
			b.Close()
		}()
		defer a.Close()
		d, c := m.sniff(a)
		rest, _ := io.ReadAll(c)
		switch d {
		case m.rpc:
			if string(rest) != string(in) || in[0] != 'P' {
				t.Fatalf("RPC reads %q of %q", rest, in)
			}
		case m.groups["g"]:
			if want, ok := strings.CutPrefix(string(in), "\x01\x01g"); !ok || string(rest) != want {
				t.Fatalf("the group reads %q of %q", rest, in)
			}
		case nil:
		}
	})
}
