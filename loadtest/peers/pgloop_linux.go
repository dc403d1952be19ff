package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"qianma/loadtest/drive"
	"qianma/loadtest/internal/crash"
	"qianma/loadtest/internal/epoll"
)

// pgTarget is PostgreSQL under load. The driver's own thread writes and reads
// its connections, as package client does ours; pgconn opens them and pgproto3
// knows the messages. A worker is here a lane: it does one operation at a time,
// and what finds no lane free waits in order.
type pgTarget struct {
	configs []*pgconn.Config // by place
	limit   time.Duration
	start   time.Time
	poller  *epoll.Poller
	writer  *pgWriter
	conns   []*pgConn // by slot
	lanes   []*pgLane
	free    []*pgLane      // last used on top: few of the server's processes stay warm
	wait    chan *drive.Op // for a lane; nobody else takes from it, and as many fit as Start lets in
	open    int            // started and not yet handed over by Poll
	ready   []*drive.Op    // ended, not yet handed over
	sweep   time.Duration  // when lanes are next looked over for their deadlines
	fresh   chan pgFresh   // connections that were opened again; a lane opens one at a time
	opening int
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	done    func(*drive.Op)
	closed  bool
}

// pgLane carries one operation at a time, over a connection to each place.
type pgLane struct {
	conns    []*pgConn
	op       *drive.Op // nil: free
	at       *pgConn   // where it was sent; nil: it waits for that to be opened again
	deadline time.Duration
	complete bool  // the statement is done, as far as the server has said
	fault    error // what the server said is wrong
}

// pgConn is a lane's connection to a place; link is nil while it is broken.
type pgConn struct {
	epoll.Socket
	lane  *pgLane
	place int
	link  *pgLink
	out   []byte // not written yet
	buf   []byte // the request; out is its tail
}

// pgLink is a connection that stands, with its statements prepared.
type pgLink struct {
	fd    int
	types pgTypes
	// server has lost its socket to us; it still knows how to ask the server to
	// stop what it does.
	server *pgconn.PgConn
	front  *pgproto3.Frontend // reads
}

type pgFresh struct {
	conn *pgConn
	link *pgLink
	err  error
}

var (
	errShut     = errors.New("the target is closed")
	errProtocol = errors.New("an answer that was not asked for")
)

const (
	pgAnswerMax = 1 << 20 // bytes of a message from the server
	sweepEvery  = 20 * time.Millisecond
)

