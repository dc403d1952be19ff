package leaktest

import (
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// TestWhatEndsLateIsNoLeak: a goroutine that ends after goleak would have given
// up is waited for.
func TestWhatEndsLateIsNoLeak(t *testing.T) {
	go func() { <-time.After(time.Second) }()
	None(t)
}
