//go:build !unix

package loadtest

import "math"

// openFiles: nothing is known of a limit.
func openFiles() uint64 { return math.MaxUint64 }
