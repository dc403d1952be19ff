package footprint

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Unhurried runs start on a thread whose timers may be up to slack late, and so
// are those of every process that start brings to life: the kernel hands the
// slack down. It undoes the change for its own thread.
//
// It is given to a process from outside because the thread that gains most by
// it runs before main: the Go scheduler's watchdog, which otherwise looks every
// 70 µs for as long as anything happens, in each of two dozen processes. All
// other timers gain company: what is due at about the same time is one wake-up.
// A unit of systemd says TimerSlackNSec= instead.
func Unhurried(slack time.Duration, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) != nil {
		return start() // as hurried as ever, and right
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0) }()
	return start()
}