// openPostgres opens a connection for each lane to each place, first the one
// that takes writes.
func openPostgres(configs []*pgconn.Config, lanes int, limit time.Duration) (drive.Target, error) {
	poller, err := epoll.New()
	if err != nil {
		return nil, err
	}
	t := &pgTarget{configs: configs, limit: limit, poller: poller, writer: newPGWriter(),
		wait: make(chan *drive.Op, queue), fresh: make(chan pgFresh, lanes)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	for range lanes {
		if err := t.addLane(); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return t, nil
}

func (t *pgTarget) addLane() error {
	l := &pgLane{}
	t.lanes, t.free = append(t.lanes, l), append(t.free, l)
	for place := range t.configs {
		c := &pgConn{Socket: epoll.Socket{FD: -1, Slot: len(t.conns)}, lane: l, place: place}
		t.conns, l.conns = append(t.conns, c), append(l.conns, c)
		link, err := t.connect(place)
		if err == nil {
			err = t.adopt(c, link)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// connect opens a connection and prepares what its place is asked.
func (t *pgTarget) connect(place int) (*pgLink, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.limit)
	defer cancel()
	server, err := pgconn.ConnectConfig(ctx, t.configs[place])
	if err != nil {
		return nil, err
	}
	k := &pgLink{server: server}
	for kind := range pgKinds {
		if pgStatements[kind] == "" || kind.Write() && place > 0 {
			continue
		}
		said, err := server.Prepare(ctx, kind.String(), pgStatements[kind], nil)
		if err != nil {
			return nil, errors.Join(err, server.Close(ctx))
		}
		k.types[kind] = said.ParamOIDs
	}
	if k.fd, err = ownSocket(server); err != nil {
		return nil, err
	}
	return k, nil
}

// ownSocket takes a connection's socket out of the runtime's hands. Left there,
// every answer would wake one of its threads too.
func ownSocket(server *pgconn.PgConn) (int, error) {
	had, err := server.Hijack()
	if err != nil {
		return -1, err
	}
	defer had.Conn.Close()
	if had.Frontend.ReadBufferLen() > 0 {
		return -1, errProtocol
	}
	conn, ok := had.Conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T is no socket", had.Conn)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dup error
	err = raw.Control(func(s uintptr) { fd, dup = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dup)
}

// adopt puts a connection that stands into its place.
func (t *pgTarget) adopt(c *pgConn, k *pgLink) error {
	c.Open(k.fd)
	c.link = k
	k.front = pgproto3.NewFrontend(&c.Socket, io.Discard)
	k.front.SetMaxBodyLen(pgAnswerMax)
	if err := t.poller.Watch(&c.Socket, epoll.Readable); err != nil {
		t.drop(c, err)
		return err
	}
	return nil
}

// Begin fixes the run's clock.
func (t *pgTarget) Begin(start time.Time) { t.start, t.sweep = start, 0 }

// Carriers is how many places there are.
func (t *pgTarget) Carriers() int { return len(t.configs) }

// Nodes is one: a place is one server.
func (t *pgTarget) Nodes(int, drive.Kind) int { return 1 }

// Start sends the operation, lets it wait for a lane, or drops it when too many
// do.
func (t *pgTarget) Start(op *drive.Op) {
	t.open++
	switch {
	case t.closed || t.open > queue:
		dropped(op, time.Since(t.start))
		t.ready = append(t.ready, op)
	case pgStatements[op.Kind] == "":
		tried(op, time.Since(t.start))
		t.end(op, ErrUnsupported)
	default:
		t.wait <- op
		t.feed()
	}
}

// feed gives free lanes what waits.
func (t *pgTarget) feed() {
	for len(t.free) > 0 && len(t.wait) > 0 {
		l := t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
		t.take(l, <-t.wait)
	}
}

func (t *pgTarget) take(l *pgLane, op *drive.Op) {
	now := time.Since(t.start)
	tried(op, now)
	op.View = drive.View{}
	l.op, l.deadline, l.complete, l.fault = op, now+t.limit, false, nil
	place := 0
	if !op.Kind.Write() {
		place = op.Carrier
	}
	if c := l.conns[place]; c.link != nil {
		t.send(c)
	} else {
		t.reopen(c)
	}
}

// reopen opens a broken connection again, beside the loop; the lane's operation
// waits for it.
func (t *pgTarget) reopen(c *pgConn) {
	t.opening++
	t.wg.Go(func() {
		defer crash.Guard()
		k, err := t.connect(c.place)
		t.fresh <- pgFresh{c, k, err}
	})
}

// reopened goes on with what waited for connections to be opened again.
func (t *pgTarget) reopened() {
	for t.opening > 0 {
		select {
		case f := <-t.fresh:
			t.opening--
			err := f.err
			if err == nil {
				err = t.adopt(f.conn, f.link)
			}
			if err != nil {
				t.finish(f.conn.lane, fmt.Errorf("%w: %w", errNotSent, err))
				continue
			}
			t.send(f.conn)
		default:
			return
		}
	}
}

// send writes the lane's operation on a connection that stands.
func (t *pgTarget) send(c *pgConn) {
	l := c.lane
	l.at = c
	var err error
	if c.buf, err = t.writer.append(c.buf[:0], l.op, &c.link.types); err != nil {
		t.finish(l, fmt.Errorf("%w: %w", errNotSent, err))
		return
	}
	c.out = c.buf
	t.flush(c)
}

func (t *pgTarget) flush(c *pgConn) {
	n, err := c.Write(c.out)
	c.out = c.out[n:]
	wants := uint32(epoll.Readable)
	if err == epoll.ErrAgain {
		wants, err = epoll.Readable|epoll.Writable, nil
	}
	if err == nil {
		err = t.poller.Watch(&c.Socket, wants)
	}
	if err != nil {
		t.drop(c, err)
	}
}

// drop closes a connection; the operation that was sent there, if any, ends
// with what the server said last, or else with err.
func (t *pgTarget) drop(c *pgConn, err error) {
	c.Close()
	c.link, c.out = nil, nil
	if l := c.lane; l.at == c {
		if l.fault != nil {
			err = l.fault
		}
		t.finish(l, err)
	}
}

// finish ends the lane's operation.
func (t *pgTarget) finish(l *pgLane, err error) {
	op := l.op
	l.op, l.at = nil, nil
	t.free = append(t.free, l)
	t.end(op, err)
}

func (t *pgTarget) end(op *drive.Op, err error) {
	ended(op, time.Since(t.start), err)
	t.ready = append(t.ready, op)
}

// Poll waits for at most the given time until something ends, and hands over
// what has. Answers are taken up together, as ours are, also while operations
// wait for a lane: to take each up at once costs a full machine more than a lane
// loses by it.
func (t *pgTarget) Poll(wait time.Duration, done func(*drive.Op)) error {
	t.done = done
	if t.deliver() {
		wait = 0
	}
	if t.opening > 0 { // no event tells of that
		wait = min(wait, gather)
	}
	events, err := t.poller.Wait(wait, gather)
	if err != nil {
		return err
	}
	t.reopened()
	t.feed()
	for i := range events {
		ev := &events[i]
		if c := t.conns[ev.Fd]; c.Meant(ev) {
			t.handle(c, ev.Events)
			t.feed()
		}
	}
	if now := time.Since(t.start); now >= t.sweep {
		t.expire(now)
		t.feed()
		t.sweep = now + sweepEvery
	}
	t.deliver()
	return nil
}

// deliver hands over what has ended. done may start more, which may end at once.
func (t *pgTarget) deliver() bool {
	any := len(t.ready) > 0
	for len(t.ready) > 0 {
		batch := t.ready
		t.ready = nil
		for _, op := range batch {
			t.open--
			t.done(op)
		}
		if len(t.ready) == 0 {
			t.ready = batch[:0]
		}
	}
	return any
}

func (t *pgTarget) handle(c *pgConn, events uint32) {
	if events&epoll.Writable != 0 {
		t.flush(c)
	}
	if c.link != nil && events&(epoll.Readable|epoll.Hangup) != 0 {
		t.receive(c, events&epoll.Hangup != 0)
	}
}

// receive takes in the messages that have come. The last of an answer is the
// last there is, unless the server hangs up behind it.
func (t *pgTarget) receive(c *pgConn, toTheEnd bool) {
	for {
		m, err := c.link.front.Receive()
		if err == epoll.ErrAgain {
			return
		}
		over := false
		if err == nil {
			over, err = t.hear(c, m)
		}
		if err != nil {
			t.drop(c, err)
			return
		}
		if over && !toTheEnd && c.link.front.ReadBufferLen() == 0 {
			return
		}
	}
}

// hear takes in one message; over says that the operation has ended with it. An
// acknowledgement is a statement that completed, and then a server that is ready
// again: the transaction is committed in between.
func (t *pgTarget) hear(c *pgConn, m pgproto3.BackendMessage) (over bool, err error) {
	l := c.lane
	switch m.(type) {
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus, *pgproto3.NotificationResponse:
		return false, nil // these may come at any time
	}
	if l.at != c {
		return false, errProtocol // the connection was idle
	}
	switch m := m.(type) {
	case *pgproto3.BindComplete:
		return false, nil
	case *pgproto3.DataRow:
		return false, pgView(l.op, m.Values)
	case *pgproto3.CommandComplete:
		l.complete = true
		return false, nil
	case *pgproto3.ErrorResponse:
		l.fault = pgconn.ErrorResponseToPgError(m)
		return false, nil
	case *pgproto3.ReadyForQuery:
		if l.fault == nil && !l.complete || len(c.out) > 0 {
			return false, errProtocol
		}
		t.finish(l, l.fault)
		return true, nil
	}
	return false, errProtocol
}

// expire ends what has waited too long for an answer. Its connection is of no
// use any more, and the server is asked to stop, lest its processes pile up.
func (t *pgTarget) expire(now time.Duration) {
	for _, l := range t.lanes {
		if l.at == nil || l.deadline > now {
			continue
		}
		server := l.at.link.server
		t.wg.Go(func() {
			defer crash.Guard()
			ctx, cancel := context.WithTimeout(t.ctx, t.limit)
			defer cancel()
			_ = server.CancelRequest(ctx) // as far as it goes
		})
		t.drop(l.at, context.DeadlineExceeded)
	}
}

// Close ends what is open, reported to the function last given to Poll, and
// closes the connections.
func (t *pgTarget) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	t.cancel()
	for _, c := range t.conns {
		if c.link != nil {
			bye, _ := (&pgproto3.Terminate{}).Encode(nil)
			_, _ = c.Write(bye) // a server that does not hear it sees the connection close
			t.drop(c, errShut)
		}
	}
	t.wg.Wait()
	for ; t.opening > 0; t.opening-- {
		f := <-t.fresh
		if f.err == nil {
			_ = syscall.Close(f.link.fd)
		}
		t.finish(f.conn.lane, fmt.Errorf("%w: %w", errNotSent, errShut))
	}
	for len(t.wait) > 0 {
		t.end(<-t.wait, fmt.Errorf("%w: %w", errNotSent, errShut))
	}
	if t.done != nil {
		t.deliver()
	}
	return t.poller.Close()
}
