package upload

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
)

// meta says what a spooled file is; it is written last, so a spool entry
// without it is a copy that was cut off, and is made again.
type meta struct {
	Kind   string `json:"kind"`
	Source string `json:"source"` // the file's base name, for people
	Rows   int    `json:"rows"`
	Batch  int    `json:"batch"` // rows a batch; part of every key
}

// entry is one spooled file.
type entry struct {
	dir     string
	id      string // digest of kind and content
	meta    meta
	journal *os.File
	mu      sync.Mutex // guards done and the journal's end
	done    map[int]outcome
	counts  Totals // of done, without the rejects
}

// outcome is what became of one batch, one line of the journal. A later line
// of the same batch replaces the earlier one.
type outcome struct {
	Batch     int      `json:"batch"`
	Rows      int      `json:"rows"`
	Accepted  int      `json:"accepted"`
	Duplicate int      `json:"duplicate"`
	Conflict  int      `json:"conflict"`
	Rejected  int      `json:"rejected"`
	Level     string   `json:"level"` // "committed" or "replicated"
	Carrier   string   `json:"carrier"`
	Rejects   []Reject `json:"rejects,omitempty"`
}

// batchRows is how many rows travel together.
const batchRows = 500

// spool copies the file at source into dir, durably, unless it is there.
func spool(dir string, kind Kind, source string) (*entry, error) {
	in, err := os.Open(source)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	copied, id, err := copyIn(dir, kind, in)
	if err != nil {
		return nil, fmt.Errorf("copying the file into the spool: %w", err)
	}
	home := filepath.Join(dir, id)
	if _, err := os.Stat(filepath.Join(home, "meta.json")); err == nil {
		return openEntry(home), errors.Join(os.Remove(copied), nil)
	}
	m := meta{Kind: kind.Name, Source: filepath.Base(source), Batch: batchRows}
	if err := eachRow(copied, kind, func(row) error { m.Rows++; return nil }); err != nil {
		return nil, errors.Join(err, os.Remove(copied))
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	if err := os.Rename(copied, filepath.Join(home, "rows")); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if err := writeSynced(filepath.Join(home, "meta.json"), raw); err != nil {
		return nil, err
	}
	return openEntry(home), errors.Join(syncDir(home), syncDir(dir))
}

func copyIn(dir string, kind Kind, in io.Reader) (path, id string, err error) {
	tmp, err := os.CreateTemp(dir, ".copy-*")
	if err != nil {
		return "", "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%s/%d/", kind.Name, batchRows)
	_, err = io.Copy(io.MultiWriter(tmp, h), in)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return "", "", errors.Join(err, os.Remove(tmp.Name()))
	}
	return tmp.Name(), hex.EncodeToString(h.Sum(nil)[:16]), nil
}

func openEntry(home string) *entry {
	return &entry{dir: home, id: filepath.Base(home), done: map[int]outcome{}}
}

// open reads the entry's meta and journal. A last line that was cut off by a
// crash is dropped: its batch is sent again under the same key.
func (e *entry) open() error {
	raw, err := os.ReadFile(filepath.Join(e.dir, "meta.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &e.meta); err != nil {
		return fmt.Errorf("spool entry %s: %w", e.id, err)
	}
	f, err := os.OpenFile(filepath.Join(e.dir, "journal"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	good := int64(0)
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		var o outcome
		if err != nil || json.Unmarshal(line, &o) != nil {
			break
		}
		good += int64(len(line))
		e.count(o)
	}
	if err := f.Truncate(good); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.Seek(good, io.SeekStart); err != nil {
		return errors.Join(err, f.Close())
	}
	e.journal = f
	return nil
}

// record makes an outcome durable, then counts it.
func (e *entry) record(o outcome) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := e.journal.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := e.journal.Sync(); err != nil {
		return err
	}
	e.count(o)
	return nil
}

// count lets o replace what was counted of its batch.
func (e *entry) count(o outcome) {
	e.counts.add(e.done[o.Batch], -1)
	e.counts.add(o, +1)
	e.done[o.Batch] = o
}

func (t *Totals) add(o outcome, sign int) {
	t.Accepted += sign * o.Accepted
	t.Duplicate += sign * o.Duplicate
	t.Conflict += sign * o.Conflict
	t.Rejected += sign * o.Rejected
	if o.Level == levelReplicated {
		t.Replicated += sign * o.Rows
	}
}

// known returns what is recorded of a batch.
func (e *entry) known(batch int) (outcome, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o, ok := e.done[batch]
	return o, ok
}

// totals is what the journal knows, without the rejected rows themselves.
func (e *entry) totals() Totals {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.counts
	t.Rows = e.meta.Rows
	return t
}

// rejects lists the rejected rows in the order of the file.
func (e *entry) rejects() []Reject {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Reject
	for _, o := range e.done {
		all = append(all, o.Rejects...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Row < all[j].Row })
	return all
}

// retire marks the entry as finished: its rows are dropped, its journal stays,
// so that uploading the same file again answers from it.
func (e *entry) retire() error { return os.Remove(filepath.Join(e.dir, "rows")) }

// finished reports whether every row is at both carriers.
func (e *entry) finished() bool {
	t := e.totals()
	return t.Replicated == t.Rows
}

func (e *entry) close() error {
	if e.journal == nil {
		return nil
	}
	return e.journal.Close()
}

// pending lists the entries of a spool that are not finished, oldest first.
func pending(dir string) ([]*entry, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []*entry
	for _, n := range names {
		home := filepath.Join(dir, n.Name())
		if _, err := os.Stat(filepath.Join(home, "meta.json")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(home, "rows")); err != nil {
			continue
		}
		out = append(out, openEntry(home))
	}
	return out, err
}

func writeSynced(path string, raw []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
