// Package leaktest finds goroutines that outlive what started them.
//
// It promises that whoever is on its way out gets the time that a busy machine
// needs: libraries hang up and do not wait for the other side of what they hung
// up on. What is there to stay is a failure all the same, only later.
package leaktest

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is for one that ends by itself; a leak that is none costs nothing.
const patience = time.Minute

// Main runs the tests, and fails when one of them has left something behind.
func Main(m goleak.TestingM, besides ...goleak.Option) {
	goleak.VerifyTestMain(patient{m, besides}, besides...)
}

// None fails the test when something of it is left.
func None(t testing.TB, besides ...goleak.Option) {
	t.Helper()
	await(besides)
	goleak.VerifyNone(t, besides...)
}

type patient struct {
	goleak.TestingM
	besides []goleak.Option
}

// Run implements goleak.TestingM.
func (p patient) Run() int {
	code := p.TestingM.Run()
	if code == 0 {
		await(p.besides)
	}
	return code
}

// await returns when nothing is left, or it has been waited for long enough.
func await(besides []goleak.Option) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if goleak.Find(besides...) == nil { // which waits a little itself
			return
		}
	}
}
