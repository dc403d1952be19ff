// Package lru keeps values by person within a bound given in bytes, and drops
// what was used least lately. A Map is safe for concurrent use.
package lru

import "sync"

// Map is cut in shards, each with a lock of its own. Make one with New.
type Map[K ~[16]byte, V any] struct{ shards [shards]shard[K, V] }

const shards = 64

type shard[K ~[16]byte, V any] struct {
	mu    sync.Mutex
	items map[K]*item[K, V]
	head  item[K, V] // ring: head.next is the latest used, head.prev the longest unused
	size  int64
	bound int64
}

type item[K ~[16]byte, V any] struct {
	person     K
	value      V
	size       int64
	prev, next *item[K, V]
}

// Overhead is what an item costs beside its value's own bytes: the item,
// its place in the map and the pointers to it.
const Overhead = 240

// New bounds a map in bytes.
func New[K ~[16]byte, V any](bound int64) *Map[K, V] {
	m := new(Map[K, V])
	for i := range m.shards {
		s := &m.shards[i]
		s.items = map[K]*item[K, V]{}
		s.bound = bound / shards
		s.head.prev, s.head.next = &s.head, &s.head
	}
	return m
}

// shard uses the last byte: the first ones choose shards of the subsystem.
func (m *Map[K, V]) shard(p K) *shard[K, V] { return &m.shards[p[15]%shards] }

// Get returns what is kept of a person, which is used by that.
func (m *Map[K, V]) Get(p K) (v V, ok bool) {
	s := m.shard(p)
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

// Put keeps a value that holds so many bytes outside itself.
func (m *Map[K, V]) Put(p K, v V, bytes int) {
	s := m.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	it, ok := s.items[p]
	if ok {
		it.unlink()
		s.size -= it.size
	} else {
		it = &item[K, V]{person: p}
		s.items[p] = it
	}
	it.value, it.size = v, int64(bytes)+Overhead
	s.size += it.size
	s.front(it)
	for s.size > s.bound && s.head.prev != &s.head {
		s.remove(s.head.prev)
	}
}

// Drop forgets a person.
func (m *Map[K, V]) Drop(p K) {
	s := m.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if it, ok := s.items[p]; ok {
		s.remove(it)
	}
}

// Clear forgets everybody.
func (m *Map[K, V]) Clear() {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		clear(s.items)
		s.size, s.head.prev, s.head.next = 0, &s.head, &s.head
		s.mu.Unlock()
	}
}

// Bytes is how much is held.
func (m *Map[K, V]) Bytes() (n int64) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.size
		s.mu.Unlock()
	}
	return n
}

func (s *shard[K, V]) front(it *item[K, V]) {
	it.prev, it.next = &s.head, s.head.next
	it.prev.next, it.next.prev = it, it
}

func (it *item[K, V]) unlink() { it.prev.next, it.next.prev = it.next, it.prev }

func (s *shard[K, V]) remove(it *item[K, V]) {
	it.unlink()
	delete(s.items, it.person)
	s.size -= it.size
}
