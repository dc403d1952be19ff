//go:build linux

package peers

import (
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"qianma/cluster/leaktest"
	"qianma/loadtest/drive"
)

func int2(n uint16) []byte  { return binary.BigEndian.AppendUint16(nil, n) }
func int4(n uint32) []byte  { return binary.BigEndian.AppendUint32(nil, n) }
func int8s(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// until polls until something that is no operation's end has come about.
func until(t *testing.T, target drive.Target, what string, come func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !come(); {
		if time.Now().After(end) {
			t.Fatalf("%s: never", what)
		}
		if err := target.Poll(time.Millisecond, func(op *drive.Op) { t.Errorf("a %s ended as %v %s", op.Kind, op.Outcome, op.Code) }); err != nil {
			t.Fatal(err)
		}
	}
}

// poll polls until so many operations have ended.
func poll(t *testing.T, target drive.Target, n int, done func(*drive.Op)) {
	t.Helper()
	for n > 0 {
		if err := target.Poll(time.Second, func(op *drive.Op) { n--; done(op) }); err != nil {
			t.Fatal(err)
		}
	}
}

func wants(t *testing.T, op *drive.Op, outcome drive.Outcome, code string, sent bool) {
	t.Helper()
	if op.Outcome != outcome || op.Code != code || op.Sent != sent {
		t.Errorf("a %s ended as %v %q, sent %v; want %v %q, sent %v", op.Kind, op.Outcome, op.Code, op.Sent, outcome, code, sent)
	}
	if op.First > op.Tried || op.Tried > op.Ended {
		t.Errorf("a %s was first tried at %v, tried at %v, and ended at %v", op.Kind, op.First, op.Tried, op.Ended)
	}
}

// Goal: the server gets each kind of operation with its own values, and what it
// shows is read, also when every byte comes by itself. Method: the values are
// read back with the library.
func TestPostgresIsAskedWhatWasMeant(t *testing.T) {
	defer leaktest.None(t)
	type asked struct {
		place int
		kind  string
		args  []any
	}
	got := make(chan asked, 16)
	place := func(i int) *pgFake {
		types := pgtype.NewMap()
		return startFake(t, func(s *pgSession) {
			a := asked{place: i, kind: s.kind}
			for kind, sql := range pgStatements {
				for p := range s.args {
					if drive.Kind(kind).String() == s.kind {
						a.args = append(a.args, scan(t, types, parameters[sql][p], s.args[p]))
					}
				}
			}
			got <- a
			switch {
			case s.kind == "display" && i == 0:
				s.done() // nobody
			case s.kind == "display":
				s.done([][]byte{int8s(77), int2(10), int4(2)}, [][]byte{int8s(78), int2(10), int4(1)})
			case s.kind == "tube":
				s.done([][]byte{int8s(9)})
			default:
				s.done()
			}
		})
	}
	first, second := place(0), place(1)
	defer first.Close()
	defer second.Close()
	first.chop.Store(true)
	second.chop.Store(true)
	pg := target(t, 1, first, second)
	defer pg.Close()

	one := drive.Sample{Person: 5, Tube: 1 << 60, Pool: 10, Sampled: 1_700_000_000_001}
	two := drive.Sample{Person: 6, Tube: 2, Pool: 1, Sampled: 1_700_000_000_002}
	result, other := drive.Result{Tube: 1 << 60, Outcome: 2, At: 3}, drive.Result{Tube: 2, Outcome: 1, At: 4}
	person5, person6 := person(5), person(6)
	for _, c := range []struct {
		op   *drive.Op
		want asked
		view drive.View
	}{
		{&drive.Op{Kind: drive.Register, Carrier: 1, Samples: []drive.Sample{one}},
			asked{0, "register", []any{int64(1 << 60), person5, int16(10), pgSite, one.Sampled, pgOperator}}, drive.View{}},
		{&drive.Op{Kind: drive.RegisterBatch, Samples: []drive.Sample{one, two}},
			asked{0, "register_batch", []any{[]int64{1 << 60, 2}, [][16]byte{person5, person6}, []int16{10, 1},
				[]int64{one.Sampled, two.Sampled}, pgSite, pgOperator}}, drive.View{}},
		{&drive.Op{Kind: drive.Report, Results: []drive.Result{result}},
			asked{0, "result", []any{int64(1 << 60), pgLab, int16(2), int64(3)}}, drive.View{}},
		{&drive.Op{Kind: drive.ReportBatch, Results: []drive.Result{result, other}},
			asked{0, "result_batch", []any{[]int64{1 << 60, 2}, []int16{2, 1}, []int64{3, 4}, pgLab}}, drive.View{}},
		{&drive.Op{Kind: drive.Display, Person: 5, View: drive.View{Found: true, Status: "of the last try"}},
			asked{0, "display", []any{person5}}, drive.View{}},
		{&drive.Op{Kind: drive.Display, Carrier: 1, Person: 6},
			asked{1, "display", []any{person6}}, drive.View{Found: true, Sampled: 77, Status: "pool_positive_retest"}},
		{&drive.Op{Kind: drive.Tube, Carrier: 1, TubeNo: 1 << 60},
			asked{1, "tube", []any{int64(1 << 60)}}, drive.View{Found: true, Swabs: 9}},
	} {
		do(t, pg, c.op)
		wants(t, c.op, drive.OK, "", true)
		if a := <-got; !reflect.DeepEqual(a, c.want) {
			t.Errorf("asked %+v, want %+v", a, c.want)
		}
		if c.op.View != c.view {
			t.Errorf("a %s shows %+v, want %+v", c.op.Kind, c.op.View, c.view)
		}
	}
	verify := &drive.Op{Kind: drive.Verify}
	do(t, pg, verify)
	wants(t, verify, drive.Rejected, "unsupported", true)
	if len(got) > 0 {
		t.Errorf("and %+v was asked", <-got)
	}
}

// scan reads a value into the Go type that stands for it here.
func scan(t *testing.T, types *pgtype.Map, oid uint32, raw []byte) any {
	t.Helper()
	into := map[uint32]any{pgtype.Int8OID: new(int64), pgtype.Int2OID: new(int16), pgtype.TextOID: new(string), pgtype.UUIDOID: new([16]byte),
		pgtype.Int8ArrayOID: new([]int64), pgtype.Int2ArrayOID: new([]int16), pgtype.UUIDArrayOID: new([][16]byte)}[oid]
	if err := types.Scan(oid, pgtype.BinaryFormatCode, raw, into); err != nil {
		t.Errorf("a value of type %d: %v", oid, err)
	}
	return reflect.ValueOf(into).Elem().Interface()
}

// Goal: a request that the socket does not take at once goes out in pieces, and
// whole. Method: a batch larger than any socket's buffer, to a server that reads
// only once the client had to stop.
func TestPostgresTakesABigBatchInPieces(t *testing.T) {
	const rows = 200_000
	read, people := make(chan struct{}), make(chan int, 1)
	f := startFake(t, func(s *pgSession) {
		if s.kind == "result" {
			s.done()
			_ = s.Flush()
			<-read
			return
		}
		people <- len(s.args[1])
		s.done()
	})
	pg := target(t, 1, f)
	do(t, pg, &drive.Op{Kind: drive.Report, Results: []drive.Result{{Tube: 1}}})
	op := &drive.Op{Kind: drive.RegisterBatch, Samples: make([]drive.Sample, rows)}
	pg.Start(op)
	left := len(pg.conns[0].out)
	close(read)
	if left == 0 {
		t.Error("the socket took everything at once: nothing was tested")
	}
	poll(t, pg, 1, func(*drive.Op) {})
	wants(t, op, drive.OK, "", true)
	if n := <-people; n != 20+rows*20 { // a head, and a length before each
		t.Errorf("the server read %d bytes of people, want %d rows", n, rows)
	}
}

// Goal: an operation of which the server says anything but that it is done is
// unknown; and only what it leaves unusable costs the connection.
func TestWhatPostgresDoesNotAcknowledgeIsUnknown(t *testing.T) {
	fault := &pgproto3.ErrorResponse{Severity: "ERROR", Code: "40001", Message: "no"}
	for _, c := range []struct {
		name   string
		answer func(*pgSession)
		opened uint32 // connections in all, once something has been done again
	}{
		{"an error", func(s *pgSession) { s.Send(fault); _ = s.ready() }, 1},
		{"an error at the commit", func(s *pgSession) {
			s.Send(&pgproto3.BindComplete{})
			s.Send(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
			s.Send(fault)
			_ = s.ready()
		}, 1},
		{"an error and no more", func(s *pgSession) { s.Send(fault); s.hangUp() }, 2},
		{"half a message", func(s *pgSession) { _, _ = s.conn.Write([]byte("2\x00\x00")); s.hangUp() }, 2},
		{"done, not committed", func(s *pgSession) {
			s.Send(&pgproto3.BindComplete{})
			s.Send(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
			s.hangUp()
		}, 2},
		{"ready, not done", func(s *pgSession) { s.Send(&pgproto3.BindComplete{}); _ = s.ready() }, 2},
		{"something else", func(s *pgSession) { s.Send(&pgproto3.CopyInResponse{}); _ = s.Flush() }, 2},
		{"no protocol", func(s *pgSession) { _, _ = s.conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) }, 2},
		{"a row of something else", func(s *pgSession) { s.done([][]byte{int4(1)}) }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer leaktest.None(t)
			first := true
			f := startFake(t, func(s *pgSession) {
				if first {
					first = false
					c.answer(s)
					return
				}
				s.done()
			})
			defer f.Close()
			pg := target(t, 1, f)
			defer pg.Close()
			op, next := register(1), register(2)
			do(t, pg, op)
			wants(t, op, drive.Unknown, "error", true)
			do(t, pg, next)
			wants(t, next, drive.OK, "", true)
			if n := f.opened.Load(); n != c.opened {
				t.Errorf("%d connections were opened, want %d", n, c.opened)
			}
		})
	}
}

// Goal: what a server says behind an answer disturbs no other operation, and a
// connection that it ends there is not used for the next one. Method: one lane,
// and an operation that waits for it.
func TestPostgresMayTalkAndHangUpBehindAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		behind func(*pgSession)
		opened uint32 // connections in all
	}{
		{"a warning and a setting", func(s *pgSession) {
			s.Send(&pgproto3.NoticeResponse{Severity: "WARNING", Message: "mind"})
			s.Send(&pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"})
		}, 1},
		{"ready once more", func(s *pgSession) { s.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'}) }, 2},
		{"that it ends", func(s *pgSession) {
			s.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "terminated"})
		}, 2},
		{"nothing any more", func(s *pgSession) { s.hangUp() }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer leaktest.None(t)
			f := startFake(t, func(s *pgSession) {
				s.done()
				if s.pid == 1 && s.tube() == 1 {
					c.behind(s)
				}
			})
			defer f.Close()
			pg := target(t, 1, f)
			defer pg.Close()
			op, next := register(1), register(2)
			pg.Start(op)
			pg.Start(next)
			if c.name == "nothing any more" {
				<-f.left // answer and end come at once
			}
			poll(t, pg, 2, func(*drive.Op) {})
			wants(t, op, drive.OK, "", true)
			wants(t, next, drive.OK, "", true)
			if n := f.opened.Load(); n != c.opened {
				t.Errorf("%d connections were opened, want %d", n, c.opened)
			}
		})
	}
}

