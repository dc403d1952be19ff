// Package crash gives a panic an exit code of its own.
//
// Left alone, Go ends a program that panicked with 2, which is what `qianma
// load` ends with when a ledger is broken. Nobody may take one for the other.
package crash

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

// Code is what a generator ends with that failed itself: EX_SOFTWARE of
// sysexits.h.
const Code = 70

// Guard is deferred by every goroutine beside the command's own.
func Guard() {
	if why := recover(); why != nil {
		Say(os.Stderr, why)
		os.Exit(Code)
	}
}

// Say writes down a panic and returns it as an error.
func Say(w io.Writer, why any) error {
	err := fmt.Errorf("the generator panicked: %v (a fault of qianma load, not of the system; there is no verdict)", why)
	fmt.Fprintf(w, "qianma: %v\n%s", err, debug.Stack())
	return err
}
