//go:build linux && !race

// The race detector learns from the calls of package syscall that what one side wrote
// before it sent comes before what the other does with it; these tell it nothing.

package plain

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// through is the shortest way to a connection's bytes.
func through(nc net.Conn, raw syscall.RawConn) io.ReadWriter {
	switch nc.(type) {
	case *net.TCPConn, Direct:
		return newSocket(raw)
	}
	return nc
}

// socket reads and writes a connection without telling the scheduler. A system call
// that may block gives the processor up, and wakes the runtime's watchdog when it
// sleeps; these never block, and of what a short request costs that was a tenth.
// Waiting is the runtime's, as for any connection.
//
// It is for one goroutine.
type socket struct {
	raw  syscall.RawConn
	p    []byte // what is left to read into, or to write
	n    int    // what the last call transferred
	err  error
	read func(fd uintptr) bool // made once, and not for each call
	send func(fd uintptr) bool
}

func newSocket(raw syscall.RawConn) *socket {
	s := &socket{raw: raw}
	s.read = func(fd uintptr) bool { return s.try(syscall.SYS_READ, fd) }
	s.send = func(fd uintptr) bool {
		for s.try(syscall.SYS_WRITE, fd) {
			if s.p = s.p[s.n:]; s.err != nil || len(s.p) == 0 {
				return true
			}
		}
		return false
	}
	return s
}

// try makes one call; false when it would have to wait.
func (s *socket) try(call, fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.p))), uintptr(len(s.p)))
		switch errno {
		case 0:
			s.n, s.err = int(n), nil
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.n, s.err = 0, errno
			return true
		}
	}
}

// Read waits for something to come: io.EOF behind the last of it.
func (s *socket) Read(p []byte) (int, error) {
	s.p = p
	err := s.raw.Read(s.read)
	switch {
	case err != nil:
		return 0, err
	case s.err == nil && s.n == 0:
		return 0, io.EOF
	}
	return s.n, s.err
}

// Write writes all of p.
func (s *socket) Write(p []byte) (int, error) {
	s.p = p
	if err := s.raw.Write(s.send); err != nil {
		return 0, err
	}
	return len(p) - len(s.p), s.err
}
