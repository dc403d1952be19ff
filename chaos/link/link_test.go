package link

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"qianma/cluster/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// town is one process per carrier, each with a server that echoes lines, and
// links between them.
type town struct {
	*testing.T
	*Proxy
}

const (
	ipUnicom = "127.7.1.1"
	ipMobile = "127.7.2.1"
)

func build(t *testing.T) *town {
	t.Helper()
	cfg := Config{
		Callers: map[string]string{ipUnicom: "unicom-nucleic-1", ipMobile: "mobile-nucleic-1"},
		Ends:    map[string]End{"unicom-nucleic-1": {"unicom", "nucleic"}, "mobile-nucleic-1": {"mobile", "nucleic"}},
	}
	for name := range cfg.Ends {
		cfg.Links = append(cfg.Links, Link{To: name, Kind: "node", Listen: "127.0.0.1:0", Target: echo(t)})
	}
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); p.Close() })
	return &town{t, p}
}

func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// dial connects as the process with that address to the other's link.
func (w *town) dial(ip, to string) net.Conn {
	w.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", w.Addr(to, "node"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

func say(t *testing.T, c net.Conn, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// hears reports whether the line comes back within the time.
func hears(c net.Conn, line string, within time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(within))
	got, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && got != line+"\n" {
		return errors.New("heard " + got)
	}
	return err
}

const (
	long  = time.Minute // for what must happen
	short = 60 * time.Millisecond
)

func (w *town) set(r Rule) {
	w.Helper()
	if err := w.Set(r); err != nil {
		w.Fatal(err)
	}
}

var both = Rule{ID: "cut", From: Selector{Carrier: "unicom"}, To: Selector{Carrier: "mobile"}, Both: true, Cut: true}

func TestACutHoldsBytesAndHealingLetsThemGo(t *testing.T) {
	w := build(t)
	c := w.dial(ipUnicom, "mobile-nucleic-1")
	say(t, c, "before")
	if err := hears(c, "before", long); err != nil {
		t.Fatal(err)
	}
	w.set(both)
	say(t, c, "during")
	if err := hears(c, "during", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("over a cut line: %v", err)
	}
	fresh := w.dial(ipMobile, "unicom-nucleic-1")
	say(t, fresh, "new")
	if err := hears(fresh, "new", short); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("new connection over a cut line: %v", err)
	}
	w.Remove("cut")
	if err := hears(c, "during", long); err != nil {
		t.Errorf("after healing: %v", err)
	}
	if err := hears(fresh, "new", long); err != nil {
		t.Errorf("new connection after healing: %v", err)
	}
}

func TestOneWayIsOneWay(t *testing.T) {
	w := build(t)
	out, back := w.dial(ipUnicom, "mobile-nucleic-1"), w.dial(ipMobile, "unicom-nucleic-1")
	for _, c := range []net.Conn{out, back} {
		say(t, c, "hello")
		if err := hears(c, "hello", long); err != nil {
			t.Fatal(err)
		}
	}
	server := w.Traffic()
	one := both
	one.Both = false // what unicom says is lost, whoever dialled
	w.set(one)
	say(t, out, "asked")
	say(t, back, "asked")
	for _, c := range []net.Conn{out, back} {
		if err := hears(c, "asked", short); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("heard although unicom cannot speak: %v", err)
		}
	}
	// mobile's question reaches unicom: only the answer is lost.
	passed := func(i int) int64 { return w.Traffic()[i].Bytes - server[i].Bytes }
	for i, l := range server {
		if l.To == "mobile-nucleic-1" {
			if n := passed(i); n != 0 {
				t.Errorf("%d bytes passed from unicom to mobile", n)
			}
			continue
		}
		deadline := time.Now().Add(long)
		for passed(i) != int64(len("asked\n")) {
			if time.Now().After(deadline) {
				t.Fatalf("%d bytes passed from mobile to unicom", passed(i))
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestALeaseEndsByItself(t *testing.T) {
	w := build(t)
	r := both
	r.Until = time.Now().Add(short)
	w.set(r)
	c := w.dial(ipUnicom, "mobile-nucleic-1")
	say(t, c, "patience")
	if err := hears(c, "patience", long); err != nil {
		t.Error(err)
	}
	if left := w.Rules(); len(left) != 0 {
		t.Errorf("rules left: %v", left)
	}
}

func TestRefuseAndReset(t *testing.T) {
	w := build(t)
	c := w.dial(ipUnicom, "mobile-nucleic-1")
	say(t, c, "hello")
	if err := hears(c, "hello", long); err != nil {
		t.Fatal(err)
	}
	w.set(Rule{ID: "storm", From: Selector{Name: "unicom-nucleic-1"}, Reset: true, Refuse: true})
	if err := hears(c, "", long); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("open connection: %v", err)
	}
	fresh, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ipUnicom)}}).Dial("tcp", w.Addr("mobile-nucleic-1", "node"))
	if err == nil { // the reset may come before the dial returns, or after
		defer fresh.Close()
		err = hears(fresh, "", long)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("new connection: %v", err)
	}
	other := w.dial(ipMobile, "unicom-nucleic-1")
	say(t, other, "bystander")
	if err := hears(other, "bystander", long); err != nil {
		t.Errorf("a bystander was hit: %v", err)
	}
}

// A delay makes the way longer, not narrower: many pieces are on it at once.
func TestDelayIsNoBottleneck(t *testing.T) {
	const delay = 300 * time.Millisecond
	w := build(t)
	w.set(Rule{ID: "far", From: Selector{Carrier: "unicom"}, To: Selector{Carrier: "mobile"}, Delay: delay})
	c := w.dial(ipUnicom, "mobile-nucleic-1")
	// One by one these pieces would take twice as long as is waited here.
	const pieces = 400
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(long))
	go func() { _, _ = c.Write(make([]byte, pieces*pieceSize)) }()
	if _, err := io.ReadFull(c, make([]byte, pieces*pieceSize)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < delay {
		t.Errorf("took %s: no delay", took)
	}
}

func TestHalfCloseIsCarried(t *testing.T) {
	w := build(t)
	c := w.dial(ipUnicom, "mobile-nucleic-1")
	say(t, c, "all I have")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(long))
	if got, err := io.ReadAll(c); err != nil || string(got) != "all I have\n" {
		t.Errorf("heard %q, %v", got, err)
	}
}

func TestControl(t *testing.T) {
	w := build(t)
	server := httptest.NewServer(w.Handler())
	defer server.Close()
	post := func(body string) int {
		res, err := http.Post(server.URL+"/rules", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if code := post(`{"id":"line","from":{"carrier":"unicom"},"to":{"carrier":"mobile"},"both":true,"cut":true,"for":"60s"}`); code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	if r := w.Rules(); len(r) != 1 || !r[0].Cut || r[0].Until.IsZero() {
		t.Errorf("rules %+v", r)
	}
	for _, bad := range []string{`{}`, `{"id":"x","loss":2}`, `{"id":"x","for":"soon"}`, `{"id":"x","cot":true}`} {
		if code := post(bad); code != http.StatusBadRequest {
			t.Errorf("%s: status %d", bad, code)
		}
	}
	req, _ := http.NewRequest(http.MethodDelete, server.URL+"/rules/line", nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if r := w.Rules(); len(r) != 0 {
		t.Errorf("rules after delete %+v", r)
	}
	http.DefaultClient.CloseIdleConnections()
}
