package mishap

import (
	"maps"
	"slices"
	"sync/atomic"
)

// Point is a named place in the code where a process can be made to die. The
// names are stable; each lies between two steps whose order is a promise.
type Point string

// The points.
const (
	BeforeLogSync  Point = "before-raft-log-sync"
	AfterLogSync   Point = "after-raft-log-sync"
	BeforeApply    Point = "before-apply"
	AfterApply     Point = "after-apply"
	BeforeReply    Point = "before-reply"
	MidSnapshot    Point = "mid-snapshot"
	MidInstall     Point = "mid-install"
	BeforePublish  Point = "before-publish"
	AfterPublish   Point = "after-publish"
	BeforeIngest   Point = "before-ingest"
	AfterIngest    Point = "after-ingest"
	MidFold        Point = "mid-fold"
	BeforePeerMark Point = "before-peer-mark"
)

// Points says what lies around each.
var Points = map[Point]string{
	BeforeLogSync:  "entries were handed to the raft log, none is on disk",
	AfterLogSync:   "entries are on this disk, nobody has been told",
	BeforeApply:    "entries are committed, the state has not seen them",
	AfterApply:     "the state has them, nobody can see it yet",
	BeforeReply:    "a proposal is done, its caller has not heard",
	MidSnapshot:    "the state is flushed, its snapshot is not recorded",
	MidInstall:     "a received state is unpacked, it is not yet the living one",
	BeforePublish:  "facts are committed, the broker has not been given them",
	AfterPublish:   "the broker has them, the publisher has not noted it",
	BeforeIngest:   "the other carrier's facts have arrived, none is committed here",
	AfterIngest:    "they are committed here, the follower has not moved on",
	MidFold:        "a middle store has folded facts, its mark has not moved",
	BeforePeerMark: "the other carrier has said what it holds, no receipt shows it",
}

// PointNames are the points in order.
func PointNames() []Point { return slices.Sorted(maps.Keys(Points)) }

// armed is the Kit with an order that takes effect at places in the code; nil,
// and a place costs one load. It is the process's because places lie where no
// Kit is at hand.
var armed atomic.Pointer[Kit]

// Hit is the point. It returns, unless an order says that this process dies here.
func (p Point) Hit() {
	if k := armed.Load(); k != nil {
		k.hit(p)
	}
}

func (k *Kit) hit(p Point) {
	f := k.force.Load()
	if f == nil {
		return
	}
	o, ok := f.points[p]
	if !ok || o.Once && !k.claim(o) {
		return
	}
	// On a goroutine of its own, where no handler's recover can catch it.
	go func() { panic("a drill ordered a panic at " + string(p)) }()
	select {}
}
