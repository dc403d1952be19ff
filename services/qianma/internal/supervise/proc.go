package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Identity names one life of a process: the pid and the tick it began in. A
// pid alone comes back; the pair does not until the machine restarts.
type Identity struct {
	PID   int
	Ticks uint64 // since boot
}

// ticksPerSecond is USER_HZ, which Linux has fixed at 100 for user space.
const ticksPerSecond = 100

// usage is what the operating system has counted for a process.
type usage struct {
	Identity
	stopped bool          // by a signal
	zombie  bool          // dead, not reaped
	cpu     time.Duration // user and system
	rss     int64         // bytes
}

// inspect reads /proc/<pid>/stat.
func inspect(pid int) (usage, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return usage{}, err
	}
	// The command's name stands in parentheses and may itself hold any byte.
	end := bytes.LastIndexByte(raw, ')')
	fields := strings.Fields(string(raw[end+1:]))
	if end < 0 || len(fields) < 22 {
		return usage{}, fmt.Errorf("/proc/%d/stat: cannot be read", pid)
	}
	number := func(i int) uint64 { n, _ := strconv.ParseUint(fields[i-3], 10, 64); return n } // i as in proc(5)
	return usage{
		Identity: Identity{pid, number(22)},
		stopped:  fields[0] == "T" || fields[0] == "t",
		zombie:   fields[0] == "Z" || fields[0] == "X",
		cpu:      time.Duration(number(14)+number(15)) * (time.Second / ticksPerSecond),
		rss:      int64(number(24)) * int64(os.Getpagesize()),
	}, nil
}

// Alive reports whether that very process still runs.
func (id Identity) Alive() bool {
	u, err := inspect(id.PID)
	return err == nil && u.Ticks == id.Ticks && !u.zombie
}

// Started is when the process began, by the machine's clock.
func (id Identity) Started() time.Time {
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Now()
	}
	up, err := strconv.ParseFloat(string(raw[:max(0, bytes.IndexByte(raw, ' '))]), 64)
	if err != nil {
		return time.Now()
	}
	age := up - float64(id.Ticks)/ticksPerSecond
	return time.Now().Add(-time.Duration(age * float64(time.Second)))
}

// Find returns the running processes that were started as `<program> ... --config
// <file>` for one of the files given (absolute path -> name), by name. More
// than one process for a name cannot come from a supervisor; the eldest wins,
// because the younger cannot have opened the data directory.
func Find(configs map[string]string) (map[string]Identity, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes are kept through /proc, which only Linux has: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	found := map[string]Identity{}
	for _, entry := range names {
		pid, err := strconv.Atoi(entry)
		if err != nil || pid == os.Getpid() {
			continue
		}
		name, ok := configs[configOf(pid)]
		if !ok {
			continue
		}
		u, err := inspect(pid)
		if err != nil || u.zombie {
			continue
		}
		if old, twice := found[name]; !twice || u.Ticks < old.Ticks {
			found[name] = u.Identity
		}
	}
	return found, err
}

// configOf returns the file that a process of ours was started with; "" for
// strangers and for what has ended.
func configOf(pid int) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return ""
	}
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	n := len(args)
	if n < 3 || args[n-2] != "--config" || !filepath.IsAbs(args[n-1]) {
		return ""
	}
	return args[n-1]
}

// Signal sends sig to that very process, or reports os.ErrProcessDone.
func (id Identity) Signal(sig os.Signal) error {
	p, err := id.open()
	if err != nil {
		return err
	}
	return errors.Join(p.Signal(sig), p.Release())
}

// open takes a handle on the process. The handle is taken first and the
// identity checked after, so a pid that changed hands in between is noticed.
func (id Identity) open() (*os.Process, error) {
	p, err := os.FindProcess(id.PID)
	if err != nil {
		return nil, os.ErrProcessDone
	}
	if !id.Alive() {
		return nil, errors.Join(os.ErrProcessDone, p.Release())
	}
	return p, nil
}

// RSS is the process's resident memory in bytes; 0 when it has ended.
func (id Identity) RSS() int64 {
	u, err := inspect(id.PID)
	if err != nil || u.Ticks != id.Ticks {
		return 0
	}
	return u.rss
}
