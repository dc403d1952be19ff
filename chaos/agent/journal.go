// Package agent brings faults and takes them away, in a process of its own that
// outlives the drill.
//
// A fault is journalled with its undo, and the journal is on disk, before
// anything is touched. The agent then holds the fault under a lease that the
// drill renews over a pipe: when the drill says so, or dies, or only falls
// silent, or somebody pulls the lever, the agent undoes the fault and asks the
// system whether it is gone; only then is the journal taken away. An agent that
// dies itself leaves a journal that nobody holds: the next drill, and `qianma
// drill recover`, undo what stands in it.
//
// It promises that nothing is touched that is not in a journal, and that a
// journal is only taken away when the system has shown the fault to be gone.
package agent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"qianma/chaos/fault"
)

// Home is where drills keep their own files in a province's directory.
type Home string

// At is the home in a data directory.
func At(data string) Home { return Home(filepath.Join(data, "drills")) }

func (h Home) join(part string) string { return filepath.Join(string(h), part) }

// Journals is the directory of faults that may be in force.
func (h Home) Journals() string { return h.join("journal") }

// Lever is the file whose presence stops all drills and refuses new ones.
func (h Home) Lever() string { return h.join("lever") }

// Lock is the file that the running drill holds.
func (h Home) Lock() string { return h.join("lock") }

// Abort is the file that tells the running drill to end.
func (h Home) Abort() string { return h.join("abort") }

// Reports is the directory of all reports.
func (h Home) Reports() string { return h.join("reports") }

// Make makes the directories.
func (h Home) Make() error {
	return errors.Join(os.MkdirAll(h.Journals(), 0o755), os.MkdirAll(h.Reports(), 0o755))
}

// Engaged reports whether somebody has pulled the lever.
func (h Home) Engaged() bool {
	_, err := os.Stat(h.Lever())
	return err == nil
}

// journal is a fault on disk, held by the agent that answers for it.
type journal struct {
	path string
	file *os.File
}

const journalExt = ".json"

// write puts the plan on disk, whole, before it returns.
func write(h Home, p fault.Plan) (*journal, error) {
	if err := h.Make(); err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(h.Journals(), ".new-*")
	if err != nil {
		return nil, err
	}
	j := &journal{filepath.Join(h.Journals(), p.ID+journalExt), f}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Sync(), syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), os.Rename(f.Name(), j.path), syncDir(h.Journals())); err != nil {
		_ = os.Remove(f.Name())
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// done takes the journal away: its fault is gone.
func (j *journal) done() error { return errors.Join(os.Remove(j.path), j.file.Close()) }

// leave lets somebody else take the journal on.
func (j *journal) leave() { j.file.Close() }

// Orphans opens the journals whose agents are dead. The caller holds them until
// it is done with each.
func orphans(h Home) (map[*journal]fault.Plan, error) {
	entries, err := os.ReadDir(h.Journals())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[*journal]fault.Plan{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), journalExt) {
			continue
		}
		j, p, err := take(filepath.Join(h.Journals(), e.Name()))
		if err != nil {
			return out, err
		}
		if j != nil {
			out[j] = p
		}
	}
	return out, nil
}

// take opens a journal that nobody holds; nil when somebody does.
func take(path string) (*journal, fault.Plan, error) {
	var p fault.Plan
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, p, nil
	}
	if err != nil {
		return nil, p, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		f.Close()
		return nil, p, nil
	}
	if err := json.NewDecoder(f).Decode(&p); err != nil {
		f.Close()
		return nil, p, err
	}
	return &journal{path, f}, p, nil
}

// Open lists the faults that stand in a journal, whoever holds it.
func Open(h Home) []string {
	names, err := filepath.Glob(filepath.Join(h.Journals(), "*"+journalExt))
	if err != nil {
		return nil
	}
	for i, n := range names {
		names[i] = strings.TrimSuffix(filepath.Base(n), journalExt)
	}
	return names
}
