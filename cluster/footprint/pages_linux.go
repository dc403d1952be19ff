package footprint

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is the unit in which the runtime takes address space for its heap, on
// every 64-bit Linux.
const arena = 64 << 20

// hugePages asks for huge pages where the heap is going to lie. The runtime
// does not ask for any, and most machines give them only to those who ask.
//
// The heap grows arena by arena, and the advice is given to addresses: so the
// heap is made to grow to its limit once, with memory that is never touched and
// therefore costs addresses alone, and is let go again.
func hugePages(size int) {
	room := make([]byte, size)
	start := uintptr(unsafe.Pointer(unsafe.SliceData(room))) &^ (arena - 1)
	end := (uintptr(unsafe.Pointer(unsafe.SliceData(room))) + uintptr(size)) &^ (arena - 1)
	for at := start; at < end; at += arena {
		advise(at, arena)
	}
	runtime.KeepAlive(room)
}

// advise ignores the answer: an older kernel, or one without huge pages,
// leaves everything as it was.
func advise(at uintptr, size int) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, at, uintptr(size), unix.MADV_HUGEPAGE)
}
