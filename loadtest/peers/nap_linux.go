package peers

import (
	"syscall"
	"time"
	"unsafe"
)

// nap keeps the thread itself asleep, without telling the runtime: told, it
// would lend the driver's processor to a worker, and the driver would come
// back to a queue. A stop of the world waits for as long as a nap lasts.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(int64(d))
	// Cut short by a signal, it only makes us look early.
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
