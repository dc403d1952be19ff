package rpc

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"qianma/cluster/mux"
	"qianma/cluster/problem"
)

// PoolConfig tunes a pool; the zero value is good.
type PoolConfig struct {
	// Metrics receives the pool's metrics. Nil: none.
	Metrics prometheus.Registerer
	// InFlight is how many calls may be under way to one peer; a call over it
	// fails with problem.Overloaded at once. 0: 2048.
	InFlight int
}

// How a peer that has died, or is frozen, is found: when calls to it wait and
// nothing at all has come from it for quiet, it is asked for a sign of life;
// when none comes within another quiet, its connection is cut.
const (
	quiet = 1 * time.Second
	watch = 250 * time.Millisecond // between two looks
	ping  = "rpc.ping"
)

// Pool holds a connection to each peer that was ever called.
type Pool struct {
	dialer   *mux.Dialer
	cfg      PoolConfig
	measured *measures

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	kick   chan struct{} // wakes the watcher
	wait   sync.WaitGroup

	mu     sync.RWMutex
	closed bool
	peers  map[string]*link
}

// NewPool returns a pool that finds peers through the dialer.
func NewPool(dialer *mux.Dialer, cfg PoolConfig) *Pool {
	if cfg.InFlight == 0 {
		cfg.InFlight = MaxInFlight
	}
	p := &Pool{
		dialer: dialer, cfg: cfg, peers: map[string]*link{}, kick: make(chan struct{}, 1),
		measured: newMeasures(cfg.Metrics, "client", "peer"),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wait.Go(p.watch)
	return p
}

// Call asks a peer and returns its answer, which belongs to the caller. The
// request must not be changed during the call, nor after a call that failed:
// the transport may still hold it. Every error is a *problem.Problem.
func (p *Pool) Call(ctx context.Context, peer, method string, req []byte) ([]byte, error) {
	start := time.Now()
	answer, err := p.call(ctx, peer, method, req)
	p.measured.done(peer, start, err)
	return answer, err
}

func (p *Pool) call(ctx context.Context, peer, method string, req []byte) ([]byte, error) {
	if len(req) > MaxMessage {
		return nil, problem.New(problem.TooLarge, "the request is over the bound of a message", "send less at a time")
	}
	l, err := p.link(peer)
	if err != nil {
		return nil, unreachable(err)
	}
	if l.flying.Add(1) > int64(p.cfg.InFlight) {
		l.flying.Add(-1)
		return nil, problem.New(problem.Overloaded, "too many calls to one process are waiting", "wait a moment and repeat").After(200 * time.Millisecond)
	}
	defer l.flying.Add(-1)
	// Most calls are over before the watcher would look: it is not woken for them.
	defer time.AfterFunc(watch, p.wake).Stop()
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	return l.invoke(ctx, method, req)
}

// Close cuts every connection; calls under way fail. It waits and may be
// called twice.
func (p *Pool) Close() error {
	p.mu.Lock()
	peers := p.peers
	p.peers, p.closed = nil, true
	p.mu.Unlock()
	p.cancel()
	var faults []error
	for _, l := range peers {
		faults = append(faults, l.cc.Close())
	}
	p.wait.Wait()
	return errors.Join(faults...)
}

var errClosed = errors.New("rpc: the pool is closed")

func (p *Pool) link(peer string) (*link, error) {
	p.mu.RLock()
	l, closed := p.peers[peer], p.closed
	p.mu.RUnlock()
	switch {
	case l != nil:
		return l, nil
	case closed:
		return nil, errClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if l = p.peers[peer]; l != nil {
		return l, nil
	}
	l = &link{}
	cc, err := grpc.NewClient("passthrough:///"+peer,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := p.dialer.RPC(ctx, peer)
			if err != nil {
				return nil, err
			}
			return l.hold(c), nil
		}),
		grpc.WithTransportCredentials(callerCreds{}),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}),
			grpc.MaxCallRecvMsgSize(MaxMessage+1), grpc.MaxCallSendMsgSize(MaxMessage+1)),
		grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 800 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
	)
	if err != nil {
		return nil, err
	}
	l.cc = cc
	p.peers[peer] = l
	return l, nil
}

// link is the connection to one peer.
type link struct {
	cc      *grpc.ClientConn
	flying  atomic.Int64 // calls under way
	heard   atomic.Int64 // when bytes last came from the peer, Unix nanoseconds
	asked   atomic.Int64 // when it was asked for a sign of life; 0: it was not
	current atomic.Pointer[heardConn]
}

func (l *link) invoke(ctx context.Context, method string, req []byte) ([]byte, error) {
	out, in := message{body: req}, message{}
	err := l.cc.Invoke(ctx, "/"+service+"/"+method, &out, &in)
	if err == nil {
		return open(in.body)
	}
	// gRPC's own error does not unwrap to the end of the caller's context,
	// which breakers and logs want to tell from the peer's fault.
	err = errors.Join(ctx.Err(), err)
	if !out.sent {
		return nil, unreachable(err)
	}
	return nil, outcomeUnknown(err)
}

func unreachable(err error) *problem.Problem {
	return problem.Wrap(err, problem.Unavailable, "another process of the system cannot be reached", "wait a moment and repeat").After(500 * time.Millisecond)
}

func outcomeUnknown(err error) *problem.Problem {
	return problem.Wrap(err, problem.Unknown, "no answer came back in time", "it may have been done: repeat with the same key").After(500 * time.Millisecond)
}

// heardConn notes when bytes come in, and can be cut.
type heardConn struct {
	net.Conn
	link *link
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.link.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

func (l *link) hold(c net.Conn) net.Conn {
	h := &heardConn{c, l}
	l.heard.Store(time.Now().UnixNano())
	l.asked.Store(0)
	l.current.Store(h)
	return h
}

func (p *Pool) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// watch looks after the peers while calls wait for long, and sleeps while none do.
func (p *Pool) watch() {
	for {
		select {
		case <-p.kick:
		case <-p.ctx.Done():
			return
		}
		for p.look(time.Now().UnixNano()) {
			select {
			case <-time.After(watch):
			case <-p.ctx.Done():
				return
			}
		}
	}
}

// look asks quiet peers for a sign of life and cuts those that gave none.
func (p *Pool) look(now int64) (busy bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, l := range p.peers {
		busy = l.flying.Load() > 0 || busy
		switch l.judge(now) {
		case ask:
			p.wait.Go(func() { p.ping(l) })
		case cut:
			if c := l.current.Load(); c != nil {
				c.Close()
			}
		}
	}
	return busy
}

// verdict is what a look at a peer says to do.
type verdict int

const (
	leave verdict = iota // nobody waits, or it was heard lately, or it has been asked
	ask                  // calls wait and it is quiet
	cut                  // it was asked and has stayed quiet
)

func (l *link) judge(now int64) verdict {
	heard, asked := l.heard.Load(), l.asked.Load()
	switch {
	case l.flying.Load() == 0:
		l.asked.Store(0)
	case asked > heard && now-asked >= int64(quiet):
		l.asked.Store(0)
		return cut
	case asked <= heard && now-heard >= int64(quiet):
		l.asked.Store(now)
		return ask
	}
	return leave
}

// ping is only sent to be answered: that something came back is seen by the
// connection, not here.
func (p *Pool) ping(l *link) {
	ctx, cancel := context.WithTimeout(p.ctx, quiet)
	defer cancel()
	_, _ = l.invoke(ctx, ping, nil)
}
