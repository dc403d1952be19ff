//go:build !linux

package peers

import "time"

func nap(d time.Duration) { <-time.After(d) }
