package mishap

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk knows what of a process's files was never synced. It holds the disk to
// no more than it promises: bytes are there after a power cut if their file was
// synced after they were written, and a name is there if its directory was
// synced after it was made. Of what is removed nothing comes back.
type disk struct {
	kit *Kit
	// power is held for reading by whoever changes anything. The cut takes it
	// and never gives it back: nobody writes after it.
	power sync.RWMutex

	mu    sync.Mutex
	files map[string]*extent  // with bytes that were never synced, or open
	names map[string][]change // by directory, since it was last synced
	n     int                 // changes so far
}

func newDisk(k *Kit) *disk {
	_ = os.RemoveAll(filepath.Join(k.dir, asideDir))
	return &disk{kit: k, files: map[string]*extent{}, names: map[string][]change{}}
}

// extent is what of one file is only in memory.
type extent struct {
	mu     sync.Mutex
	length int64 // of the file on disk
	lo, hi int64 // written and never synced; empty when equal
	open   int
}

func (e *extent) wrote(from, to int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lo == e.hi {
		e.lo, e.hi = from, to
		return
	}
	e.lo, e.hi = min(e.lo, from), max(e.hi, to)
}

// syncing takes what a sync that begins now would make durable.
func (e *extent) syncing() (mark [2]int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	mark = [2]int64{e.lo, e.hi}
	e.lo, e.hi = 0, 0
	return mark
}

func (e *extent) synced(mark [2]int64, done bool) {
	if mark[0] == mark[1] {
		return
	}
	if !done {
		e.wrote(mark[0], mark[1])
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.length = max(e.length, mark[1])
}

func (e *extent) clean() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lo == e.hi
}

// change is a name that a power cut takes back.
type change struct {
	n        int
	made     string // this name, file or directory
	from, to string // or this renaming
	aside    string // what to named before; "" for nothing
}

// The methods below are called with mu held.

func (d *disk) note(c change) {
	d.n++
	c.n = d.n
	at := filepath.Dir(c.made + c.to)
	if list := d.names[at]; len(list) == namesMax { // nobody syncs this directory: the oldest counts as synced
		forget(list[:1])
		d.names[at] = append(list[:0], list[1:]...)
	}
	d.names[at] = append(d.names[at], c)
}

// namesMax bounds what is remembered of one directory.
const namesMax = 4096

func (d *disk) made(name string) *extent {
	d.removed(name)
	d.note(change{made: name})
	e := &extent{open: 1}
	d.files[name] = e
	return e
}

func (d *disk) opened(name string, length int64) *extent {
	e := d.files[name]
	if e == nil {
		e = &extent{length: length}
		d.files[name] = e
	}
	e.open++
	return e
}

func (d *disk) linked(from, to string) {
	d.note(change{made: to})
	if e := d.files[from]; e != nil {
		d.files[to] = e
	}
}

func (d *disk) renamed(from, to, aside string) {
	d.note(change{from: from, to: to, aside: aside})
	delete(d.files, to)
	if e := d.files[from]; e != nil {
		delete(d.files, from)
		d.files[to] = e
	}
	d.moved(from, to)
}

// moved takes along what is known of files in a directory that was renamed.
func (d *disk) moved(from, to string) {
	for name, e := range d.files {
		if rest, ok := strings.CutPrefix(name, from+"/"); ok {
			delete(d.files, name)
			d.files[filepath.Join(to, rest)] = e
		}
	}
	for at, list := range d.names {
		rest, ok := strings.CutPrefix(at, from)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		delete(d.names, at)
		for i := range list {
			list[i].made = follow(list[i].made, from, to)
			list[i].from, list[i].to = follow(list[i].from, from, to), follow(list[i].to, from, to)
		}
		d.names[to+rest] = list
	}
}

func follow(name, from, to string) string {
	if rest, ok := strings.CutPrefix(name, from+"/"); ok {
		return filepath.Join(to, rest)
	}
	return name
}

func (d *disk) removed(name string) {
	for n := range d.files {
		if n == name || strings.HasPrefix(n, name+"/") {
			delete(d.files, n)
		}
	}
	for at, list := range d.names {
		if at == name || strings.HasPrefix(at, name+"/") {
			forget(list)
			delete(d.names, at)
			continue
		}
		d.names[at] = slices.DeleteFunc(list, func(c change) bool { return c.made == name })
	}
}

// forget gives up what was kept for the case of a power cut.
func forget(list []change) {
	for _, c := range list {
		if c.aside != "" {
			_ = os.Remove(c.aside)
		}
	}
}

// settled hears that a directory's names are on disk.
func (d *disk) settled(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = filepath.Clean(name)
	forget(d.names[name])
	delete(d.names, name)
}

func (d *disk) closed(e *extent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.open--
	if e.open > 0 || !e.clean() {
		return
	}
	for name, other := range d.files {
		if other == e {
			delete(d.files, name)
		}
	}
}

// asideDir keeps what a renaming replaced until its directory is synced.
const asideDir = "aside"

// aside keeps what a name stands for, before another file takes it.
func (d *disk) aside(fs vfs.FS, name string) (string, error) {
	info, err := fs.Stat(name)
	if err != nil || info.IsDir() {
		return "", nil // nothing is replaced
	}
	dir := filepath.Join(d.kit.dir, asideDir)
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	d.mu.Lock()
	d.n++
	path := filepath.Join(dir, strconv.Itoa(d.n))
	d.mu.Unlock()
	return path, fs.Link(name, path)
}

// lost is what a power cut took.
type lost struct {
	files, names int
	bytes        int64
}

func (l lost) String() string {
	return fmt.Sprintf("%d bytes of %d files and %d names were never synced and are gone", l.bytes, l.files, l.names)
}

// cut makes the files what they would be had the power failed now. Whoever
// writes after it waits for ever.
func (d *disk) cut() (l lost) {
	d.power.Lock()
	d.mu.Lock()
	seen := map[*extent]bool{}
	for name, e := range d.files {
		if !seen[e] && !e.clean() {
			seen[e] = true
			l.files++
			l.bytes += e.hi - e.lo
			d.shorten(name, e)
		}
	}
	var all []change
	for _, list := range d.names {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b change) int { return b.n - a.n })
	for _, c := range all {
		l.names++
		c.undo()
	}
	return l
}

// shorten takes from a file what was never synced. Bytes over older ones, as in
// a log file that is used again, become zeros: the disk promises neither.
func (d *disk) shorten(name string, e *extent) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	zeros := make([]byte, 64<<10)
	for at := e.lo; at < min(e.hi, e.length); at += int64(len(zeros)) {
		_, _ = f.WriteAt(zeros[:min(int64(len(zeros)), min(e.hi, e.length)-at)], at)
	}
	if e.hi > e.length {
		_ = f.Truncate(e.length)
	}
}

// undo takes a name back. What cannot be is gone already.
func (c *change) undo() {
	if c.made != "" {
		_ = os.RemoveAll(c.made)
		return
	}
	_ = os.Rename(c.to, c.from)
	if c.aside != "" {
		_ = os.Rename(c.aside, c.to)
	}
}
