package raftlog

import (
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
)

// Goal: a bit that is wrong in the log is never taken for the end of it. What
// was acknowledged is there, or the store says that it is damaged; a shorter
// log that opens as if nothing were missing would forget votes and entries.
// Method: one bit of the write-ahead log is flipped at many places, each on a
// copy of the disk, and everything is read.
func TestAFlippedBitIsNoEndOfTheLog(t *testing.T) {
	const last, write = 300, 10
	disk := vfs.NewCrashableMem()
	s := open(t, disk, nil)
	g := group(t, s, 1)
	for i := uint64(1); i <= last; i += write {
		must(t, g.StoreLogs(entries(i, i+write-1, 1)))
	}
	r := rand.New(rand.NewPCG(1, 2))
	silent, damaged := 0, 0
	for range 200 {
		fs := disk.CrashClone(vfs.CrashCloneCfg{})
		at := flipOne(t, fs, r)
		switch n, err := held(fs); {
		case err != nil:
			damaged++
		case n < last-2*write: // the last two cannot always be told from one under way; see checkTail
			silent++
			t.Logf("a bit at %d: the log ends at %d", at, n)
		}
	}
	if n, err := held(disk.CrashClone(vfs.CrashCloneCfg{})); n != last || err != nil {
		t.Errorf("untouched, it holds %d: %v", n, err)
	}
	if silent > 0 || damaged < 150 {
		t.Errorf("of 200 flips %d were noticed and %d made the log shorter without a word", damaged, silent)
	}
}

// Goal: a store of which a table is gone, or is shorter than it was, is damaged;
// the replica is then filled by its peers, not started and started again.
// Method: a table is removed, and one is cut, from a store that had been closed.
func TestATableGoneOrCutIsDamage(t *testing.T) {
	for name, harm := range map[string]func(fs vfs.FS, path string) error{
		"gone": func(fs vfs.FS, path string) error { return fs.Remove(path) },
		"cut": func(fs vfs.FS, path string) error {
			f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			_, err = f.Write([]byte("short"))
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMem()
			s := open(t, disk, nil)
			must(t, group(t, s, 1).StoreLogs(entries(1, 10, 1)))
			must(t, s.db.Flush())
			must(t, s.Close())
			names, err := disk.List("data/log")
			must(t, err)
			table := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, ".sst") })
			if table < 0 {
				t.Fatalf("no table among %v", names)
			}
			must(t, harm(disk, "data/log/"+names[table]))
			if _, err := Open(Config{Dir: "data/log", FS: disk, Logger: quiet}); !IsCorruption(err) {
				t.Errorf("opened, or not called damaged: %v", err)
			}
		})
	}
}

// held is how many entries a store gives back before the first that it has not.
func held(fs vfs.FS) (n uint64, err error) {
	s, err := Open(Config{Dir: "data/log", FS: fs, Logger: quiet})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	g, err := s.Group(1)
	if err != nil {
		return 0, err
	}
	if n, err = g.LastIndex(); err != nil {
		return 0, err
	}
	for i := uint64(1); i <= n; i++ {
		var l raft.Log
		if err := g.GetLog(i, &l); err != nil {
			return 0, err
		}
	}
	return n, s.Failed()
}

func flipOne(t *testing.T, fs vfs.FS, r *rand.Rand) int {
	t.Helper()
	path, _, err := newestLog(fs, "data/log")
	must(t, err)
	f, err := fs.Open(path)
	must(t, err)
	raw, err := io.ReadAll(f)
	must(t, err)
	must(t, f.Close())
	at := r.IntN(len(raw))
	raw[at] ^= 1 << r.IntN(8)
	f, err = fs.Create(path, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.Write(raw)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	return at
}
