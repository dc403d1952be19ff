package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"qianma/cluster/leaktest"
	"qianma/cluster/mux"
	"qianma/cluster/pki"
	"qianma/cluster/problem"
	"qianma/cluster/topology/topologytest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// fixture is a server "b" and a pool that calls it as "a", over mutual TLS.
type fixture struct {
	*Server
	*Pool
	mux    *mux.Mux
	dialer *mux.Dialer
	serve  func(addr string) (*Server, *mux.Mux)
	addr   atomic.Pointer[string] // where "b" is dialled
}

func newFixture(tb testing.TB, sc ServerConfig, pc PoolConfig) *fixture {
	tb.Helper()
	dir := tb.TempDir()
	ca, err := pki.NewAuthority(dir)
	must(tb, err)
	fb, err := ca.Issue(dir, "b")
	must(tb, err)
	fa, err := ca.Issue(dir, "a")
	must(tb, err)
	server, err := pki.Server(fb)
	must(tb, err)
	client, err := pki.Client(fa)
	must(tb, err)
	f := &fixture{}
	f.serve = func(addr string) (*Server, *mux.Mux) {
		m, err := mux.Listen(addr, server)
		must(tb, err)
		s := NewServer(sc)
		s.Handle("echo", func(_ context.Context, req []byte) ([]byte, error) { return req, nil })
		done := make(chan error, 1)
		go func() { done <- s.Serve(m.RPC()) }()
		tb.Cleanup(func() {
			s.Close()
			m.Close()
			if err := <-done; err != nil {
				tb.Errorf("Serve: %v", err)
			}
		})
		return s, m
	}
	f.Server, f.mux = f.serve(topologytest.Addrs(tb, 1)[0]) // one that it can come back to
	f.at(f.mux.Addr().String())
	f.dialer = &mux.Dialer{TLS: client, Resolve: func(string) (string, error) { return *f.addr.Load(), nil }}
	f.Pool = NewPool(f.dialer, pc)
	tb.Cleanup(func() { f.Pool.Close() })
	return f
}

