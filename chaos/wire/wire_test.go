package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// shaped runs n packets through a shape at one instant.
func shaped(r *Rule, n int) (out []parcel, h Harm) {
	at := time.Unix(1_700_000_000, 0)
	s := newShape("unicom", func() time.Time { return at })
	s.set(r)
	for i := range n {
		out = append(out, s.pass(fmt.Appendf(nil, "packet %06d", i))...)
	}
	return out, s.counts()
}

// TestHarmIsWhatWasAsked: each kind of harm befalls about its share of packets,
// by the seed, and no packet is harmed otherwise.
func TestHarmIsWhatWasAsked(t *testing.T) {
	const n = 20_000
	about := func(what string, got int64, share float64) {
		t.Helper()
		if want := share * n; float64(got) < want*.9 || float64(got) > want*1.1 {
			t.Errorf("%s: %d of %d, want about %.0f", what, got, n, want)
		}
	}
	out, h := shaped(&Rule{Loss: .1, Duplicate: .05, Corrupt: .02, Seed: 7}, n)
	about("lost", h.Lost, .1)
	about("duplicated", h.Duplicated, .9*.05)
	about("corrupted", h.Corrupted, .9*.02)
	if int64(len(out)) != n-h.Lost+h.Duplicated {
		t.Errorf("%d packets came of %d, %+v", len(out), n, h)
	}
	wrong := int64(0)
	for _, p := range out {
		var i int
		if _, err := fmt.Sscanf(string(p.packet), "packet %06d", &i); err != nil || !bytes.Equal(p.packet, fmt.Appendf(nil, "packet %06d", i)) || i >= n {
			wrong++
		}
	}
	if wrong > h.Corrupted { // a digit turned into another digit reads as another packet
		t.Errorf("%d packets are damaged, %d were counted", wrong, h.Corrupted)
	}
	again, _ := shaped(&Rule{Loss: .1, Duplicate: .05, Corrupt: .02, Seed: 7}, n)
	if !slices.EqualFunc(out, again, func(a, b parcel) bool { return a.at.Equal(b.at) && bytes.Equal(a.packet, b.packet) }) {
		t.Error("the same seed did other harm")
	}
	_, h = shaped(&Rule{Delay: time.Second, Reorder: .25}, n)
	about("reordered", h.Reordered, .25)
	about("delayed", h.Delayed, .75)
	if out, h := shaped(nil, n); len(out) != n || h.Lost+h.Duplicated+h.Corrupted+h.Reordered+h.Delayed != 0 {
		t.Errorf("without a rule: %d packets, %+v", len(out), h)
	}
}

func TestTimesOfPackets(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	out, _ := shaped(&Rule{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond}, 1000)
	for _, p := range out {
		if d := p.at.Sub(start); d < 30*time.Millisecond || d > 70*time.Millisecond {
			t.Fatalf("a packet is late by %s", d)
		}
	}
	out, _ = shaped(&Rule{BytesRate: 13_000}, 100) // packets of 13 bytes: one each millisecond
	if last := out[99].at.Sub(start); last != 100*time.Millisecond {
		t.Errorf("100 packets of 13 bytes took %s at 13,000 bytes a second", last)
	}
}

// pipe is one end of a device in memory; a write never waits.
type pipe struct {
	in  chan []byte
	out chan []byte
	end chan struct{}
}

func (p *pipe) Read(b []byte) (int, error) {
	select {
	case x := <-p.in:
		return copy(b, x), nil
	case <-p.end:
		return 0, io.EOF
	}
}
func (p *pipe) Write(b []byte) (int, error) { p.out <- b; return len(b), nil }
func (p *pipe) Close() error                { close(p.end); return nil }

func newPipe() *pipe {
	return &pipe{make(chan []byte), make(chan []byte, 2*waitMax), make(chan struct{})}
}

