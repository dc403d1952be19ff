package epoll

import (
	"fmt"
	"io"
	"syscall"
	"time"
	"unsafe"
)

// What a Socket may want to hear of, and what an event may say.
const (
	Readable = syscall.EPOLLIN | syscall.EPOLLRDHUP
	Writable = syscall.EPOLLOUT
	Hangup   = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
)

// ErrAgain: the socket has nothing now, or takes nothing.
const ErrAgain = syscall.EAGAIN

// Socket is a socket that never blocks. Slot is its owner's name for it.
type Socket struct {
	FD    int // below 0: closed
	Slot  int
	gen   int32  // tells an event of this one from one of the slot's last
	wants uint32 // epoll interest
}

// Read reads what has come: io.EOF after the last of it, ErrAgain when there is
// nothing yet.
func (s *Socket) Read(p []byte) (int, error) {
	n, err := transfer(syscall.SYS_READ, s.FD, p)
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, err
}

// Write writes what the socket takes, which may be less than p: then it says
// ErrAgain.
func (s *Socket) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = transfer(syscall.SYS_WRITE, s.FD, p[n:])
		n += k
	}
	return n, err
}

// Open makes the socket that of a descriptor, which must not block.
func (s *Socket) Open(fd int) { s.FD, s.wants = fd, 0 }

// Close closes the descriptor, which takes it out of its Poller too.
func (s *Socket) Close() {
	_ = syscall.Close(s.FD)
	s.FD, s.wants = -1, 0
	s.gen++
}

// transfer is read or write on a socket that never blocks.
func transfer(call uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// Meant says whether an event is this socket's, and not that of an earlier one in
// its slot. The slot is the event's Fd.
func (s *Socket) Meant(ev *syscall.EpollEvent) bool { return s.FD >= 0 && s.gen == ev.Pad }

// Poller is one epoll descriptor.
type Poller struct {
	fd     int
	events [256]syscall.EpollEvent
	woken  time.Time // when Wait last came back from the kernel
	noPw2  bool      // the kernel has no epoll_pwait2
}

// New makes a Poller that watches nothing.
func New() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Poller{fd: fd}, nil
}

// Close closes the Poller, and no socket.
func (p *Poller) Close() error { return syscall.Close(p.fd) }

// Watch changes what is waited for at a socket.
func (p *Poller) Watch(s *Socket, wants uint32) error {
	if s.wants == wants {
		return nil
	}
	op := syscall.EPOLL_CTL_MOD
	if s.wants == 0 {
		op = syscall.EPOLL_CTL_ADD
	}
	s.wants = wants
	ev := syscall.EpollEvent{Events: wants, Fd: int32(s.Slot), Pad: s.gen}
	if err := syscall.EpollCtl(p.fd, op, s.FD, &ev); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// Wait waits for at most the given time until something comes about. The events
// are good until the next Wait. With gather above 0 it first sleeps until so
// much has passed since it last came back: to be woken for every answer costs
// more than the answer.
func (p *Poller) Wait(wait, gather time.Duration) ([]syscall.EpollEvent, error) {
	wait = max(p.gather(wait, gather), 0)
	n, err := p.wait(wait)
	p.woken = time.Now()
	if err == syscall.EINTR {
		n, err = 0, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return p.events[:n], nil
}

// gather returns what is left of the wait.
func (p *Poller) gather(wait, gather time.Duration) time.Duration {
	if gather == 0 {
		return wait
	}
	nap := min(gather-time.Since(p.woken), wait)
	if nap < 20*time.Microsecond {
		return wait
	}
	Nap(nap)
	return wait - nap
}

// Nap keeps the thread itself asleep, without telling the runtime; see briefly.
// Cut short by a signal, it only makes us look early.
func Nap(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// briefly is how long the thread may sleep in the kernel without telling the
// runtime. Told, the runtime lends the thread's processor to another goroutine,
// and the thread comes back to a queue: on a full machine that made arrivals late
// by tens of milliseconds. Not told, a stop of the world waits this long.
const briefly = time.Millisecond

// sysEpollPwait2 has the same number on every architecture Go runs on.
const sysEpollPwait2 = 441

// wait waits to the nanosecond where the kernel can; where it cannot, to the
// millisecond, rounded down so that an arrival is never made late by it.
func (p *Poller) wait(wait time.Duration) (int, error) {
	if p.noPw2 {
		return syscall.EpollWait(p.fd, p.events[:], int(wait/time.Millisecond))
	}
	ts := syscall.NsecToTimespec(int64(wait))
	var n uintptr
	var errno syscall.Errno
	if wait <= briefly {
		n, _, errno = syscall.RawSyscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
			uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
			uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
	switch errno {
	case 0:
		return int(n), nil
	case syscall.ENOSYS:
		p.noPw2 = true
		return syscall.EpollWait(p.fd, p.events[:], int(wait/time.Millisecond))
	}
	return 0, errno
}
