package node

import (
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"qianma/cluster/mishap"
	"qianma/cluster/topology"
)

// TestOnlyWhoWasStartedForDrillsObeys: an order in a process's directory is
// nothing to it, unless its configuration says that drills may break it.
func TestOnlyWhoWasStartedForDrillsObeys(t *testing.T) {
	for _, drills := range []bool{false, true} {
		dir := t.TempDir()
		top := &topology.Topology{Province: "test", Carriers: []string{"unicom"}}
		must(t, top.Save(filepath.Join(dir, "topology.json")))
		cfg := Config{Name: "unicom-words-1", Carrier: "unicom", Subsystem: "words", Dir: filepath.Join(dir, "p"), HTTP: free(t),
			Topology: filepath.Join(dir, "topology.json"), Insecure: true, Drills: drills}
		full := mishap.Order{ID: "full", Kind: mishap.DiskFull, At: time.Now(), Until: time.Now().Add(time.Hour)}
		must(t, mishap.Write(mishap.Dir(cfg.Dir), full))
		b, err := OpenBase(cfg)
		must(t, err)
		b.Serve()
		if err := b.FS.MkdirAll(filepath.Join(cfg.Dir, "x"), 0o700); errors.Is(err, syscall.ENOSPC) != drills {
			t.Errorf("drills %v: a write under an order: %v", drills, err)
		}
		under := func(want int) {
			t.Helper()
			res, err := http.Get("http://" + cfg.HTTP + "/v1/mishaps")
			must(t, err)
			var a MishapsAnswer
			_ = json.NewDecoder(res.Body).Decode(&a)
			must(t, res.Body.Close())
			if (res.StatusCode == http.StatusOK) != drills || drills && len(a.Orders) != want {
				t.Errorf("drills %v: the page says %s, %v", drills, res.Status, a.Orders)
			}
		}
		under(1)
		must(t, mishap.Remove(mishap.Dir(cfg.Dir), "full"))
		under(0)
		must(t, b.FS.MkdirAll(filepath.Join(cfg.Dir, "y"), 0o700))
		must(t, b.Close())
	}
}