// Goal: a server that does not answer in time leaves the outcome unknown, is
// asked to stop, and is given a connection in place of the one that is stuck.
// Method: the deadline is moved to now.
func TestAStalledPostgresTimesOut(t *testing.T) {
	defer leaktest.None(t)
	got := make(chan uint32, 1)
	f := startFake(t, func(s *pgSession) {
		if s.pid > 1 {
			s.done()
			return
		}
		got <- s.pid
	})
	defer f.Close()
	pg := target(t, 1, f)
	defer pg.Close()
	op := register(1)
	pg.Start(op)
	until(t, pg, "the operation at the server", func() bool { return len(got) == 1 })
	pg.lanes[0].deadline, pg.sweep = 0, 0
	next := register(2)
	pg.Start(next) // waits for the only lane
	poll(t, pg, 2, func(*drive.Op) {})
	wants(t, op, drive.Unknown, "timeout", true)
	wants(t, next, drive.OK, "", true)
	until(t, pg, "to be asked to stop", func() bool { return len(f.asked()) > 0 })
	if a := f.asked(); len(a) != 1 || a[0] != <-got {
		t.Errorf("processes %d were asked to stop, want the one that was stuck", a)
	}
	if n := f.opened.Load(); n != 2 {
		t.Errorf("%d connections were opened, want 2", n)
	}
}

