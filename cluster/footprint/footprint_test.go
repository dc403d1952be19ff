package footprint

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// TestTheHeapLiesInAdvisedPages reads from the kernel which addresses were
// advised: what is allocated afterwards must lie in them.
func TestTheHeapLiesInAdvisedPages(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("huge pages are asked for on Linux alone")
	}
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no transparent huge pages")
	}
	Settle(Config{HeapMiB: 256})
	runtime.GC()
	block := make([]byte, 8<<20)
	at := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(block))))
	if !advised(t, at) {
		t.Error("a block of the heap lies where no huge pages were asked for")
	}
	runtime.KeepAlive(block)
}

// advised looks for the mapping that holds the address and its flag hg.
func advised(t *testing.T, at uint64) bool {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	inside := false
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if from, to, ok := bounds(line); ok {
			inside = from <= at && at < to
		}
		if inside && strings.HasPrefix(line, "VmFlags:") {
			return strings.Contains(line+" ", " hg ")
		}
	}
	return false
}

func bounds(line string) (from, to uint64, ok bool) {
	span, _, _ := strings.Cut(line, " ")
	lo, hi, found := strings.Cut(span, "-")
	from, err := strconv.ParseUint(lo, 16, 64)
	if !found || err != nil {
		return 0, 0, false
	}
	to, err = strconv.ParseUint(hi, 16, 64)
	return from, to, err == nil
}

func TestProcessorsAreBounded(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	Settle(Config{Procs: 1, HeapMiB: 64})
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("%d processors, want 1", n)
	}
	Settle(Config{HeapMiB: 64})
	if n := runtime.GOMAXPROCS(0); n != 1 {
		t.Errorf("%d processors: 0 must leave them as they are", n)
	}
}
