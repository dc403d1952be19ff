//go:build unix

package loadtest

import (
	"math"
	"syscall"
)

// openFiles is how many files this process may have open.
func openFiles() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return math.MaxUint64 // nothing is known of a limit
	}
	return uint64(l.Cur)
}
