package registry

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// remembered is the file: what was last known, for a start without etcd.
type remembered struct {
	Entries  map[string]*entry  `json:"entries"`
	Pointers map[string]Pointer `json:"pointers"`
}

// readFile takes in what was remembered. An entry whose process the topology
// file describes differently now is dropped: the file is newer.
func (r *Registry) readFile() error {
	if r.cfg.File == "" {
		return nil
	}
	raw, err := os.ReadFile(r.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var m remembered
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	for name, e := range m.Entries {
		if seed, _ := r.cfg.Topology.Find(name); e != nil && seed == e.Seed {
			r.entries[name] = e
		}
	}
	for key, p := range m.Pointers {
		r.pointers[key] = p
	}
	return nil
}

// keepFile writes the file after changes, not more often than twice a second.
func (r *Registry) keepFile() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.dirty:
		}
		if err := r.writeFile(); err != nil {
			r.cfg.Logger.Warn("cannot write down what the registry says", "err", err)
		}
		if !r.rest(500 * time.Millisecond) {
			return
		}
	}
}

// writeFile replaces the file so that a crash leaves the old or the new one.
func (r *Registry) writeFile() error {
	if r.cfg.File == "" {
		return nil
	}
	r.mu.Lock()
	raw, err := json.Marshal(remembered{r.entries, r.pointers})
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.cfg.File), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(r.cfg.File), ".registry-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), r.cfg.File)
}
