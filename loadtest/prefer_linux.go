package loadtest

import (
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	roundRobin  = 2
	resetOnFork = 0x40000000
	nicer       = -10
	again       = time.Second // new threads are as everybody until they are found
)

// prefer puts this process before the system it shares the processors with, as
// far as it may, and says how and how to undo it. It stands for the machine of
// its own that a generator should have: it takes no more time than it would,
// only sooner, so it can make the figures worse and not better. Without it a
// busy machine makes arrivals late and the run invalid. All threads are put
// first, not the driver's alone: the collector stops it from another one, and
// when that one has to wait for its turn, the driver does.
func prefer() (how string, restore func()) {
	if !setScheduler(roundRobin|resetOnFork, 1) {
		if syscall.Setpriority(syscall.PRIO_PROCESS, 0, nicer) == nil {
			return "nice -10", func() { _ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 0) }
		}
		return "as everybody", func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(again)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				setScheduler(roundRobin|resetOnFork, 1)
			case <-stop:
				return
			}
		}
	}()
	return "real-time, round robin", func() {
		close(stop)
		<-stopped
		setScheduler(0, 0)
	}
}

// setScheduler gives every thread of this process a policy; false when the first
// one could not be given it.
func setScheduler(policy, priority int32) bool {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false
	}
	for i, t := range threads {
		id, _ := strconv.Atoi(t.Name())
		_, _, errno := syscall.Syscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(id), uintptr(policy), uintptr(unsafe.Pointer(&priority)))
		if errno != 0 && i == 0 {
			return false
		}
	}
	return true
}
