package fact

import "time"

// Catalog is what a holder of facts says of itself. Its marks say what it has
// and nothing of what it lacks: a replica that lags tells old ones in good
// faith. So it also says for which moment it vouches: all that had been
// acknowledged by then is within the marks.
//
// The moment is told as an age, because the clocks of two machines differ and
// lengths of time hardly do.
type Catalog struct {
	Marks   map[Origin]Mark
	Vouched bool          // Age means something
	Age     time.Duration // of the moment, when the answer was given
}

// Since is that moment on the clock of whoever asked for the catalog, or
// before it; asked is when. The zero time: nothing is vouched for.
func (c *Catalog) Since(asked time.Time) time.Time {
	if !c.Vouched {
		return time.Time{}
	}
	return asked.Add(-max(c.Age, 0))
}
