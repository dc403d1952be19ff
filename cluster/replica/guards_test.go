package replica

import (
	"context"
	"net"
	"reflect"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"

	"qianma/cluster/machine"
	"qianma/cluster/raftlog"
)

// Goal (hashicorp/raft#695): heartbeats go through raft's main loop like every
// other message, and pre-vote stays on.
// Method: offer the transport a heartbeat handler, as raft does, and see where
// a heartbeat arrives.
func TestGuardHeartbeatsThroughMainLoop(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDoor(l)
	defer d.close()
	dialer := dialFunc(func(ctx context.Context, name, group string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
	lay := newLayer(d, serverID("a", "1"), dialer, func(life string) string { return life })
	tr := newTransport(lay, time.Minute, newQuietLog(newWorld(t).log))
	defer tr.Close()
	var _ raft.Transport = tr
	if _, ok := any(tr).(raft.WithPreVote); !ok {
		t.Fatal("raft would turn pre-vote off")
	}
	var direct atomic.Bool
	raft.Transport(tr).SetHeartbeatHandler(func(rpc raft.RPC) {
		direct.Store(true)
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	main := make(chan struct{})
	go func() {
		defer close(main)
		select {
		case rpc := <-tr.Consumer():
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		case <-time.After(time.Minute):
		}
	}()
	beat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("b/1")}, Term: 1}
	var resp raft.AppendEntriesResponse
	if err := tr.AppendEntries("a/1", "a/1", beat, &resp); err != nil {
		t.Fatal(err)
	}
	if direct.Load() || !resp.Success {
		t.Fatal("a heartbeat was handled outside the main loop")
	}
	<-main
}

type dialFunc func(ctx context.Context, name, group string) (net.Conn, error)

func (f dialFunc) Group(ctx context.Context, name, group string) (net.Conn, error) {
	return f(ctx, name, group)
}

// Goal (hashicorp/raft#696): a leader that is stuck in "leadership transfer in
// progress" is restarted, and writes go on.
// Method: set the flag that an interrupted transfer leaves behind.
func TestGuardStuckTransfer(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	lead := w.leader()
	lead.put(t, toyCommand(1, "before"))
	flag := reflect.ValueOf(raftOf(lead)).Elem().FieldByName("leaderState").FieldByName("leadershipTransferInProgress")
	atomic.StoreInt32((*int32)(unsafe.Pointer(flag.UnsafeAddr())), 1)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if _, err := lead.Propose(ctx, 0, machine.Proposal{Key: newKey(), Commands: [][]byte{toyCommand(2, "after")}}); err != nil {
		t.Fatalf("the leader stayed stuck: %v", err)
	}
	w.equal()
}

// snapshotNow makes the leader cut its log right behind a snapshot.
func snapshotNow(t *testing.T, n *node) {
	t.Helper()
	ra := raftOf(n)
	conf := ra.ReloadableConfig()
	conf.TrailingLogs = 1
	if err := ra.ReloadConfig(conf); err != nil {
		t.Fatal(err)
	}
	var err error
	until(t, "a snapshot", func() bool { // a member that lags has to apply the configuration first
		if err = ra.Snapshot().Error(); err != nil {
			pause(t.Context(), 50*time.Millisecond)
		}
		return err == nil
	})
}

// Goal (hashicorp/raft#697): a follower whose log has a tail that contradicts
// the snapshot it is sent catches up, instead of being sent it for ever.
// Method: give a stopped follower such a tail, cut the others' logs behind a
// snapshot in the middle of it, and let it come back.
func TestGuardStaleTail(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	for i := range 20 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	w.equal()
	out := w.follower()
	out.shut()
	store, err := raftlog.Open(raftlog.Config{Dir: "data/" + out.name + "/log", FS: w.disks[out.name], Logger: w.log})
	if err != nil {
		t.Fatal(err)
	}
	logs, err := store.Group(0)
	if err != nil {
		t.Fatal(err)
	}
	last, _ := logs.LastIndex()
	var at raft.Log
	if err := logs.GetLog(last, &at); err != nil {
		t.Fatal(err)
	}
	for i := last + 1; i <= last+500; i++ { // never committed: nobody else has it
		if err := logs.StoreLog(&raft.Log{Index: i, Term: at.Term, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	lead := w.leader() // a new term, so that entries at the same indexes differ
	lead.shut()
	w.start(lead.name)
	for i := range 40 {
		w.leader().put(t, toyCommand(uint64(i), "y"))
	}
	w.equal() // so that each cuts its log behind the stale tail's beginning
	for _, n := range w.up() {
		snapshotNow(t, n)
	}
	w.leader().put(t, toyCommand(99, "z"))
	back := w.start(out.name)
	want := w.leader().group0().applied()
	until(t, "the follower to catch up", func() bool { return back.group0().applied() >= want })
	w.leader().put(t, toyCommand(100, "z"))
	w.equal()
	if first, _ := back.group0().logs.FirstIndex(); first <= last {
		t.Fatalf("the stale tail is still in the log, from %d", first)
	}
}

// Goal: a snapshot taken when nothing but an election has happened since the last
// command is a snapshot of the state, and the replica that has it comes back as
// itself. A barrier of raft's own would be the last entry then, which the state
// never sees: both replicas that had it were set aside after the death of a
// carrier (drill random-mix, seed 7). Method: a leader is lost, a snapshot is
// taken behind the election, and each of those who have it is started again.
func TestASnapshotBehindAnElectionIsOfTheState(t *testing.T) {
	w := three(t, nil)
	for i := range 20 {
		w.leader().put(t, toyCommand(uint64(i), "x"))
	}
	w.equal()
	first := w.leader()
	first.shut()
	rest := w.besides(first)
	w.leaderOf(rest...)
	for _, name := range rest {
		n := w.node(name)
		life := n.life
		snapshotNow(t, n)
		n.shut()
		if back := w.start(name); back.life != life {
			t.Errorf("%s came back as another: its state was called damaged", name)
		}
		w.leaderOf(rest...)
	}
	w.start(first.name)
	w.equal()
}
