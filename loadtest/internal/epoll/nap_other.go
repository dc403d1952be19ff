//go:build !linux

package epoll

import "time"

// Nap waits; only on Linux it keeps the thread.
func Nap(d time.Duration) { <-time.After(d) }
