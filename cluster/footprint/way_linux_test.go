package footprint

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Goal: both a thread's niceness and its autogroup's are what was asked for.
func TestGiveWay(t *testing.T) {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	GiveWay(cmd.Process.Pid, 2)
	if got, err := unix.Getpriority(unix.PRIO_PROCESS, cmd.Process.Pid); err != nil || got != max(1, own-2) { // it counts down
		t.Errorf("niceness %d, %v; that of who started it is %d", 20-got, err, 20-own)
	}
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/autogroup")
	if err != nil {
		t.Skipf("this kernel has no autogroups: %v", err)
	}
	if !strings.HasSuffix(string(raw), " nice 2\n") {
		t.Errorf("its group: %s", raw)
	}
}
