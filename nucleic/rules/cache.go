package rules

// tubeBytes is what a tube in memory takes, if it is one for twenty people.
const tubeBytes = 1300

// cache keeps the tubes that were asked for last. Nothing depends on it but
// speed: it holds only what load would read again, but reading a tube from the
// store costs several times what the registration itself does. So there is to be
// room for every tube that is being filled, which is one for each booth at work:
// Harbin had 26,000 at once (March 2022, 1.07 million samples an hour).
type cache struct {
	tubes  map[string]*tube
	newest *tube
	oldest *tube
	limit  int
}

func newCache(limit int) *cache { return &cache{tubes: map[string]*tube{}, limit: limit} }

func (c *cache) get(code []byte) (*tube, bool) {
	// What is judged is folded next, and a batch brings a tube's people together.
	if c.newest != nil && string(c.newest.code) == string(code) {
		return c.newest, true
	}
	t, ok := c.tubes[string(code)]
	if ok {
		c.unlink(t)
		c.pushNewest(t)
	}
	return t, ok
}

// drop forgets a tube that is held.
func (c *cache) drop(t *tube) {
	c.unlink(t)
	delete(c.tubes, string(t.code))
}

func (c *cache) add(t *tube) {
	if len(c.tubes) >= c.limit {
		c.drop(c.oldest)
	}
	c.tubes[string(t.code)] = t
	c.pushNewest(t)
}

func (c *cache) pushNewest(t *tube) {
	t.newer, t.older = nil, c.newest
	if c.newest != nil {
		c.newest.newer = t
	}
	c.newest = t
	if c.oldest == nil {
		c.oldest = t
	}
}

func (c *cache) unlink(t *tube) {
	if t.newer != nil {
		t.newer.older = t.older
	} else {
		c.newest = t.older
	}
	if t.older != nil {
		t.older.newer = t.newer
	} else {
		c.oldest = t.newer
	}
	t.newer, t.older = nil, nil
}
