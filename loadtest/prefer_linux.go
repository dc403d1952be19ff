package loadtest

import (
	"syscall"
	"unsafe"
)

const (
	roundRobin  = 2
	resetOnFork = 0x40000000
	nicer       = -10
)

// prefer puts the calling thread before the system it shares the processors
// with, as far as it may, and says how and how to undo it. It stands for the
// machine of its own that a generator should have: it takes no more time than
// it would, only sooner, so it can make the figures worse and not better.
// Without it a busy machine makes arrivals late and the run invalid.
func prefer() (how string, restore func()) {
	if setScheduler(roundRobin|resetOnFork, 1) {
		return "real-time, round robin", func() { setScheduler(0, 0) }
	}
	if syscall.Setpriority(syscall.PRIO_PROCESS, 0, nicer) == nil {
		return "nice -10", func() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 0) }
	}
	return "as everybody", func() {}
}

func setScheduler(policy, priority int32) bool {
	_, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, 0, uintptr(policy), uintptr(unsafe.Pointer(&priority)))
	return errno == 0
}
