package footprint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// GiveWay has a process that was just started go behind others by so many steps
// of niceness, each worth a fifth of its share, where processors are short. It
// does what the kernel lets it.
//
// A process with a session of its own is an autogroup of its own to most
// kernels, and within it niceness means nothing: there it is the group that has
// to be nice. A unit of systemd says Nice= or CPUWeight= instead.
func GiveWay(pid, steps int) {
	dir := "/proc/" + strconv.Itoa(pid)
	counted, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
	if err != nil {
		return
	}
	nice := 20 - counted + steps // the system call counts from 40 down to 1
	threads, _ := os.ReadDir(dir + "/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, nice)
		}
	}
	for range 3 {
		f, err := os.OpenFile(dir+"/autogroup", os.O_WRONLY, 0)
		if err != nil {
			return
		}
		_, err = fmt.Fprint(f, steps)
		_ = f.Close()
		if !errors.Is(err, unix.EAGAIN) {
			return
		}
		<-time.After(100 * time.Millisecond) // the kernel lets anybody but root do it ten times a second
	}
}
