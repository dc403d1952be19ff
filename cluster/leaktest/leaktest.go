// Package leaktest finds goroutines that a test leaves behind.
//
// It is goleak with patience: a goroutine that has been told to end may have to
// wait seconds for a processor on a busy machine, and goleak by itself gives up
// after half of one. What ends late is no leak; what never ends is one.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end. It costs nothing where none
// is left.
const patience = 30 * time.Second

// Main is a TestMain: it runs the tests and fails when they leave goroutines.
func Main(m *testing.M, ignore ...goleak.Option) {
	code := m.Run()
	if code == 0 {
		if err := left(ignore); err != nil {
			fmt.Fprintln(os.Stderr, "leaktest: the tests passed and left goroutines:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// None fails the test when goroutines are left.
func None(t testing.TB, ignore ...goleak.Option) {
	t.Helper()
	if err := left(ignore); err != nil {
		t.Error(err)
	}
}

// left looks, which takes goleak a moment when it finds something, until
// nothing is left or the time is over.
func left(ignore []goleak.Option) error {
	for end := time.Now().Add(patience); ; {
		err := goleak.Find(ignore...)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
