// Package footprint settles a process on its machine: how many processors it
// may use at once, how large its heap may grow, in which pages it lies, and how
// late its timers may be.
//
// Promises. Settle is called once, before the process serves; Unhurried by
// whoever starts the process. They change speed and never what is computed. Whatever the machine does not offer is left as it
// was, in silence: a process without huge pages is slower, not wrong.
//
// Why. A province on one machine is two dozen processes on few cores. Each of
// them waking a second thread to look for work costs more than the work, a heap
// in pages of 4 KiB faults once for each of them, and a timer that is exact
// wakes a processor for itself alone. loadtest/BASELINE.md has
// what both are worth.
package footprint

import (
	"runtime"
	"runtime/debug"
)

// Config says what a process may take of its machine.
type Config struct {
	// Procs is how many processors run Go code at the same time. 0: as many as
	// there are.
	Procs int
	// HeapMiB is the soft limit of the heap in MiB. It must not be 0.
	HeapMiB int
}

// gcPercent lets the heap grow by three quarters between two collections. Stores
// keep their memtables and blocks in it (there is no C), so it turns over quickly,
// and to touch memory for the first time costs more than to collect what is there.
const gcPercent = 75

// Settle applies the configuration.
func Settle(c Config) {
	if c.Procs > 0 {
		runtime.GOMAXPROCS(c.Procs)
	}
	debug.SetMemoryLimit(int64(c.HeapMiB) << 20)
	debug.SetGCPercent(gcPercent)
	hugePages(c.HeapMiB << 20)
}
