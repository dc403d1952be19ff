package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	"qianma/cluster/mux"
	"qianma/cluster/pki"
	"qianma/cluster/problem"
)

// ServerConfig tunes a server; the zero value is good.
type ServerConfig struct {
	// Logger hears of handlers that panic. Nil: nobody does.
	Logger *slog.Logger
	// Metrics receives the server's metrics. Nil: none.
	Metrics prometheus.Registerer
	// Handling is how many calls are worked on at a time; a call over it is
	// answered problem.Overloaded at once. 0: 8192.
	Handling int
	// Drain is how long Close lets calls finish. 0: 2 s.
	Drain time.Duration
}

// Server answers calls.
type Server struct {
	cfg      ServerConfig
	grpc     *grpc.Server
	slots    chan struct{}
	measured *measures

	mu       sync.RWMutex
	handlers map[string]Handler
	closing  sync.Once
}

// NewServer returns a server that listens nowhere yet.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Handling == 0 {
		cfg.Handling = maxHandling
	}
	if cfg.Drain == 0 {
		cfg.Drain = 2 * time.Second
	}
	s := &Server{
		cfg: cfg, handlers: map[string]Handler{},
		slots:    make(chan struct{}, cfg.Handling),
		measured: newMeasures(cfg.Metrics, "server", "method"),
	}
	s.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(codec{}),
		grpc.Creds(callerCreds{}),
		grpc.MaxRecvMsgSize(MaxMessage+1), grpc.MaxSendMsgSize(MaxMessage+1),
		grpc.MaxConcurrentStreams(maxHandling),
		grpc.MaxHeaderListSize(16<<10),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connWindow),
		grpc.ConnectionTimeout(mux.HelloTimeout),
		grpc.WaitForHandlers(true),
		// A goroutine of its own for each call begins with a small stack that is
		// copied into larger ones while it works: a tenth of a middle store's time.
		grpc.NumStreamWorkers(workers),
		// The watch for dead peers is the caller's (see Pool): these only
		// free what callers that vanished without a word have left behind.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.UnknownServiceHandler(s.stream),
	)
	s.Handle(ping, func(context.Context, []byte) ([]byte, error) { return nil, nil })
	return s
}

// Windows are fixed: gRPC's estimator would ping on every connection to save
// memory that a handful of peers does not need.
const (
	streamWindow = 2 << 20
	connWindow   = 8 << 20
)

// workers are goroutines that answer one call after the other. A call that finds
// all of them busy gets a goroutine of its own.
const workers = 4

// Handle makes h answer the method. It may be called while serving; a method
// has one handler, and a second one is a fault of the program.
func (s *Server) Handle(method string, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.handlers[method]; ok {
		panic(fmt.Sprintf("rpc: method %q has two handlers", method))
	}
	s.handlers[method] = h
}

// Serve answers callers of l until Close. It returns nil after Close.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(l)
	if errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Close refuses new calls, lets those under way finish for a bounded time,
// ends the rest and waits for their handlers. It may be called twice.
func (s *Server) Close() error {
	s.closing.Do(func() {
		timer := time.AfterFunc(s.cfg.Drain, s.grpc.Stop)
		defer timer.Stop()
		s.grpc.GracefulStop()
	})
	return nil
}

// Peer is the process that makes the call, as its certificate proves it; ""
// without TLS.
func Peer(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(callerInfo)
	if !ok {
		return ""
	}
	return info.name
}

func (s *Server) stream(_ any, st grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(st)
	method := strings.TrimPrefix(full, "/"+service+"/")
	var req message
	if err := st.RecvMsg(&req); err != nil {
		return err
	}
	start := time.Now()
	answer, err := s.answer(st.Context(), method, req.body)
	s.measured.done(method, start, err)
	if err != nil {
		return st.SendMsg(&message{head: headProblem, body: encodeProblem(problem.From(err))})
	}
	return st.SendMsg(&message{head: headAnswer, body: answer})
}

func (s *Server) answer(ctx context.Context, method string, req []byte) (answer []byte, err error) {
	s.mu.RLock()
	h, ok := s.handlers[method]
	s.mu.RUnlock()
	if !ok {
		return nil, problem.New(problem.Unsupported, "this process has no method "+method, "check that both processes run versions that belong together")
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return nil, problem.New(problem.Overloaded, "this process works on as many calls as it can", "wait a moment and repeat").After(200 * time.Millisecond)
	}
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > HandleTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, HandleTimeout)
		defer cancel()
	}
	defer s.rescue(method, &err)
	answer, err = h(ctx, req)
	if err == nil && len(answer) > MaxMessage {
		return nil, problem.New(problem.TooLarge, "the answer is over the bound of a message", "ask for less at a time")
	}
	return answer, settle(err)
}

// rescue turns a panic into an answer: one bad call must not end the process.
func (s *Server) rescue(method string, err *error) {
	if r := recover(); r != nil {
		s.cfg.Logger.Error("rpc handler panicked", "method", method, "stack", string(debug.Stack()))
		*err = problem.New(problem.Internal, "something went wrong on our side", "try again; if it stays, tell operations the time and this code")
	}
}

// settle gives an end of time its meaning: the handler may have done its work.
func settle(err error) error {
	var p *problem.Problem
	if err == nil || errors.As(err, &p) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return outcomeUnknown(err)
	}
	return err
}

// callerCreds takes connections that the mux has already secured and keeps
// who is on the other side.
type callerCreds struct{}

type callerInfo struct {
	credentials.CommonAuthInfo
	name string
}

func (callerInfo) AuthType() string { return "mux" }

func (callerCreds) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := callerInfo{}
	if cs, ok := mux.ConnectionState(c); ok {
		info.name = pki.PeerName(cs)
		info.SecurityLevel = credentials.PrivacyAndIntegrity
	}
	return c, info, nil
}

func (callerCreds) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, callerInfo{}, nil
}

func (callerCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "mux"}
}

func (callerCreds) Clone() credentials.TransportCredentials { return callerCreds{} }

func (callerCreds) OverrideServerName(string) error { return nil }
