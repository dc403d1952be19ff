package rules

// cacheTubes bounds the tubes kept in memory: about as many as a province has
// booths working at once in one shard. A full one with twenty people takes
// some 1.5 kB.
const cacheTubes = 8192

// cache keeps the tubes that were asked for last. Nothing depends on it but
// speed: it holds only what load would read again.
type cache struct {
	tubes  map[string]*tube
	newest *tube
	oldest *tube
	limit  int
}

func newCache(limit int) *cache { return &cache{tubes: map[string]*tube{}, limit: limit} }

func (c *cache) get(code []byte) (*tube, bool) {
	t, ok := c.tubes[string(code)]
	if ok && c.newest != t {
		c.unlink(t)
		c.pushNewest(t)
	}
	return t, ok
}

func (c *cache) add(t *tube) {
	if len(c.tubes) >= c.limit {
		old := c.oldest
		c.unlink(old)
		delete(c.tubes, string(old.code))
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
