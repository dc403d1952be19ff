package province

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"qianma/cluster/backbone"
	"qianma/cluster/node"
)

// Goal: what up writes is what the daemons read, to the last field. Method:
// decode the file strictly as the daemons' own type, and validate it.
func TestDaemonsReadWhatIsWritten(t *testing.T) {
	for _, w := range []Wish{{}, {Insecure: true}, {Links: Proxied, Backbone: 3}} {
		h := open(t, t.TempDir(), w)
		for _, p := range h.Topology.Processes {
			must(t, h.Prepare(p))
			raw, err := os.ReadFile(h.Config(p))
			must(t, err)
			d := json.NewDecoder(bytes.NewReader(raw))
			d.DisallowUnknownFields()
			var c node.Config
			if err := d.Decode(&c); err != nil {
				t.Fatalf("%s: %v", p.Name, err)
			}
			must(t, c.Validate())
			if c.Name != p.Name || c.HTTP != p.HTTP || c.Listen != p.Node || c.Insecure != w.Insecure {
				t.Errorf("%s reads %+v", p.Name, c)
			}
			if p.Subsystem == "backbone" {
				readByBackbone(t, h.Config(p), c)
			}
		}
		must(t, h.Close())
	}
}

// readByBackbone proves that the fields a backbone shares with the other
// daemons mean the same to it.
func readByBackbone(t *testing.T, path string, c node.Config) {
	t.Helper()
	b, err := backbone.Load(path)
	must(t, err)
	if b.Name != c.Name || b.Dir != c.Dir || b.HTTP != c.HTTP || b.Topology != c.Topology || b.CA != c.CA || b.Cert != c.Cert ||
		b.Key != c.Key || b.Insecure != c.Insecure || len(b.Via) != len(c.Via) || b.MemoryMiB != c.MemoryMiB || b.Procs != c.Procs || c.Procs == 0 {
		t.Errorf("%s: a backbone reads %+v where other daemons read %+v", path, b, c)
	}
}
