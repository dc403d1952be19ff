package mishap

import (
	"io"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is under with the process's orders upon it. What is written through it is
// followed from the first byte on, so that a power cut knows what was synced.
func (k *Kit) FS(under vfs.FS) vfs.FS {
	if k == nil {
		return under
	}
	return &diskFS{FS: under, disk: k.disk}
}

// diskFS passes on what only reads.
type diskFS struct {
	vfs.FS
	*disk
}

var _ vfs.FS = (*diskFS)(nil)

// refuse is what an order makes of a write.
func (d *disk) refuse() error {
	f := d.kit.force.Load()
	if f == nil {
		return nil
	}
	f.wait()
	if f.full {
		return syscall.ENOSPC
	}
	return nil
}

// wait is a slow disk.
func (f *force) wait() {
	if f.delay > 0 {
		<-time.After(f.delay)
	}
}

// sync is a sync as an order makes it: done tells whether the disk did it.
func (d *disk) sync(do func() error) (done bool, err error) {
	if f := d.kit.force.Load(); f != nil {
		f.wait()
		switch {
		case f.fail:
			return false, syscall.EIO
		case f.lie:
			return false, nil
		}
	}
	err = do()
	return err == nil, err
}

// change does what changes names, unless an order refuses it. then, when it
// was done, notes what a power cut would undo.
func (d *disk) change(do func() error, then func()) error {
	if err := d.refuse(); err != nil {
		return err
	}
	d.power.RLock()
	defer d.power.RUnlock()
	if err := do(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	then()
	return nil
}

// Create implements vfs.FS.
func (f *diskFS) Create(name string, c vfs.DiskWriteCategory) (file vfs.File, err error) {
	var t *extent
	err = f.change(func() (err error) {
		file, err = f.FS.Create(name, c)
		return err
	}, func() { t = f.made(name) })
	return f.follow(file, t, err)
}

// Link implements vfs.FS.
func (f *diskFS) Link(from, to string) error {
	return f.change(func() error { return f.FS.Link(from, to) }, func() { f.linked(from, to) })
}

// OpenReadWrite implements vfs.FS.
func (f *diskFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (file vfs.File, err error) {
	length := int64(-1)
	if info, err := f.FS.Stat(name); err == nil {
		length = info.Size()
	}
	var t *extent
	err = f.change(func() (err error) {
		file, err = f.FS.OpenReadWrite(name, c, opts...)
		return err
	}, func() {
		if length < 0 {
			t = f.made(name)
		} else {
			t = f.opened(name, length)
		}
	})
	return f.follow(file, t, err)
}

// ReuseForWrite implements vfs.FS.
func (f *diskFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (file vfs.File, err error) {
	info, err := f.FS.Stat(from)
	if err != nil {
		return nil, err
	}
	var t *extent
	err = f.change(func() (err error) {
		file, err = f.FS.ReuseForWrite(from, to, c)
		return err
	}, func() {
		f.renamed(from, to, "")
		t = f.opened(to, info.Size())
	})
	return f.follow(file, t, err)
}

// Rename implements vfs.FS.
func (f *diskFS) Rename(from, to string) error {
	aside := ""
	return f.change(func() error {
		var err error
		if aside, err = f.aside(f.FS, to); err != nil {
			return err
		}
		return f.FS.Rename(from, to)
	}, func() { f.renamed(from, to, aside) })
}

// Remove implements vfs.FS. What is removed counts as gone at once.
func (f *diskFS) Remove(name string) error {
	return f.change(func() error { return f.FS.Remove(name) }, func() { f.removed(name) })
}

// RemoveAll implements vfs.FS.
func (f *diskFS) RemoveAll(name string) error {
	return f.change(func() error { return f.FS.RemoveAll(name) }, func() { f.removed(name) })
}

// MkdirAll implements vfs.FS.
func (f *diskFS) MkdirAll(dir string, perm os.FileMode) error {
	var fresh []string
	for at := dir; ; {
		if _, err := f.FS.Stat(at); err == nil {
			break
		}
		fresh = append(fresh, at)
		up := f.FS.PathDir(at)
		if up == at {
			break
		}
		at = up
	}
	return f.change(func() error { return f.FS.MkdirAll(dir, perm) }, func() {
		for i := range fresh {
			f.note(change{made: fresh[len(fresh)-1-i]})
		}
	})
}

// OpenDir implements vfs.FS.
func (f *diskFS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dir{File: d, disk: f.disk, name: name}, nil
}

// Lock implements vfs.FS: a lock is no data.
func (f *diskFS) Lock(name string) (io.Closer, error) { return f.FS.Lock(name) }

// Unwrap implements vfs.FS.
func (f *diskFS) Unwrap() vfs.FS { return f.FS }

func (f *diskFS) follow(file vfs.File, t *extent, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &handle{File: file, disk: f.disk, extent: t}, nil
}

// dir is a directory whose names can be synced.
type dir struct {
	vfs.File
	*disk
	name string
}

// Sync implements vfs.File.
func (d *dir) Sync() error {
	d.power.RLock()
	defer d.power.RUnlock()
	done, err := d.sync(d.File.Sync)
	if done {
		d.settled(d.name)
	}
	return err
}

// SyncData implements vfs.File.
func (d *dir) SyncData() error { return d.Sync() }

// SyncTo implements vfs.File.
func (d *dir) SyncTo(int64) (bool, error) { return true, d.Sync() }

// handle is a file that is written.
type handle struct {
	vfs.File
	*disk
	extent *extent
	at     int64 // where the next Write goes
}

// Write implements vfs.File.
func (h *handle) Write(p []byte) (n int, err error) {
	n, err = h.write(h.at, len(p), func() (int, error) { return h.File.Write(p) })
	h.at += int64(n)
	return n, err
}

// WriteAt implements vfs.File.
func (h *handle) WriteAt(p []byte, at int64) (int, error) {
	return h.write(at, len(p), func() (int, error) { return h.File.WriteAt(p, at) })
}

func (h *handle) write(at int64, size int, do func() (int, error)) (int, error) {
	if err := h.refuse(); err != nil {
		return 0, err
	}
	h.power.RLock()
	defer h.power.RUnlock()
	h.extent.wrote(at, at+int64(size))
	return do()
}

// Preallocate implements vfs.File.
func (h *handle) Preallocate(offset, length int64) error {
	if f := h.kit.force.Load(); f != nil && f.full {
		return syscall.ENOSPC
	}
	return h.File.Preallocate(offset, length)
}

// Sync implements vfs.File.
func (h *handle) Sync() error { return h.synced(h.File.Sync) }

// SyncData implements vfs.File.
func (h *handle) SyncData() error { return h.synced(h.File.SyncData) }

func (h *handle) synced(do func() error) error {
	h.power.RLock()
	defer h.power.RUnlock()
	mark := h.extent.syncing()
	done, err := h.sync(do)
	h.extent.synced(mark, done)
	return err
}

// SyncTo implements vfs.File. Only what the disk calls a full sync is one: the
// other kind hands pages to the disk and asks it for nothing.
func (h *handle) SyncTo(length int64) (full bool, err error) {
	h.power.RLock()
	defer h.power.RUnlock()
	mark := h.extent.syncing()
	done, err := h.sync(func() (err error) {
		full, err = h.File.SyncTo(length)
		return err
	})
	h.extent.synced(mark, done && full)
	return full, err
}

// Close implements vfs.File. What was written and not synced is still followed.
func (h *handle) Close() error {
	h.closed(h.extent)
	return h.File.Close()
}