// TestOwnLineOverItsControl: a rule is set, seen, bears a lease, and is
// removed; a second rule on the same way is refused, because the removal of
// one would remove the other.
func TestOwnLineOverItsControl(t *testing.T) {
	a, b := newPipe(), newPipe()
	cfg := Plan(1, [2]string{"unicom", "mobile"}, "", "")
	c := Carry(cfg, a, b)
	defer c.Close()
	s := httptest.NewServer(c.Handler())
	defer s.Close()
	cfg.Kind, cfg.HTTP = Own, strings.TrimPrefix(s.URL, "http://")
	line, ctx := cfg.Open(), t.Context()
	rule := Rule{ID: "drill-1", From: "unicom", Loss: 1}
	if err := line.Set(ctx, rule, time.Hour); err != nil {
		t.Fatal(err)
	}
	if rules, err := line.Rules(ctx); err != nil || len(rules) != 1 || rules[0].ID != "drill-1" || rules[0].Until.IsZero() {
		t.Fatalf("rules %+v, %v", rules, err)
	}
	for what, bad := range map[string]Rule{
		"a second on the way": {ID: "drill-2", From: "unicom", Loss: .5}, "nobody": {ID: "x", From: "moon", Loss: 1},
		"no harm": {ID: "x", From: "mobile"}, "a share over 1": {ID: "x", From: "mobile", Loss: 2}, "overtaking nothing": {ID: "x", From: "mobile", Reorder: .5},
	} {
		if err := line.Set(ctx, bad, time.Hour); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
	a.in <- []byte("lost")
	for c.Harm()[0].Lost == 0 { // the packet has met the rule
		time.Sleep(time.Millisecond)
	}
	b.in <- []byte("the other way")
	if got := <-a.out; string(got) != "the other way" {
		t.Errorf("came %q", got)
	}
	if err := line.Remove(ctx, rule); err != nil {
		t.Fatal(err)
	}
	a.in <- []byte("passes")
	if got := <-b.out; string(got) != "passes" {
		t.Errorf("came %q", got)
	}
	if rules, err := line.Rules(ctx); err != nil || len(rules) != 0 {
		t.Errorf("rules %+v, %v", rules, err)
	}
	if h := c.Harm()[0]; h.Lost != 1 || h.Packets != 2 {
		t.Errorf("harm %+v", h)
	}
}

// TestALeaseRunsOut: a rule nobody removes is gone by itself.
func TestALeaseRunsOut(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	s := newShape("unicom", func() time.Time { return at })
	s.set(&Rule{ID: "x", Loss: 1, Until: at.Add(time.Second)})
	if got := s.pass([]byte("x")); got != nil {
		t.Error("a packet came although all are lost")
	}
	at = at.Add(2 * time.Second)
	if s.now() != nil || len(s.pass([]byte("x"))) != 1 {
		t.Error("the rule is in force after its lease")
	}
}

// TestAFullLineLoses: what waits is bounded; more is lost, and counted.
func TestAFullLineLoses(t *testing.T) {
	s := newShape("unicom", time.Now)
	s.set(&Rule{ID: "x", Delay: time.Hour})
	w := newWay(s, nil, nil)
	for range waitMax + 10 {
		for _, p := range s.pass([]byte("x")) {
			w.put(p)
		}
	}
	if n, h := len(w.queue.list), s.counts(); n != waitMax || h.Overflowed != 10 {
		t.Errorf("%d wait, %d overflowed", n, h.Overflowed)
	}
}

// TestWhatTheKernelIsTold: a rule as tc reads it, and what tc shows as we read
// it. The answers are tc's own.
func TestWhatTheKernelIsTold(t *testing.T) {
	for want, r := range map[string]Rule{
		"netem limit 4096 loss 5%":                               {Loss: .05},
		"netem limit 4096 delay 20000us reorder 25%":             {Reorder: .25, Delay: 20 * time.Millisecond},
		"netem limit 4096 duplicate 1% corrupt 0.5%":             {Duplicate: .01, Corrupt: .005},
		"netem limit 4096 delay 100000us 30000us rate 8000bit":   {Delay: 100 * time.Millisecond, Jitter: 30 * time.Millisecond, BytesRate: 1000},
		"tbf rate 800000bit burst 16kb latency 400ms":            {BytesRate: 100_000},
		"netem limit 4096 delay 1500us loss 100% duplicate 100%": {Delay: 1500 * time.Microsecond, Loss: 1, Duplicate: 1},
	} {
		if got := strings.Join(discipline(r), " "); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	for raw, want := range map[string]bool{
		`[{"kind":"noqueue","handle":"0:","root":true,"refcnt":2,"options":{}}]`: false,
		`[]`: false,
		`[{"kind":"netem","handle":"7717:","root":true,"refcnt":2,"options":{"limit":4096,"loss-random":{"loss":0.05,"correlation":0},"gap":0}}]`:   true,
		`[{"kind":"netem","handle":"8001:","root":true,"options":{"limit":1000}}]`:                                                                  true,
		`[{"kind":"tbf","handle":"7717:","root":true,"refcnt":2,"options":{"rate":100000,"burst":16384,"lat":400000}}]`:                             true,
		`[{"kind":"fq_codel","handle":"0:","root":true,"refcnt":2,"options":{"limit":10240,"flows":1024,"quantum":1514,"target":4999,"ecn":true}}]`: false,
	} {
		if got, err := harms([]byte(raw)); err != nil || got != want {
			t.Errorf("%s: %v, %v", raw, got, err)
		}
	}
	if _, err := harms([]byte("no qdisc")); err == nil {
		t.Error("an answer that cannot be read counts as no harm")
	}
}

// spaces makes a real pair of namespaces. A machine that cannot have them says
// why; the build server has to.
func spaces(t *testing.T, kind string) *Config {
	t.Helper()
	if err := Able(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx := context.Background()
	for n := 250; n > 240; n-- { // provinces begin from the other end
		c := Plan(n, [2]string{"unicom", "mobile"}, t.TempDir(), "")
		if spaceThere(c.Ends[0].NetNS) {
			continue
		}
		if err := c.Make(ctx); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Remove(ctx); err != nil {
				t.Error(err)
			}
			if spaceThere(c.Ends[0].NetNS) || spaceThere(c.Ends[1].NetNS) || ip(ctx, "link show dev "+c.Ends[0].Door) == nil {
				t.Error("namespaces or doors are left behind")
			}
		})
		if c.Kind == Own && kind == Kernel { // the kernel cannot harm packets; its line can still be narrowed
			c.Kind = Kernel
			if err := c.veth(ctx); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	t.Fatal("no pair of namespaces is free")
	return nil
}

// exchange sends bytes from one carrier's namespace to the other's over TCP and
// returns how long that took. Both ends are this test, started again inside.
func exchange(t *testing.T, c *Config) time.Duration {
	t.Helper()
	inside := func(ns, role, addr string) *exec.Cmd {
		cmd := exec.Command("ip", "netns", "exec", ns, os.Args[0], "-test.run=^TestInside$")
		cmd.Env = append(os.Environ(), "WIRE_ROLE="+role, "WIRE_ADDR="+addr)
		return cmd
	}
	addr := net.JoinHostPort(c.Ends[1].Addr, "7000")
	server := inside(c.Ends[1].NetNS, "serve", addr)
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	if _, err := io.ReadFull(out, make([]byte, len("listening"))); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if raw, err := inside(c.Ends[0].NetNS, "ask", addr).CombinedOutput(); err != nil || !bytes.Contains(raw, []byte("echoed")) {
		t.Fatalf("%v: %s", err, raw)
	}
	return time.Since(begun)
}

// TestInside is the other end of exchange.
func TestInside(t *testing.T) {
	addr := os.Getenv("WIRE_ADDR")
	sent := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	switch os.Getenv("WIRE_ROLE") {
	case "serve":
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Print("listening")
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.CopyN(conn, conn, int64(len(sent)))
		_, _ = io.Copy(io.Discard, conn)
	case "ask":
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write(sent) }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("came back otherwise: %v", err)
		}
		fmt.Print("echoed")
	default:
		t.Skip("only inside a namespace")
	}
}

// TestRealNamespaces: two namespaces reach one another over our own line, TCP
// bears every harm to packets, the harm is counted, and Make keeps what is
// whole.
func TestRealNamespaces(t *testing.T) {
	c := spaces(t, Own)
	a, b, err := c.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	carrier := Carry(c, a, b)
	defer carrier.Close()
	if err := c.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	exchange(t, c)
	for _, h := range carrier.Harm() {
		if h.Packets == 0 || h.Lost+h.Duplicated+h.Corrupted+h.Reordered+h.Delayed+h.Overflowed > 0 {
			t.Errorf("a whole line did harm: %+v", h)
		}
	}
	harmful := Rule{ID: "all", From: "unicom", Loss: .05, Duplicate: .2, Corrupt: .05, Reorder: .2, Delay: 5 * time.Millisecond, Jitter: 2 * time.Millisecond, Seed: 1}
	if err := carrier.Set(harmful); err != nil {
		t.Fatal(err)
	}
	done := func(h Harm) bool {
		return h.Lost > 0 && h.Duplicated > 0 && h.Corrupted > 0 && h.Reordered > 0 && h.Delayed > 0
	}
	for n := 0; n == 0 || n < 10 && !done(carrier.Harm()[0]); n++ { // how many packets an exchange takes is TCP's business
		exchange(t, c)
	}
	if h := carrier.Harm()[0]; !done(h) {
		t.Errorf("not every harm was done: %+v", h)
	}
}

// TestTheKernelsLine: a qdisc is put on the line, shown by tc, and gone when it
// is removed; the line is narrow meanwhile.
func TestTheKernelsLine(t *testing.T) {
	c := spaces(t, Kernel)
	line, ctx := c.Open(), t.Context()
	exchange(t, c)
	rule := Rule{ID: "x", From: "unicom", BytesRate: 64 << 10}
	if err := line.Set(ctx, rule, time.Hour); err != nil {
		t.Fatal(err)
	}
	if rules, err := line.Rules(ctx); err != nil || len(rules) != 1 || rules[0].From != "unicom" {
		t.Errorf("rules %+v, %v", rules, err)
	}
	if err := line.Set(ctx, rule, time.Hour); err == nil {
		t.Error("a second rule on the way was accepted")
	}
	if took := exchange(t, c); took < 300*time.Millisecond {
		t.Errorf("64 KiB passed a line of 64 KiB a second in %s", took)
	}
	for range 2 {
		if err := line.Remove(ctx, rule); err != nil {
			t.Fatal(err)
		}
	}
	if rules, err := line.Rules(ctx); err != nil || len(rules) != 0 {
		t.Errorf("rules %+v, %v", rules, err)
	}
}

// TestTwoMayTakeAwayTheSame: who comes second finds it gone, and that is no
// fault; what is still there after a failure is one.
func TestTwoMayTakeAwayTheSame(t *testing.T) {
	refused := errors.New("no such file")
	for name, c := range map[string]struct {
		there []bool // what is seen before and after
		took  error
		want  error
	}{
		"gone before": {[]bool{false}, nil, nil}, "taken": {[]bool{true}, nil, nil},
		"another was quicker": {[]bool{true, false}, refused, nil}, "it stays": {[]bool{true, true}, refused, refused},
	} {
		seen := c.there
		there := func() bool { now := seen[0]; seen = seen[1:]; return now }
		if err := away(there, func() error { return c.took }); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
