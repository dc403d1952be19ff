package footprint

import (
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Goal: what is started inside has the slack from its first instruction on, and
// whoever started it has what it had.
func TestSlackIsHandedDown(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := func() int {
		n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := own()
	var out []byte
	err := Unhurried(3*time.Millisecond, func() (err error) {
		out, err = exec.Command("cat", "/proc/self/timerslack_ns").Output()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != "3000000\n" {
		t.Errorf("the process has a slack of %q, want 3000000", out)
	}
	if now := own(); now != before {
		t.Errorf("the thread that started it has %d, had %d", now, before)
	}
}
