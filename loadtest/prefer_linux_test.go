package loadtest

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Goal: no thread of a generator that goes first waits for its turn, and none
// goes first afterwards.
func TestAllThreadsGoFirst(t *testing.T) {
	policies := func() (out []uintptr) {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range threads {
			id, err := strconv.Atoi(task.Name())
			if err != nil {
				t.Fatal(err)
			}
			if policy, _, errno := syscall.Syscall(syscall.SYS_SCHED_GETSCHEDULER, uintptr(id), 0, 0); errno == 0 { // it may have ended
				out = append(out, policy&^resetOnFork)
			}
		}
		return out
	}
	how, restore := prefer()
	first := policies()
	restore()
	if !strings.HasPrefix(how, "real-time") {
		t.Skipf("this process may not: it goes %s", how)
	}
	raised := 0
	for _, p := range first {
		if p == roundRobin {
			raised++
		}
	}
	if raised < min(2, len(first)) || len(first) < 2 {
		t.Errorf("of %d threads %d go first", len(first), raised)
	}
	for _, p := range policies() {
		if p == roundRobin {
			t.Error("a thread goes first for ever")
		}
	}
}