func (f *fixture) at(addr string) { f.addr.Store(&addr) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func patience(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

func code(err error) problem.Code {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func TestCall(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	var who string
	f.Handle("who", func(ctx context.Context, req []byte) ([]byte, error) {
		who = Peer(ctx)
		return nil, nil
	})
	for _, n := range []int{0, 1, 1000, 1 << 20, MaxMessage} {
		req := bytes.Repeat([]byte{'x'}, n)
		got, err := f.Call(patience(t), "b", "echo", req)
		if err != nil || !bytes.Equal(got, req) {
			t.Fatalf("%d bytes: %d came back, %v", n, len(got), err)
		}
	}
	if got, err := f.Call(patience(t), "b", "who", nil); err != nil || len(got) != 0 || who != "a" {
		t.Fatalf("who: %q %v, peer %q", got, err, who)
	}
}

func TestProblemsCross(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	sent := &problem.Problem{Code: "tube_full", Message: "the tube holds 10 people", Fix: "open another", Op: "x.Y",
		RetryAfter: 1500 * time.Millisecond, Cause: errors.New("secret")}
	f.Handle("refuse", func(context.Context, []byte) ([]byte, error) { return nil, fmt.Errorf("wrapped: %w", sent) })
	_, err := f.Call(patience(t), "b", "refuse", nil)
	want := *sent
	want.Cause = nil
	if got := problem.From(err); *got != want {
		t.Fatalf("got %+v", got)
	}

	f.Handle("fail", func(context.Context, []byte) ([]byte, error) { return nil, errors.New("secret") })
	if _, err = f.Call(patience(t), "b", "fail", nil); code(err) != problem.Internal || bytes.Contains([]byte(err.Error()), []byte("secret")) {
		t.Fatal(err)
	}
	f.Handle("panic", func(context.Context, []byte) ([]byte, error) { panic("boom") })
	if _, err = f.Call(patience(t), "b", "panic", nil); code(err) != problem.Internal {
		t.Fatal(err)
	}
	f.Handle("late", func(context.Context, []byte) ([]byte, error) { return nil, context.DeadlineExceeded })
	if _, err = f.Call(patience(t), "b", "late", nil); code(err) != problem.Unknown {
		t.Fatal(err)
	}
	if _, err = f.Call(patience(t), "b", "none such", nil); code(err) != problem.Unsupported {
		t.Fatal(err)
	}
}

func TestSizesAreBounded(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	if _, err := f.Call(patience(t), "b", "echo", make([]byte, MaxMessage+1)); code(err) != problem.TooLarge {
		t.Fatal(err)
	}
	f.Handle("big", func(context.Context, []byte) ([]byte, error) { return make([]byte, MaxMessage+1), nil })
	if _, err := f.Call(patience(t), "b", "big", nil); code(err) != problem.TooLarge {
		t.Fatal(err)
	}
}

func TestDeadlinesReachTheHandler(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	left := make(chan time.Duration, 1)
	f.Handle("left", func(ctx context.Context, _ []byte) ([]byte, error) {
		at, ok := ctx.Deadline()
		if !ok {
			return nil, errors.New("no deadline")
		}
		left <- time.Until(at)
		return nil, nil
	})
	_, err := f.Call(context.Background(), "b", "left", nil)
	must(t, err)
	if d := <-left; d > CallTimeout {
		t.Fatalf("a call without a deadline has %v", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	_, err = f.Call(ctx, "b", "left", nil)
	must(t, err)
	if d := <-left; d > HandleTimeout {
		t.Fatalf("a handler has %v", d)
	}

	// The caller's end ends the handler, and the outcome is unknown.
	ended := make(chan struct{})
	ctx, cancel = context.WithCancel(context.Background())
	f.Handle("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
		cancel()
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	_, err = f.Call(ctx, "b", "wait", nil)
	if code(err) != problem.Unknown || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-ended
}

func TestNobodyThereIsUnavailable(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()
	f.at(l.Addr().String())
	if _, err := f.Call(patience(t), "b", "echo", nil); code(err) != problem.Unavailable {
		t.Fatal(err)
	}
	// A peer that proves to be another is no peer either.
	f.at(f.mux.Addr().String())
	if _, err := f.Call(patience(t), "c", "echo", nil); code(err) != problem.Unavailable {
		t.Fatal(err)
	}
}

// A peer that goes away in the middle leaves the outcome unknown, and one that
// comes back at the same address is used again.
func TestPeerRestarts(t *testing.T) {
	f := newFixture(t, ServerConfig{Drain: time.Millisecond}, PoolConfig{})
	begun := make(chan struct{})
	f.Handle("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := f.Call(patience(t), "b", "wait", nil); code(err) != problem.Unknown {
			t.Errorf("call cut in the middle: %v", err)
		}
	})
	<-begun
	f.Server.Close()
	f.mux.Close()
	wg.Wait()
	if _, err := f.Call(patience(t), "b", "echo", nil); code(err) != problem.Unavailable {
		t.Fatal(err)
	}
	f.serve(f.mux.Addr().String())
	eventually(t, func() bool {
		_, err := f.Call(patience(t), "b", "echo", nil)
		return err == nil
	})
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		<-time.After(2 * time.Millisecond)
	}
}

// proxy forwards one port to another until it is frozen: then nothing passes,
// yet every connection stays up, as with a stopped process or a cut line.
type proxy struct {
	l      net.Listener
	frozen chan struct{}
	wg     sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{l: l, frozen: make(chan struct{})}
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(in, out) })
			p.wg.Go(func() { p.copy(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-p.frozen:
			_, _ = io.Copy(io.Discard, from) // the kernel still acknowledges
			return
		default:
		}
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

func TestFrozenPeerIsCut(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	p := newProxy(t, f.mux.Addr().String())
	f.at(p.l.Addr().String())
	_, err := f.Call(patience(t), "b", "echo", nil)
	must(t, err)
	close(p.frozen)
	ctx := patience(t)
	if _, err = f.Call(ctx, "b", "echo", nil); code(err) != problem.Unknown {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatal("only the caller's own deadline ended the call")
	}
	// With the line healed the next calls go through.
	f.at(f.mux.Addr().String())
	eventually(t, func() bool {
		_, err := f.Call(patience(t), "b", "echo", nil)
		return err == nil
	})
}

// A handler that merely takes its time is not taken for dead: the server
// answers the question beside it, and the connection hears that.
func TestSlowHandlerIsNotCut(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	began, finish := make(chan struct{}), make(chan struct{})
	f.Handle("slow", func(context.Context, []byte) ([]byte, error) {
		close(began)
		<-finish
		return []byte("done"), nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := f.Call(patience(t), "b", "slow", nil); err != nil || string(got) != "done" {
			t.Errorf("%q, %v", got, err)
		}
	})
	<-began
	l, err := f.link("b")
	must(t, err)
	heard := l.heard.Load()
	eventually(t, func() bool { // each question has a second
		f.ping(l)
		return l.heard.Load() > heard
	})
	close(finish)
	wg.Wait()
}

func TestVerdicts(t *testing.T) {
	const s = int64(time.Second)
	var l link
	step := func(now int64, want verdict) {
		t.Helper()
		if got := l.judge(now); got != want {
			t.Fatalf("at %v: verdict %d, want %d", time.Duration(now), got, want)
		}
	}
	l.heard.Store(10 * s)
	step(99*s, leave) // nobody waits
	l.flying.Store(1)
	step(10*s+s/2, leave)
	step(11*s, ask)
	step(11*s+s/2, leave)
	l.heard.Store(11*s + s/2) // it answered
	step(12*s, leave)
	step(12*s+s/2, ask)
	step(13*s, leave)
	step(13*s+s/2, cut)
	step(13*s+s/2, ask) // the next connection is asked anew
	l.flying.Store(0)
	step(20*s, leave)
	l.flying.Store(1)
	step(20*s, ask) // and so is a peer that was left alone meanwhile
}

func TestInFlightIsBounded(t *testing.T) {
	f := newFixture(t, ServerConfig{Handling: 2}, PoolConfig{InFlight: 3})
	hold, began := make(chan struct{}), make(chan struct{}, 9)
	f.Handle("hold", func(context.Context, []byte) ([]byte, error) {
		began <- struct{}{}
		<-hold
		return nil, nil
	})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := f.Call(patience(t), "b", "hold", nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-began
	<-began
	_, err := f.Call(patience(t), "b", "echo", nil) // the third call: the server's bound
	if p := problem.From(err); p.Code != problem.Overloaded || p.RetryAfter == 0 {
		t.Error(err)
	}
	l, _ := f.link("b")
	l.flying.Add(1) // as if a third were under way: the pool's bound
	if _, err := f.Call(patience(t), "b", "echo", nil); code(err) != problem.Overloaded || !strings.Contains(err.Error(), "to one process") {
		t.Error(err)
	}
	l.flying.Add(-1)
	close(hold)
	wg.Wait()
	_, err = f.Call(patience(t), "b", "echo", nil)
	must(t, err)
}

func TestCloseIsFinal(t *testing.T) {
	f := newFixture(t, ServerConfig{}, PoolConfig{})
	_, err := f.Call(patience(t), "b", "echo", nil)
	must(t, err)
	must(t, f.Pool.Close())
	must(t, f.Pool.Close())
	if _, err := f.Call(patience(t), "b", "echo", nil); code(err) != problem.Unavailable {
		t.Fatal(err)
	}
	must(t, f.Server.Close())
	must(t, f.Server.Close())
}

// Close lets what is under way finish, and waits for it.
func TestCloseDrains(t *testing.T) {
	f := newFixture(t, ServerConfig{Drain: time.Minute}, PoolConfig{})
	began, hold := make(chan struct{}), make(chan struct{})
	f.Handle("hold", func(context.Context, []byte) ([]byte, error) {
		close(began)
		<-hold
		return []byte("finished"), nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := f.Call(patience(t), "b", "hold", nil); err != nil || string(got) != "finished" {
			t.Errorf("%q, %v", got, err)
		}
	})
	<-began
	wg.Go(func() { f.Server.Close() })
	close(hold)
	wg.Wait()
}

func TestOneHandlerPerMethod(t *testing.T) {
	s := NewServer(ServerConfig{})
	defer s.Close()
	defer func() {
		if recover() == nil {
			t.Fatal("a method got a second handler")
		}
	}()
	s.Handle(ping, nil)
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{kindAnswer, 'x'})
	f.Add(append([]byte{kindProblem}, encodeProblem(problem.New(problem.NotFound, "m", "f").After(time.Second))...))
	f.Add([]byte("\x01{}"))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := open(in)
		if err == nil && (in[0] != kindAnswer || !bytes.Equal(got, in[1:])) {
			t.Fatalf("%q became %q", in, got)
		}
		if err != nil && problem.From(err).Code == "" {
			t.Fatalf("%q: %v", in, err)
		}
	})
}

// cpu is the processor time this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCall is a call of 1 KiB there and back over mutual TLS. cpu-ns/op
// is both sides' processor time, which a busy machine does not spoil.
func BenchmarkCall(b *testing.B) {
	f := newFixture(b, ServerConfig{}, PoolConfig{})
	req := make([]byte, 1024)
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			before := cpu(b)
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := f.Call(context.Background(), "b", "echo", req); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
