// Package topologytest finds places for a test's processes to listen.
package topologytest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The ports lie below those that outgoing connections take, and below those in
// which provinces look for a block (services/qianma/internal/province), so that
// what runs beside the test does not take them before the test does. Each test
// binary has a band of its own: an address is free for a moment whenever its
// process is restarted, and a test of another package must not find it then.
const (
	firstPort = 2000
	bands     = 40
	perBand   = 200
)

var ports struct {
	sync.Mutex
	band int      // plus one; 0: none yet
	lock *os.File // held for as long as this binary runs
	next int      // each port of the band in turn, so that parallel tests keep apart
}

// Addrs returns n addresses of this machine that nobody listens on.
func Addrs(t testing.TB, n int) []string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.band == 0 {
		takeBand(t)
	}
	var addrs []string
	for range perBand {
		if len(addrs) == n {
			return addrs
		}
		ports.next = (ports.next + 1) % perBand
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+(ports.band-1)*perBand+ports.next))
		if err != nil {
			continue
		}
		defer l.Close() // only now, so that no address is found twice
		addrs = append(addrs, l.Addr().String())
	}
	t.Fatalf("found %d free ports of %d", len(addrs), n)
	return nil
}

// takeBand locks the first band that no other test binary has.
func takeBand(t testing.TB) {
	t.Helper()
	for i := range bands {
		f, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf("qianma-test-ports-%d", i)), os.O_CREATE|os.O_RDWR, 0o666)
		if err != nil {
			continue // another user's
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			ports.band, ports.lock = i+1, f
			return
		}
		f.Close()
	}
	t.Fatalf("all %d bands of ports are taken by other test binaries", bands)
}
