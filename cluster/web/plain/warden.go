package plain

import (
	"cmp"
	"time"
)

// The warden of a server looks at all connections every so often, in place of a
// deadline and a reader beside each: most requests are over before it has looked
// once.
const (
	lookEvery = 500 * time.Millisecond
	// goneAfter is how long a request may take before it is looked whether its
	// caller is still there.
	goneAfter = lookEvery
)

// watch looks until nothing is open.
func (s *Server) watch() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for now := range tick.C {
		if !s.look(now) {
			return
		}
	}
}

// look ends what has taken too long, and the requests of those who have gone. It is
// false when nothing is open, and then nobody watches.
func (s *Server) look(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.look(now)
	}
	s.watched = len(s.open) > 0
	return s.watched
}

func (c *conn) look(now time.Time) {
	hs, state := c.s.http, c.state.Load()
	switch took := now.Sub(time.Unix(0, c.since.Load())); state {
	case idle:
		if beyond(took, cmp.Or(hs.IdleTimeout, hs.ReadTimeout)) {
			c.endIdle()
		}
	case reading:
		if beyond(took, cmp.Or(hs.ReadHeaderTimeout, hs.ReadTimeout)) {
			c.end()
		}
	case filling:
		if beyond(took, hs.ReadTimeout) {
			c.end()
		}
	case serving:
		if beyond(took, hs.WriteTimeout) {
			c.end()
		} else if took > goneAfter && gone(c.raw) {
			c.cancel()
		}
	}
}

// beyond reports whether a bound that is set has been passed.
func beyond(took, bound time.Duration) bool { return bound > 0 && took > bound }
