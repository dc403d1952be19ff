package api

import (
	"sync"

	"qianma/cluster/identity"
	"qianma/display/displaypb"
	pb "qianma/middle-store/middlestorepb"
)

// Cache keeps answers for a moment and tokens for their period, within bounds
// given in bytes. It is told what has changed (rules.Watcher), and an answer
// lives so briefly that one made while a change was on its way does no harm.
type Cache struct {
	answers *lru[cachedAnswer]
	tokens  *lru[cachedToken]
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
	return &Cache{newLRU[cachedAnswer](answers), newLRU[cachedToken](tokens)}
}

// Touched implements rules.Watcher.
func (c *Cache) Touched(p displaypb.Person) {
	if p == (displaypb.Person{}) { // a rule set: every answer may change
		c.answers.clear()
		return
	}
	c.answers.drop(identity.Person(p))
}

// Replaced implements rules.Watcher.
func (c *Cache) Replaced() { c.answers.clear() }

// lru is a map from persons that drops what was used least lately. It is cut
// in shards, each with a lock of its own.
type lru[V any] struct{ shards [lruShards]lruShard[V] }

const lruShards = 64

type lruShard[V any] struct {
	mu    sync.Mutex
	items map[identity.Person]*lruItem[V]
	head  lruItem[V] // ring: head.next is the latest used, head.prev the longest unused
	size  int64
	bound int64
}

type lruItem[V any] struct {
	person     identity.Person
	value      V
	size       int64
	prev, next *lruItem[V]
}

// lruOverhead is what an item costs beside its value's own bytes: the item,
// its place in the map and the pointers to it.
const lruOverhead = 240

func newLRU[V any](bound int64) *lru[V] {
	c := new(lru[V])
	for i := range c.shards {
		s := &c.shards[i]
		s.items = map[identity.Person]*lruItem[V]{}
		s.bound = bound / lruShards
		s.head.prev, s.head.next = &s.head, &s.head
	}
	return c
}

// shard uses the last byte: the first ones choose shards of the subsystem.
func (c *lru[V]) shard(p identity.Person) *lruShard[V] { return &c.shards[p[15]%lruShards] }

func (c *lru[V]) get(p identity.Person) (v V, ok bool) {
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	it, ok := s.items[p]
	if !ok {
		return v, false
	}
	it.unlink()
	s.front(it)
	return it.value, true
}

// put keeps a value that holds so many bytes outside itself.
func (c *lru[V]) put(p identity.Person, v V, bytes int) {
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	it, ok := s.items[p]
	if ok {
		it.unlink()
		s.size -= it.size
	} else {
		it = &lruItem[V]{person: p}
		s.items[p] = it
	}
	it.value, it.size = v, int64(bytes)+lruOverhead
	s.size += it.size
	s.front(it)
	for s.size > s.bound && s.head.prev != &s.head {
		s.remove(s.head.prev)
	}
}

func (c *lru[V]) drop(p identity.Person) {
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if it, ok := s.items[p]; ok {
		s.remove(it)
	}
}

func (c *lru[V]) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		clear(s.items)
		s.size, s.head.prev, s.head.next = 0, &s.head, &s.head
		s.mu.Unlock()
	}
}

// bytes is how much is held, for tests and metrics.
func (c *lru[V]) bytes() (n int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += s.size
		s.mu.Unlock()
	}
	return n
}

func (s *lruShard[V]) front(it *lruItem[V]) {
	it.prev, it.next = &s.head, s.head.next
	it.prev.next, it.next.prev = it, it
}

func (it *lruItem[V]) unlink() { it.prev.next, it.next.prev = it.next, it.prev }

func (s *lruShard[V]) remove(it *lruItem[V]) {
	it.unlink()
	delete(s.items, it.person)
	s.size -= it.size
}
