//go:build unix

package plain

import "syscall"

const supported = true

// gone reports whether the other side of a socket has ended it.
func gone(socket syscall.RawConn) bool {
	ended := false
	err := socket.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch err {
		case nil:
			ended = n == 0
		case syscall.EAGAIN, syscall.EINTR:
		default:
			ended = true
		}
	})
	return ended || err != nil
}
