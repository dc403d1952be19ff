package replica

import (
	"testing"
	"time"
)

// Goal: contact is no knowledge. A replica that has just started, or was out of
// touch or stopped, hears its leader before it holds what it missed; until it
// has caught up once, what it shows is as old as when it last was level.
func TestContactIsNoKnowledge(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1_700_000_000, 0).Add(time.Duration(ms) * time.Millisecond) }
	var c touch
	if !c.look(at(0), at(0)) || !c.heard(at(0), at(0)).IsZero() {
		t.Error("a replica that has never caught up claims to know something")
	}
	level := func(ms int) {
		c.caughtUp(at(ms))
		c.looked = at(ms)
	}
	level(100)
	if c.look(at(200), at(190)) || !c.heard(at(250), at(240)).Equal(at(240)) {
		t.Error("one that is level and in touch does not say so")
	}
	if !c.look(at(1300), at(240)) {
		t.Error("one that was out of touch is not asked to catch up")
	}
	if got := c.heard(at(1310), at(1305)); !got.Equal(at(190)) {
		t.Errorf("back in touch, and not level: heard at %s", got)
	}
	level(1400)
	// The process is stopped: nobody looks. The first word of its leader comes
	// before it has looked again.
	if got := c.heard(at(9000), at(8999)); !got.Equal(at(1400)) {
		t.Errorf("just resumed: heard at %s", got)
	}
	if !c.look(at(9001), at(9000)) {
		t.Error("one that was stopped is not asked to catch up")
	}
}

// Goal: a replica whose state is behind its log after a crash says that it knows
// nothing while no leader tells it how far the log counts, and becomes level
// by itself once one does.
func TestHeardAfterACrash(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	w.leader().put(t, toyCommand(1, "x"))
	w.equal()
	f := w.follower()
	until(t, "the follower to be level", func() bool { return !f.Heard(0).IsZero() })
	name := f.name
	w.stop()
	alone := w.start(name)
	if at := alone.Heard(0); !at.IsZero() {
		t.Errorf("alone after a crash it has heard at %s", at)
	}
	for _, other := range w.names {
		if other != name {
			w.start(other)
		}
	}
	until(t, "it to be level with the others", func() bool { return !alone.Heard(0).IsZero() })
}

// Goal: a word from the leader alone is not told as knowledge. Method: a
// follower in touch is made to have missed something. It may catch up between
// that and the question, so it is asked until it has not.
func TestHeardAsksForKnowledge(t *testing.T) {
	t.Parallel()
	w := three(t, nil)
	f := w.follower()
	until(t, "the follower to be level", func() bool { return !f.Heard(0).IsZero() })
	g, err := f.group(0)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		g.touch.mu.Lock()
		g.touch.level, g.touch.at = false, time.Time{}
		g.touch.mu.Unlock()
		if f.Heard(0).IsZero() {
			return
		}
	}
	t.Error("it says how old its state is by when it last heard its leader")
}
