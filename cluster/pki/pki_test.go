package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// province makes an authority and the files of two processes.
func province(t *testing.T) (a *Authority, dir string, server, client Files) {
	t.Helper()
	dir = t.TempDir()
	a, err := NewAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir, issue(t, a, dir, "unicom-nucleic-1"), issue(t, a, dir, "unicom-nucleic-2")
}

func issue(t *testing.T, a *Authority, dir, name string) Files {
	t.Helper()
	f, err := a.Issue(dir, name, "127.0.0.1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// link is a server that echoes for ever and tells why handshakes failed.
type link struct {
	addr   string
	faults chan error
}

func listen(t *testing.T, f Files) *link {
	t.Helper()
	cfg, err := Server(f)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	k := &link{l.Addr().String(), make(chan error, 16)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s := tls.Server(c, cfg)
				if err := s.Handshake(); err != nil {
					k.faults <- err
					return
				}
				_, _ = io.Copy(s, s)
			}()
		}
	}()
	return k
}

// ask dials with cfg and sends one line there and back.
func (k *link) ask(cfg *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d := tls.Dialer{Config: cfg}
	c, err := d.DialContext(ctx, "tcp", k.addr)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), echo(c)
}

func echo(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write([]byte("ping")); err != nil {
		return err
	}
	var got [4]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return err
	}
	if string(got[:]) != "ping" {
		return errors.New("the echo is not what was sent")
	}
	return nil
}

func client(t *testing.T, f Files, name string) *tls.Config {
	t.Helper()
	cfg, err := ClientOf(f, name)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func want(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one about %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Fatalf("error %q does not say %q", err, w)
		}
	}
}

