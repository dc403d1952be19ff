package crash

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Goal: a panic in a goroutine ends the process with its own code, not with the
// 2 that Go gives it. Method: this binary again, told to panic.
func TestAPanicHasACodeOfItsOwn(t *testing.T) {
	if os.Getenv("CRASH") == "now" {
		go func() {
			defer Guard()
			panic("on purpose")
		}()
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAPanicHasACodeOfItsOwn$")
	cmd.Env = append(os.Environ(), "CRASH=now")
	said, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != Code || !strings.Contains(string(said), "on purpose (a fault of qianma load") {
		t.Errorf("%v, want exit code %d:\n%s", err, Code, said)
	}
}
