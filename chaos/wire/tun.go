package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Devices makes the two ends of our own line, each a TUN device in its
// namespace. They vanish when they are closed, or with the process.
func (c *Config) Devices(ctx context.Context) (a, b io.ReadWriteCloser, err error) {
	var ends [2]*os.File
	for i := range ends {
		if ends[i], err = c.device(ctx, i); err != nil {
			if i > 0 {
				err = errors.Join(err, ends[0].Close())
			}
			return nil, nil, err
		}
	}
	return ends[0], ends[1], nil
}

// device makes one: outside, then moved, which its file does not mind.
func (c *Config) device(ctx context.Context, i int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("our own line needs /dev/net/tun: %w", err)
	}
	name := c.Ends[i].Door + "l"
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the device %s: %w", name, err), unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), name)
	if err := ip(ctx, "link set "+name+" netns "+c.Ends[i].NetNS+" name "+lineDevice); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := c.tie(ctx, i); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
