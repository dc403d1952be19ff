package loadtest

import (
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"qianma/loadtest/internal/crash"
)

const (
	roundRobin  = 2
	resetOnFork = 0x40000000
	nicer       = -10
	again       = time.Second // new threads are as everybody until they are found
)

// prefer puts this process before the system it shares the processors with, as
// far as it may, and says how and how to undo it. It stands for the machine of
// its own that a generator should have. It flatters: an answer that has come is
// taken up at once, where a generator with no priority would leave it lying in
// the socket while the system works, so response times measured this way are
// shorter on a busy machine, and the same system on a machine of its own is what
// they come near to. In return the system gets what processor time is left, so
// what it can do at most is not flattered. Without it a busy machine makes
// arrivals late and the run invalid. All threads are put
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
		defer crash.Guard()
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
