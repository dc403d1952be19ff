package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// SocketName is the file of the socket inside a data directory.
const SocketName = "control.sock"

// maxPath is how long a unix socket's path may be on Linux.
const maxPath = 107

// within calls fn with a short path that leads to the file. Data directories
// may lie deeper than a socket address can spell, so a long one is entered
// through /proc/self/fd.
func within(path string, fn func(path string) error) error {
	if len(path) <= maxPath {
		return fn(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// Listen opens the control socket in the data directory. The caller holds the
// supervisor's lock, so a socket file that is there belongs to nobody.
func Listen(data string) (net.Listener, error) {
	var l net.Listener
	err := within(filepath.Join(data, SocketName), func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		// The path may be one through /proc/self/fd, which ends with this call:
		// whoever closes the listener removes the file by its real name.
		u.SetUnlinkOnClose(false)
		l = u
		return os.Chmod(path, 0o600)
	})
	if err != nil && l != nil {
		err = errors.Join(err, l.Close())
	}
	return l, err
}

// Remove takes the socket file away.
func Remove(data string) error {
	err := os.Remove(filepath.Join(data, SocketName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// dial connects to the control socket in the data directory.
func dial(ctx context.Context, data string) (net.Conn, error) {
	var c net.Conn
	err := within(filepath.Join(data, SocketName), func(path string) (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// absent reports whether err means that nobody listens on the socket.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
