package fold_test

import (
	"bytes"
	"sort"
)

// mem is a store of rows in a map: what fold needs of a store, and no more.
type mem struct{ rows map[string]string }

func newMem() *mem { return &mem{map[string]string{}} }

func (m *mem) Set(key, value []byte) { m.rows[string(key)] = string(value) }

func (m *mem) keys() []string {
	keys := make([]string, 0, len(m.rows))
	for k := range m.rows {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// iterator walks a mem.
type iterator struct {
	m      *mem
	keys   []string
	at     int
	prefix []byte
}

func (m *mem) iterator() *iterator { return &iterator{m: m, keys: m.keys()} }

func (it *iterator) Seek(prefix []byte) bool {
	it.prefix = bytes.Clone(prefix)
	it.at = sort.SearchStrings(it.keys, string(prefix)) - 1
	return it.Next()
}

func (it *iterator) Next() bool {
	it.at++
	return it.at < len(it.keys) && bytes.HasPrefix([]byte(it.keys[it.at]), it.prefix)
}

func (it *iterator) Key() []byte   { return []byte(it.keys[it.at]) }
func (it *iterator) Value() []byte { return []byte(it.m.rows[it.keys[it.at]]) }
