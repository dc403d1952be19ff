package api

import (
	"qianma/cluster/identity"
	"qianma/display/displaypb"
	"qianma/display/lru"
	pb "qianma/middle-store/middlestorepb"
)

// Cache keeps answers for a moment and tokens for their period, within bounds
// given in bytes. It is told what has changed (rules.Watcher), and an answer
// lives so briefly that one made while a change was on its way does no harm.
type Cache struct {
	answers *lru.Map[identity.Person, cachedAnswer]
	tokens  *lru.Map[identity.Person, cachedToken]
}

// cachedAnswer is a whole answer in its plain form.
type cachedAnswer struct {
	body  []byte
	until int64 // Unix ms
	seen  string
	marks pb.Marks
	facts int
}

// cachedToken is a token, and what was last kept of its person.
type cachedToken struct {
	text    string
	expires int64 // Unix seconds
	content uint32
	kept    uint64 // digest of what stands in the last-known copy
	keptAt  int64  // Unix ms
}

// NewCache bounds answers and tokens in bytes; 0: 16 and 64 MiB.
func NewCache(answers, tokens int64) *Cache {
	if answers == 0 {
		answers = 16 << 20
	}
	if tokens == 0 {
		tokens = 64 << 20
	}
	return &Cache{lru.New[identity.Person, cachedAnswer](answers), lru.New[identity.Person, cachedToken](tokens)}
}

// Touched implements rules.Watcher.
func (c *Cache) Touched(p displaypb.Person) {
	if p == (displaypb.Person{}) { // a rule set: every answer may change
		c.answers.Clear()
		return
	}
	c.answers.Drop(identity.Person(p))
}

// Replaced implements rules.Watcher.
func (c *Cache) Replaced() { c.answers.Clear() }
