// Package machinetest lets a subsystem's rules be driven without the floor: a
// sorted map for a store, and the property every machine owes (any order, any
// repetition, any split of the same facts leaves the same keys).
package machinetest

import (
	"bytes"
	"slices"
	"sort"
)

// Mem is a machine.Tx over a map. It is not safe for concurrent use.
type Mem struct{ m map[string][]byte }

// NewMem returns an empty store.
func NewMem() *Mem { return &Mem{m: map[string][]byte{}} }

// Get implements machine.Reader.
func (s *Mem) Get(key []byte) ([]byte, bool) {
	v, ok := s.m[string(key)]
	return v, ok
}

// Set implements machine.Tx.
func (s *Mem) Set(key, value []byte) { s.m[string(key)] = slices.Clone(value) }

// Delete implements machine.Tx.
func (s *Mem) Delete(key []byte) { delete(s.m, string(key)) }

// Scan implements machine.Reader.
func (s *Mem) Scan(start, end []byte, fn func(key, value []byte) bool) {
	for _, k := range s.Keys() {
		if k < string(start) || (end != nil && k >= string(end)) {
			continue
		}
		if !fn([]byte(k), s.m[k]) {
			return
		}
	}
}

// Keys returns every key in order.
func (s *Mem) Keys() []string {
	keys := make([]string, 0, len(s.m))
	for k := range s.m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Diff returns the first key at which two stores differ, or "" if none does.
func (s *Mem) Diff(other *Mem) string {
	for _, k := range s.Keys() {
		if v, ok := other.m[k]; !ok || !bytes.Equal(v, s.m[k]) {
			return k
		}
	}
	for _, k := range other.Keys() {
		if _, ok := s.m[k]; !ok {
			return k
		}
	}
	return ""
}
