package report

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ThisMachine describes where we run; dir is on the disk whose fsync matters.
func ThisMachine(dir string) Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH, FsyncUS: fsync(dir)}
	m.CPU = after(read("/proc/cpuinfo"), "model name")
	m.Kernel = strings.TrimSpace(read("/proc/sys/kernel/osrelease"))
	kib, _ := strconv.ParseInt(strings.TrimSuffix(after(read("/proc/meminfo"), "MemTotal"), " kB"), 10, 64)
	m.MemoryMiB = kib / 1024
	load, _, _ := strings.Cut(read("/proc/loadavg"), " ")
	m.Load1, _ = strconv.ParseFloat(load, 64)
	return m
}

func read(path string) string {
	raw, _ := os.ReadFile(path)
	return string(raw)
}

// after is the value of the first "name : value" line.
func after(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// fsync is the median time of a small durable write, in µs; 0 when dir cannot
// be written to.
func fsync(dir string) float64 {
	f, err := os.CreateTemp(dir, ".fsync-*")
	if err != nil {
		return 0
	}
	defer os.Remove(filepath.Clean(f.Name()))
	defer f.Close()
	page := make([]byte, 4096)
	var took []time.Duration
	for range 64 {
		start := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0
		}
		if err := f.Sync(); err != nil {
			return 0
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1000
}

// version is stamped by the build.
var version string

// Commit is the version this binary was built from, as the build or else the
// toolchain stamped it.
func Commit() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	return rev + dirty
}
