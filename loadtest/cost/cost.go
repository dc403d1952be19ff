// Package cost reads from the operating system what a run costs: processor
// time, memory and bytes written, by role.
//
// It believes /proc and nothing that a process says of itself. A process that
// dies and comes back during the run is counted with both lives, as far as the
// last sample saw the first one. What it cannot read it leaves out and says
// so; it never guesses. A Meter is not safe for concurrent use.
package cost

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Process is one process to be metered.
type Process struct {
	Name string
	Role string // processes of one role are added up
	PID  int
	Tree bool // with everything below it
	// Parent: it starts others that are metered by themselves. The kernel adds
	// what a child has written to its parent's account once that has reaped it,
	// and of such a process only what its own threads wrote counts.
	Parent bool
}

// Source lists the processes as they are now.
type Source func() ([]Process, error)

// Usage is what one role has used.
type Usage struct {
	Role      string  `json:"role"`
	Processes int     `json:"processes"`
	CPU       float64 `json:"cpu_s"`
	Written   int64   `json:"written_bytes"` // to the disk, as the kernel accounts it; -1: not readable
	PeakRSS   int64   `json:"peak_rss_bytes"`
	RSS       int64   `json:"rss_bytes"`
}

// Meter adds up usage between Begin and the last Sample.
type Meter struct {
	source Source
	lives  map[int]*life
	spent  map[string]*Usage // of lives that are over
	began  machine
	last   machine
	mute   bool // some write counter could not be read
}

type life struct {
	proc        Process
	first, last reading
	fresh       bool // began during the run: everything it used counts
}

type reading struct {
	cpu     time.Duration
	written int64
	rss     int64
	peak    int64
}

type machine struct{ busy time.Duration }

// Begin takes the first reading.
func Begin(source Source) (*Meter, error) {
	m := &Meter{source: source, lives: map[int]*life{}, spent: map[string]*Usage{}}
	if err := m.sample(false); err != nil {
		return nil, err
	}
	m.began = m.last
	return m, nil
}

// Sample takes another reading. When the source fails, whom it names all the same
// is read, and everybody else is neither dead nor new for it. Of a process that is killed, what it used
// after the last reading is lost; of one that is started, what it used before
// the source names it is counted once it does.
func (m *Meter) Sample() error { return m.sample(true) }

func (m *Meter) sample(fresh bool) error {
	procs, unlisted := m.source()
	now, err := readMachine()
	if err != nil {
		return err
	}
	m.last = now
	alive := map[int]bool{}
	for _, p := range procs {
		r, err := m.read(p)
		if errors.Is(err, os.ErrNotExist) {
			continue // it died between being listed and being read
		}
		if err != nil {
			return err
		}
		alive[p.PID] = true
		m.take(p, r, fresh)
	}
	if unlisted != nil {
		return unlisted
	}
	for pid, l := range m.lives {
		if !alive[pid] {
			m.bury(l)
			delete(m.lives, pid)
		}
	}
	return nil
}

func (m *Meter) take(p Process, r reading, fresh bool) {
	l := m.lives[p.PID]
	if l == nil {
		l = &life{proc: p, first: r, fresh: fresh}
		if fresh {
			l.first = reading{}
		}
		m.lives[p.PID] = l
	}
	r.peak = max(r.peak, l.last.peak, r.rss)
	l.last = r
}

func (m *Meter) bury(l *life) {
	u := m.spent[l.proc.Role]
	if u == nil {
		u = &Usage{Role: l.proc.Role}
		m.spent[l.proc.Role] = u
	}
	l.add(u)
}

func (l *life) add(u *Usage) {
	u.CPU += (l.last.cpu - l.first.cpu).Seconds()
	u.Written += max(0, l.last.written-l.first.written)
}

