//go:build linux

package peers

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"qianma/loadtest/drive"
)

// pgFake speaks a server's side of the protocol, on a Unix socket, and does
// nothing: a test says what is answered.
type pgFake struct {
	dir    string
	ln     net.Listener
	wg     sync.WaitGroup
	opened atomic.Uint32 // connections
	chop   atomic.Bool   // send a byte at a time
	answer func(*pgSession)

	mu       sync.Mutex
	conns    map[net.Conn]bool
	shut     bool
	mute     bool // connections are taken and not greeted
	cancels  []uint32
	greeting chan struct{} // one for each connection that came while mute
	left     chan struct{} // one for each that was hung up on
}

// pgSession is one connection, at a moment at which an operation has come.
type pgSession struct {
	*pgproto3.Backend
	conn net.Conn
	pid  uint32
	kind string
	args [][]byte
	gone bool // the answer was to hang up
}

// parameters are what a server would say that each statement takes.
var parameters = map[string][]uint32{
	pgRegister:      {pgtype.Int8OID, pgtype.UUIDOID, pgtype.Int2OID, pgtype.TextOID, pgtype.Int8OID, pgtype.TextOID},
	pgRegisterBatch: {pgtype.Int8ArrayOID, pgtype.UUIDArrayOID, pgtype.Int2ArrayOID, pgtype.Int8ArrayOID, pgtype.TextOID, pgtype.TextOID},
	pgReport:        {pgtype.Int8OID, pgtype.TextOID, pgtype.Int2OID, pgtype.Int8OID},
	pgReportBatch:   {pgtype.Int8ArrayOID, pgtype.Int2ArrayOID, pgtype.Int8ArrayOID, pgtype.TextOID},
	pgRead:          {pgtype.UUIDOID},
	pgTube:          {pgtype.Int8OID},
}

// startFake is closed by the test that wants to see it gone, or at its end.
func startFake(t testing.TB, answer func(*pgSession)) *pgFake {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f, err := listenFake(dir, answer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func listenFake(dir string, answer func(*pgSession)) (*pgFake, error) {
	f := &pgFake{dir: dir, answer: answer, conns: map[net.Conn]bool{}, greeting: make(chan struct{}, 64), left: make(chan struct{}, 64)}
	var err error
	if f.ln, err = net.Listen("unix", filepath.Join(dir, ".s.PGSQL.1")); err != nil {
		return nil, err
	}
	f.wg.Go(func() {
		for {
			c, err := f.ln.Accept()
			if err != nil {
				return
			}
			if f.keep(c) {
				f.wg.Go(func() { f.serve(c) })
			}
		}
	})
	return f, nil
}

func (f *pgFake) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shut {
		c.Close()
		return false
	}
	f.conns[c] = true
	return true
}

// Close hangs up on everybody and waits for its own goroutines.
func (f *pgFake) Close() {
	f.ln.Close()
	f.mu.Lock()
	f.shut = true
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *pgFake) silence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = true
}

// asked lists the processes that were asked to stop.
func (f *pgFake) asked() []uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]uint32(nil), f.cancels...)
}

func (f *pgFake) serve(c net.Conn) {
	defer c.Close()
	var w io.Writer = c
	if f.chop.Load() {
		w = byteByByte{c}
	}
	s := &pgSession{Backend: pgproto3.NewBackend(c, w), conn: c}
	hello, err := s.ReceiveStartupMessage()
	if err != nil {
		return
	}
	f.mu.Lock()
	if stop, ok := hello.(*pgproto3.CancelRequest); ok {
		f.cancels = append(f.cancels, stop.ProcessID)
	}
	mute := f.mute
	f.mu.Unlock()
	if _, ok := hello.(*pgproto3.StartupMessage); !ok {
		return
	}
	if mute {
		f.greeting <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
		return
	}
	s.pid = f.opened.Add(1)
	s.Send(&pgproto3.AuthenticationOk{})
	s.Send(&pgproto3.BackendKeyData{ProcessID: s.pid, SecretKey: binary.BigEndian.AppendUint32(nil, s.pid)})
	s.ready()
	for !s.gone && f.next(s) == nil {
	}
	if s.gone {
		c.Close()
		f.left <- struct{}{}
	}
}

var errBye = errors.New("the client left")

func (f *pgFake) next(s *pgSession) error {
	m, err := s.Receive()
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *pgproto3.Parse:
		s.Send(&pgproto3.ParseComplete{})
		s.Send(&pgproto3.ParameterDescription{ParameterOIDs: parameters[m.Query]})
	case *pgproto3.Describe:
		s.Send(&pgproto3.NoData{})
	case *pgproto3.Bind:
		s.kind, s.args = m.PreparedStatement, nil
		for _, p := range m.Parameters {
			s.args = append(s.args, append([]byte(nil), p...))
		}
	case *pgproto3.Sync:
		if s.args == nil {
			return s.ready()
		}
		f.answer(s)
		s.args = nil
		return s.Flush()
	case *pgproto3.Terminate:
		return errBye
	}
	return nil
}

func (s *pgSession) ready() error {
	s.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return s.Flush()
}

// done acknowledges what was asked, with rows or without.
func (s *pgSession) done(rows ...[][]byte) {
	s.Send(&pgproto3.BindComplete{})
	for _, r := range rows {
		s.Send(&pgproto3.DataRow{Values: r})
	}
	s.Send(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
	s.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
}

// tube is whose registration was asked for.
func (s *pgSession) tube() uint64 { return binary.BigEndian.Uint64(s.args[0]) }

// hangUp sends what was said so far, and then nothing any more.
func (s *pgSession) hangUp() {
	_ = s.Flush()
	s.gone = true
}

type byteByByte struct{ w io.Writer }

func (b byteByByte) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := b.w.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// config is how to connect to the fake.
func (f *pgFake) config(t testing.TB) *pgconn.Config {
	t.Helper()
	c, err := pgconn.ParseConfig("host=" + f.dir + " port=1 user=test dbname=test sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// target is the client, with so many lanes and the fakes as its places.
func target(t testing.TB, lanes int, places ...*pgFake) *pgTarget {
	t.Helper()
	var configs []*pgconn.Config
	for _, f := range places {
		configs = append(configs, f.config(t))
	}
	opened, err := openPostgres(configs, lanes, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	opened.Begin(time.Now())
	return opened.(*pgTarget)
}

func register(tube uint64) *drive.Op {
	return &drive.Op{Kind: drive.Register, Samples: []drive.Sample{{Person: uint32(tube), Tube: tube, Pool: 10, Sampled: 1_700_000_000_000}}}
}
