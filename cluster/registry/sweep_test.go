package registry

import (
	"fmt"
	"testing"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/topology"
)

// The guard against mass expiry, without an etcd: registrations vanish, time
// passes, and what is left is looked at.
func TestExpiredLeasesAloneNeverEmptyAList(t *testing.T) {
	const grace = time.Minute
	for _, c := range []struct {
		name     string
		of, gone int
		up       time.Duration // etcd has been there for so long
		missing  time.Duration // the registrations have been gone for so long
		left     int
	}{
		{"one of six is dropped after its grace", 6, 1, time.Hour, 2 * grace, 5},
		{"one of six is kept during its grace", 6, 1, time.Hour, grace / 2, 6},
		{"a third is dropped", 6, 2, time.Hour, 2 * grace, 4},
		{"more than a third is kept", 6, 3, time.Hour, 2 * grace, 6},
		{"all gone at once are kept", 6, 6, time.Hour, 2 * grace, 6},
		{"the last is kept", 1, 1, time.Hour, 2 * grace, 1},
		{"nobody is dropped while etcd is away", 6, 1, 0, 2 * grace, 6},
		{"nobody is dropped just after etcd came back", 6, 1, grace / 2, 2 * grace, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Unix(10_000, 0)
			r, err := Open(Config{Carrier: "unicom", Topology: new(topology.Topology), Clock: clock.NewManual(now), Grace: grace})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if c.up > 0 {
				r.upSince = now.Add(-c.up)
			}
			for i := range c.of {
				e := &entry{Process: topology.Process{Name: fmt.Sprint(i), Carrier: "unicom", Subsystem: "ledger"}}
				if i < c.gone {
					e.missing = now.Add(-c.missing)
				}
				r.entries[fmt.Sprint(i)] = e
			}
			r.sweep(now)
			if len(r.entries) != c.left {
				t.Errorf("%d are left, want %d", len(r.entries), c.left)
			}
		})
	}
}

// While etcd is away, a registration that was missing counts as live: nobody
// can know better.
func TestLiveMeansLastKnown(t *testing.T) {
	now := time.Unix(10_000, 0)
	r, err := Open(Config{Carrier: "unicom", Topology: new(topology.Topology), Clock: clock.NewManual(now)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.entries["a"] = &entry{Process: topology.Process{Name: "a"}, missing: now}
	if !r.Live("a") {
		t.Error("dead while etcd is away")
	}
	r.upSince = now
	if r.Live("a") {
		t.Error("alive though its registration is gone and etcd is there")
	}
	r.entries["b"] = &entry{Process: topology.Process{Name: "b"}, left: true}
	if r.Live("b") || r.Live("c") {
		t.Error("a process that left, or never came, is alive")
	}
}