// Goal: what cannot be sent because no connection can be had was not sent.
func TestAPostgresThatIsGoneWasSentNothing(t *testing.T) {
	defer leaktest.None(t)
	f := startFake(t, func(s *pgSession) { s.done() })
	pg := target(t, 2, f)
	defer pg.Close()
	f.Close()
	until(t, pg, "the connections' end", func() bool { return pg.conns[0].link == nil && pg.conns[1].link == nil })
	for range 3 {
		op := register(1)
		do(t, pg, op)
		wants(t, op, drive.NotSent, "not_sent", false)
	}
	if _, err := openPostgres(pg.configs, 1, time.Minute); err == nil {
		t.Error("a target was opened where nobody listens")
	}
}

// Goal: operations wait in order, one is in flight for each lane, too many are
// dropped, and Close reports each one once, as what it was.
func TestPostgresWaitsInOrderAndClosesWhole(t *testing.T) {
	defer leaktest.None(t)
	const answered, n, lanes = 1000, queue + 1000 + 100, 2
	type came struct {
		pid  uint32
		tube uint64
	}
	tubes := make(chan came, n)
	f := startFake(t, func(s *pgSession) {
		tube := s.tube()
		tubes <- came{s.pid, tube}
		if tube < answered {
			s.done()
		}
	})
	defer f.Close()
	pg := target(t, lanes, f)
	defer pg.Close()
	seen := map[*drive.Op]int{}
	ops := make([]*drive.Op, n)
	for i := range ops {
		ops[i] = register(uint64(i))
	}
	for _, op := range ops[:answered] {
		pg.Start(op)
	}
	count := func(op *drive.Op) { seen[op]++ }
	poll(t, pg, answered, count)
	last := map[uint32]uint64{}
	for range answered {
		if c := <-tubes; c.tube < last[c.pid] {
			t.Errorf("tube %d came after %d", c.tube, last[c.pid])
		} else {
			last[c.pid] = c.tube
		}
	}
	for _, op := range ops[answered:] {
		pg.Start(op)
	}
	if err := pg.Poll(0, count); err != nil {
		t.Fatal(err)
	}
	if len(seen) != answered+100 {
		t.Errorf("%d were dropped, want 100", len(seen)-answered)
	}
	until(t, pg, "both lanes' operations at the server", func() bool { return len(tubes) == lanes })
	pg.done = count
	pg.Close()
	pg.Close()
	outcomes := map[drive.Outcome]int{}
	for op, times := range seen {
		if times != 1 {
			t.Fatalf("a %s was reported %d times", op.Kind, times)
		}
		outcomes[op.Outcome]++
	}
	want := map[drive.Outcome]int{drive.OK: answered, drive.Dropped: 100, drive.Unknown: lanes, drive.NotSent: queue - lanes}
	if !reflect.DeepEqual(outcomes, want) {
		t.Errorf("ended as %v, want %v", outcomes, want)
	}
	if len(tubes) != lanes {
		t.Errorf("%d came to the server while it answered nothing, want %d", len(tubes), lanes)
	}
}

// Goal: Close waits for no connection that is being opened, and what waited for
// it was not sent.
func TestCloseEndsTheOpeningOfPostgres(t *testing.T) {
	defer leaktest.None(t)
	f := startFake(t, func(s *pgSession) { s.hangUp() })
	defer f.Close()
	pg := target(t, 1, f)
	do(t, pg, register(1))
	f.silence()
	op, ended := register(2), 0
	pg.Start(op)
	until(t, pg, "a new connection", func() bool { return len(f.greeting) == 1 })
	pg.done = func(*drive.Op) { ended++ }
	pg.Close()
	wants(t, op, drive.NotSent, "not_sent", false)
	if ended != 1 {
		t.Errorf("reported %d times", ended)
	}
}