// Usage is what each role has used so far, in the order of role names.
func (m *Meter) Usage() []Usage {
	roles := map[string]*Usage{}
	for role, u := range m.spent {
		roles[role] = &Usage{Role: role, CPU: u.CPU, Written: u.Written}
	}
	for _, l := range m.lives {
		u := roles[l.proc.Role]
		if u == nil {
			u = &Usage{Role: l.proc.Role}
			roles[l.proc.Role] = u
		}
		l.add(u)
		u.Processes++
		u.RSS += l.last.rss
		u.PeakRSS += l.last.peak
	}
	var out []Usage
	for _, u := range roles {
		if m.mute {
			u.Written = -1
		}
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b Usage) int { return cmp.Compare(a.Role, b.Role) })
	return out
}

// Machine is the processor time that the whole machine was busy for, whoever
// used it: what the roles add up to must not be far below it.
func (m *Meter) Machine() time.Duration { return m.last.busy - m.began.busy }

func (m *Meter) read(p Process) (reading, error) {
	if !p.Tree {
		r, err := m.readOne(p.PID)
		if err == nil && p.Parent {
			r.written, err = byThreads(p.PID)
		}
		return r, err
	}
	// What a reaped child wrote is in the account of its parent, and so in the sum.
	all, err := tree(p.PID)
	if err != nil {
		return reading{}, err
	}
	var sum reading
	for _, pid := range all {
		r, err := m.readOne(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return reading{}, err
		}
		sum.cpu += r.cpu
		sum.written += r.written
		sum.rss += r.rss
		sum.peak += r.rss // peaks of children do not coincide; their sum would flatter nobody
	}
	return sum, nil
}

func (m *Meter) readOne(pid int) (reading, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return reading{}, gone(err)
	}
	var r reading
	if r.cpu, err = parseStat(stat); err != nil {
		return reading{}, fmt.Errorf("%s/stat: %w", dir, err)
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return reading{}, gone(err)
	}
	r.rss, r.peak = field(status, "VmRSS:")*1024, field(status, "VmHWM:")*1024
	io, err := os.ReadFile(dir + "/io")
	if errors.Is(err, os.ErrPermission) {
		m.mute = true
		return r, nil
	}
	if err != nil {
		return reading{}, gone(err)
	}
	r.written = field(io, "\nwrite_bytes:")
	return r, nil
}

// byThreads is what the threads that a process has now have written. Of one that
// has ended nothing is left here, but Go ends a thread only with a goroutine
// that was bound to it.
func byThreads(pid int) (written int64, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0, gone(err)
	}
	for _, t := range threads {
		io, err := os.ReadFile(dir + "/" + t.Name() + "/io")
		switch {
		case err == nil:
			written += field(io, "\nwrite_bytes:")
		case errors.Is(err, os.ErrPermission):
			return 0, nil // the process's own account could not be read either
		case !errors.Is(gone(err), os.ErrNotExist):
			return 0, err
		}
	}
	return written, nil
}

// gone makes the two errors of a process that has just died one.
func gone(err error) error {
	if strings.Contains(err.Error(), "no such process") {
		return os.ErrNotExist
	}
	return err
}

// tick is the unit of /proc/<pid>/stat on Linux, whatever the kernel's own.
const tick = 10 * time.Millisecond

// parseStat reads user and system time of the process itself.
func parseStat(p []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(p, ')') // the name may hold anything
	if end < 0 {
		return 0, errors.New("no process name")
	}
	f := strings.Fields(string(p[end+1:]))
	if len(f) < 15 {
		return 0, errors.New("too few fields")
	}
	var sum int64
	for _, i := range []int{11, 12} { // utime stime
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

func field(p []byte, name string) int64 {
	i := bytes.Index(p, []byte(name))
	if i < 0 {
		return 0
	}
	f := bytes.Fields(p[i+len(name):])
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(string(f[0]), 10, 64)
	return n
}

func readMachine() (machine, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}, err
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	var m machine
	for i, f := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name, idle, iowait, guests
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
		m.busy += time.Duration(n) * tick
	}
	return m, nil
}

// tree lists a process and everything below it.
func tree(root int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	kids := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(f) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		kids[parent] = append(kids[parent], pid)
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, kids[out[i]]...)
	}
	return out, nil
}