func TestBothSidesProveTheirNames(t *testing.T) {
	_, _, s, c := province(t)
	k := listen(t, s)
	conn, err := k.ask(client(t, c, "unicom-nucleic-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cs := conn.ConnectionState()
	if PeerName(cs) != "unicom-nucleic-1" || cs.Version != tls.VersionTLS13 {
		t.Fatalf("peer %q, version %x", PeerName(cs), cs.Version)
	}
	for _, host := range []string{"127.0.0.1", "localhost", ""} {
		if conn, err := k.ask(client(t, c, host)); err != nil {
			t.Fatalf("host %q: %v", host, err)
		} else {
			conn.Close()
		}
	}
}

func TestAnotherNameOrAddressIsRefused(t *testing.T) {
	_, _, s, c := province(t)
	k := listen(t, s)
	_, err := k.ask(client(t, c, "unicom-nucleic-3"))
	want(t, err, `asked for "unicom-nucleic-3"`, `reached "unicom-nucleic-1"`)
	_, err = k.ask(client(t, c, "10.1.2.3"))
	want(t, err, `asked for "10.1.2.3"`)
	cfg := client(t, c, "")
	cfg.ServerName = "unicom-nucleic-3"
	_, err = k.ask(cfg)
	want(t, err, `asked for "unicom-nucleic-3"`)
}

func TestStrangersAreRefused(t *testing.T) {
	_, _, s, _ := province(t)
	_, _, _, stranger := province(t)
	k := listen(t, s)
	_, err := k.ask(client(t, stranger, "unicom-nucleic-1"))
	want(t, err, "authority we do not trust")
	<-k.faults // the client hung up

	blind := client(t, stranger, "")
	blind.VerifyConnection = nil // a client that trusts everyone still must prove itself
	_, err = k.ask(blind)
	want(t, err)
	want(t, <-k.faults, "authority we do not trust", `"unicom-nucleic-2"`)

	bare := &tls.Config{InsecureSkipVerify: true}
	_, err = k.ask(bare)
	want(t, err)
	<-k.faults
}

func TestTLS12IsRefused(t *testing.T) {
	_, _, s, c := province(t)
	cfg := client(t, c, "")
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	_, err := listen(t, s).ask(cfg)
	want(t, err, "protocol version")
}

func TestExpiredCertificateIsRefusedInWords(t *testing.T) {
	a, dir, s, _ := province(t)
	a.Life = time.Nanosecond
	old := issue(t, a, dir, "unicom-nucleic-9")

	// Shown by us: we say so ourselves.
	_, err := listen(t, s).ask(client(t, old, ""))
	want(t, err, "our own certificate", "unicom-nucleic-9", "ended")

	// Shown by a peer that does not look at its own.
	k := listen(t, s)
	cfg := client(t, old, "")
	pair, err := tls.LoadX509KeyPair(old.Cert, old.Key)
	if err != nil {
		t.Fatal(err)
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	_, err = k.ask(cfg)
	want(t, err)
	want(t, <-k.faults, `certificate of "unicom-nucleic-9" ended`, "issue a new one")
}

// A certificate rotated on disk serves the next handshake; connections that
// are up do not notice.
func TestRotatedCertificateIsTakenUp(t *testing.T) {
	a, dir, s, c := province(t)
	k := listen(t, s)
	cfg := client(t, c, "unicom-nucleic-1")
	live, err := k.ask(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	before := live.ConnectionState().PeerCertificates[0].SerialNumber
	issue(t, a, dir, "unicom-nucleic-1")
	issue(t, a, dir, "unicom-nucleic-2")
	next, err := k.ask(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if next.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(before) == 0 {
		t.Fatal("the old certificate is still served")
	}
	if err := echo(live); err != nil {
		t.Fatalf("rotation broke a live connection: %v", err)
	}
}

// The authority is rotated in steps, each under the same two configurations:
// at every step the pair can talk, and in the end the old authority is out.
func TestRotatedAuthorityIsTakenUp(t *testing.T) {
	a, dir, s, c := province(t)
	k := listen(t, s)
	cfg := client(t, c, "unicom-nucleic-1")
	step := func(what string) {
		t.Helper()
		conn, err := k.ask(cfg)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		conn.Close()
	}
	step("before")
	stale := issue(t, a, dir, "unicom-nucleic-3")
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	step("both trusted, old certificates")
	a, err := LoadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	issue(t, a, dir, "unicom-nucleic-1")
	step("server has the new one")
	issue(t, a, dir, "unicom-nucleic-2")
	step("both have the new one")
	if err := a.Retire(); err != nil {
		t.Fatal(err)
	}
	step("old authority retired")
	_, err = k.ask(client(t, stale, "unicom-nucleic-1"))
	want(t, err)
	want(t, <-k.faults, "authority we do not trust", `"unicom-nucleic-3"`)
}

// Whatever is on disk half-way through a rotation, the door stays open.
func TestHalfWrittenFilesAreIgnored(t *testing.T) {
	a, _, s, c := province(t)
	k := listen(t, s)
	cfg := client(t, c, "unicom-nucleic-1")
	broken := func(path string, content []byte) {
		t.Helper()
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		conn, err := k.ask(cfg)
		if err != nil {
			t.Fatalf("%s half-written: %v", filepath.Base(path), err)
		}
		conn.Close()
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	broken(s.CA, nil)
	broken(s.Cert, []byte("-----BEGIN CERTIFICATE-----\nAAAA"))
	other, err := a.Issue(t.TempDir(), "unicom-nucleic-1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(other.Key)
	if err != nil {
		t.Fatal(err)
	}
	broken(s.Key, key) // the new key is there, its certificate not yet
	if err := os.Remove(s.Key); err != nil {
		t.Fatal(err)
	}
	conn, err := k.ask(cfg)
	if err != nil {
		t.Fatalf("key missing: %v", err)
	}
	conn.Close()
}

func TestAuthorityIsNotReplacedByAccident(t *testing.T) {
	_, dir, _, _ := province(t)
	_, err := NewAuthority(dir)
	want(t, err, "already holds an authority")
}

func TestKeysAreForTheirOwnerAlone(t *testing.T) {
	a, dir, s, _ := province(t)
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.Key, filepath.Join(dir, authorityKey)} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(path), info.Mode().Perm())
		}
	}
}

func TestCrashBetweenTheTwoWritesOfRotate(t *testing.T) {
	a, dir, _, _ := province(t)
	key, err := os.ReadFile(filepath.Join(dir, authorityKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, authorityKey), key, 0o600); err != nil {
		t.Fatal(err)
	}
	a, err = LoadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, c := issue(t, a, dir, "unicom-nucleic-1"), issue(t, a, dir, "unicom-nucleic-2")
	conn, err := listen(t, s).ask(client(t, c, "unicom-nucleic-1"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestExpiry(t *testing.T) {
	_, _, s, _ := province(t)
	at, err := Expiry(s)
	if err != nil || time.Until(at) < processLife-time.Hour {
		t.Fatalf("ends %v, %v", at, err)
	}
}

func TestFaultsAreNamed(t *testing.T) {
	_, dir, s, _ := province(t)
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []Files{{junk, s.Cert, s.Key}, {s.CA, junk, s.Key}, {s.CA, s.Cert, junk}, {s.CA, s.Cert, filepath.Join(dir, "none")}} {
		_, err := Server(f)
		want(t, err, "pki")
		_, err = Client(f)
		want(t, err, "pki")
	}
	_, err := LoadAuthority(t.TempDir())
	want(t, err)
}

func BenchmarkHandshake(b *testing.B) {
	dir := b.TempDir()
	a, err := NewAuthority(dir)
	if err != nil {
		b.Fatal(err)
	}
	f, err := a.Issue(dir, "unicom-nucleic-1")
	if err != nil {
		b.Fatal(err)
	}
	sc, _ := Server(f)
	cc, _ := ClientOf(f, "unicom-nucleic-1")
	for b.Loop() {
		x, y := net.Pipe()
		s, c := tls.Server(x, sc), tls.Client(y, cc)
		done := make(chan error, 1)
		go func() { done <- s.Handshake() }()
		if err := errors.Join(c.Handshake(), <-done); err != nil {
			b.Fatal(err)
		}
		x.Close()
		y.Close()
	}
}
