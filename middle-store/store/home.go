package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/raftlog"
)

// home is the directory of a store: generations side by side, and a file that
// names the one in use. A copy taken from a peer becomes a new generation, and
// the file is swapped atomically, so a crash leaves the old or the new one.
type home struct {
	fs  vfs.FS
	dir string
}

const (
	currentFile   = "CURRENT"
	condemnedFile = "CONDEMNED"
)

func (h home) path(n uint64) string {
	return h.fs.PathJoin(h.dir, fmt.Sprintf("rows-%06d", n))
}

// prepare makes the directory, picks the generation in use and removes
// everything else: copies cut short, and generations replaced.
func (h home) prepare() (uint64, error) {
	if err := raftlog.MakeDir(h.fs, h.dir); err != nil {
		return 0, err
	}
	current, err := h.read()
	if err != nil {
		return 0, err
	}
	if _, err := h.fs.Stat(h.fs.PathJoin(h.path(current), condemnedFile)); err == nil || current == 0 {
		current++
		if err := h.point(current); err != nil {
			return 0, err
		}
	}
	return current, h.sweep(current)
}

func (h home) sweep(current uint64) error {
	names, err := h.fs.List(h.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := h.fs.PathJoin(h.dir, name)
		if name == currentFile || p == h.path(current) {
			continue
		}
		if err := h.fs.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

// read returns 0 where no generation is named: what is lost can be had again.
func (h home) read() (uint64, error) {
	f, err := h.fs.Open(h.fs.PathJoin(h.dir, currentFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, 32))
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, nil
	}
	return n, nil
}

// point names the generation in use.
func (h home) point(n uint64) error {
	tmp := h.fs.PathJoin(h.dir, currentFile+".tmp")
	if err := writeFile(h.fs, tmp, fmt.Appendf(nil, "%d\n", n)); err != nil {
		return err
	}
	if err := h.fs.Rename(tmp, h.fs.PathJoin(h.dir, currentFile)); err != nil {
		return err
	}
	return raftlog.SyncDir(h.fs, h.dir)
}

// condemn marks a generation as damaged. The disk is not well, so this is a
// try; without it the damage is found again.
func (h home) condemn(n uint64) {
	if writeFile(h.fs, h.fs.PathJoin(h.path(n), condemnedFile), nil) == nil {
		_ = raftlog.SyncDir(h.fs, h.path(n))
	}
}

func writeFile(fs vfs.FS, path string, data []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
