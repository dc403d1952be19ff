package replica

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/machine"
)

// tx is a machine.Tx over the state of one group: an overlay of what the
// entries being applied have written, in front of the store as it was before
// them. One tx lives as long as the group and is reset for every batch, so its
// table and its arena are allocated once.
//
// An overlay was measured against Pebble's indexed batch (BenchmarkTx): reads
// of own writes are a hash lookup instead of a skiplist search through an
// iterator, and only the last value of a key reaches the store.
//
// It is used by one goroutine, the one that applies.
type tx struct {
	db    *pebble.DB
	space byte // all keys live behind this byte
	err   error

	arena   []byte
	written []write
	table   []int32 // open addressing: position in written plus one
	seed    maphash.Seed
	journal []undo // what the current fact changed, to take it back
	sought  []byte // the tables of which known has the rows
	known   *sieve // by the hash of their stored keys
	order   order
	key     []byte           // scratch
	points  *pebble.Iterator // for lookups
	iter    *pebble.Iterator // for scans
	inUse   bool             // iter is walked by a Scan
}

type write struct {
	key, value []byte // value nil: deleted
	hash       uint64
}

type undo struct {
	at    int32
	fresh bool // the key was not in the overlay before
	value []byte
}

var _ machine.Tx = (*tx)(nil)

// newTx returns a tx whose keys live behind space, and whose machine asks the
// tables that sought names for rows that are not there.
func newTx(space byte, sought []byte) *tx {
	return &tx{space: space, sought: sought, seed: maphash.MakeSeed(), table: make([]int32, 1024)}
}

// isSought reports whether a stored key is of a table that is asked for rows that
// are not there.
func (t *tx) isSought(full []byte) bool {
	return len(full) > 1 && bytes.IndexByte(t.sought, full[1]) >= 0
}

// ranges are the stored keys of the tables sought.
func (t *tx) ranges() []pebble.KeyRange {
	out := make([]pebble.KeyRange, len(t.sought))
	for i, table := range t.sought {
		out[i] = pebble.KeyRange{Start: []byte{t.space, table}, End: after(t.space, table)}
	}
	return out
}

// after is the first key behind a table.
func after(space, table byte) []byte {
	if table == 0xff {
		return []byte{space + 1}
	}
	return []byte{space, table + 1}
}

// nameOf is what a stored row is known by.
func (t *tx) nameOf(full []byte) ([16]byte, bool) { return hashed(maphash.Bytes(t.seed, full)), true }

// begin starts over on db.
func (t *tx) begin(db *pebble.DB) {
	t.db, t.err = db, nil
	t.arena, t.written, t.journal = t.arena[:0], t.written[:0], t.journal[:0]
	clear(t.table)
	t.order.reset()
}

// end lets go of the store. It must be called before the store changes.
func (t *tx) end() error {
	for _, it := range []**pebble.Iterator{&t.iter, &t.points} {
		if *it != nil {
			t.fail((*it).Close())
			*it = nil
		}
	}
	return t.err
}

func (t *tx) fail(err error) {
	if err != nil && t.err == nil {
		t.err = err
	}
}

// mark forgets how to undo what was written so far.
func (t *tx) mark() { t.journal = t.journal[:0] }

// rollback takes back what was written since mark.
func (t *tx) rollback() {
	for i := len(t.journal) - 1; i >= 0; i-- {
		u := t.journal[i]
		t.written[u.at].value = u.value
		if u.fresh { // stays in the table, as a key the store must be asked for
			t.written[u.at].value = absent
		}
	}
	t.mark()
}

// absent marks a key whose only write was rolled back. It is told from other
// values by its address.
var absent = []byte("absent")

func isAbsent(v []byte) bool { return len(v) == len(absent) && &v[0] == &absent[0] }

// full returns the stored form of a key, in scratch space.
func (t *tx) full(key []byte) []byte {
	t.key = append(append(t.key[:0], t.space), key...)
	return t.key
}

// find returns the position of a key in the overlay, or -1 and its free slot.
func (t *tx) find(full []byte, hash uint64) (at int32, slot uint64) {
	mask := uint64(len(t.table) - 1)
	for slot = hash & mask; ; slot = (slot + 1) & mask {
		p := t.table[slot]
		if p == 0 {
			return -1, slot
		}
		if w := &t.written[p-1]; w.hash == hash && bytes.Equal(w.key, full) {
			return p - 1, slot
		}
	}
}

// Get implements machine.Reader.
func (t *tx) Get(key []byte) ([]byte, bool) {
	full := t.full(key)
	hash := maphash.Bytes(t.seed, full)
	if at, _ := t.find(full, hash); at >= 0 {
		if v := t.written[at].value; !isAbsent(v) {
			return slices.Clone(v), v != nil
		}
	}
	if t.known != nil && t.isSought(full) {
		if name := hashed(hash); !t.known.maybe(&name) {
			return nil, false
		}
	}
	return t.lookup(full)
}

// lookup asks the store. It goes through one iterator for the whole batch, not
// through DB.Get: only an iterator can be told to ask the bloom filters of the
// last level too, and nearly every key that rules ask for is in no level.
func (t *tx) lookup(full []byte) ([]byte, bool) {
	if t.points == nil {
		it, err := t.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
		if err != nil {
			t.fail(err)
			return nil, false
		}
		t.points = it
	}
	if !t.points.SeekPrefixGE(full) {
		t.fail(t.points.Error())
		return nil, false
	}
	v, err := t.points.ValueAndErr()
	t.fail(err)
	return append([]byte{}, v...), err == nil
}

// Set implements machine.Tx.
func (t *tx) Set(key, value []byte) { t.put(key, t.keep(value)) }

// Delete implements machine.Tx.
func (t *tx) Delete(key []byte) { t.put(key, nil) }

func (t *tx) put(key, value []byte) {
	full := t.full(key)
	hash := maphash.Bytes(t.seed, full)
	at, slot := t.find(full, hash)
	if at >= 0 {
		old := t.written[at].value
		t.journal = append(t.journal, undo{at: at, fresh: isAbsent(old), value: old})
		t.written[at].value = value
		return
	}
	at = int32(len(t.written))
	t.written = append(t.written, write{key: t.keep(full), value: value, hash: hash})
	t.journal = append(t.journal, undo{at: at, fresh: true})
	t.table[slot] = at + 1
	t.order.add(at)
	if 2*len(t.written) > len(t.table) {
		t.grow()
	}
}

// keep copies p into the arena; the copy is not nil.
func (t *tx) keep(p []byte) []byte {
	if t.arena == nil || len(t.arena)+len(p) > cap(t.arena) {
		// What was handed out lives on in the old arena.
		t.arena = make([]byte, 0, max(64<<10, 2*cap(t.arena), len(p)))
	}
	n := len(t.arena)
	t.arena = append(t.arena, p...)
	return t.arena[n:len(t.arena):len(t.arena)]
}

func (t *tx) grow() {
	t.table = make([]int32, 2*len(t.table))
	mask := uint64(len(t.table) - 1)
	for i := range t.written {
		slot := t.written[i].hash & mask
		for t.table[slot] != 0 {
			slot = (slot + 1) & mask
		}
		t.table[slot] = int32(i) + 1
	}
}

// flush puts the overlay into a batch, in key order: a sorted batch goes into
// the memtable faster.
func (t *tx) flush(b *pebble.Batch) {
	for _, at := range t.order.all(t) {
		w := &t.written[at]
		switch {
		case isAbsent(w.value):
		case w.value == nil:
			t.fail(b.Delete(w.key, nil))
		default:
			t.fail(b.Set(w.key, w.value, nil))
			if t.known != nil && t.isSought(w.key) {
				name := hashed(w.hash)
				t.known.add(&name)
			}
		}
	}
}

// Scan implements machine.Reader: the store and the overlay merged, the
// overlay in front.
func (t *tx) Scan(start, end []byte, fn func(key, value []byte) bool) {
	lo := append([]byte{t.space}, start...)
	hi := []byte{t.space + 1}
	if end != nil {
		hi = append([]byte{t.space}, end...)
	}
	own := t.order.span(t, lo, hi)
	it, done := t.borrow()
	defer done()
	if it == nil {
		return
	}
	it.SetBounds(lo, hi)
	more := it.First()
	for more || len(own) > 0 {
		order := 1
		switch {
		case len(own) == 0:
			order = -1
		case more:
			order = bytes.Compare(it.Key(), t.written[own[0]].key)
		}
		var key, value []byte
		if order < 0 {
			key, value = it.Key(), it.Value()
		} else {
			w := &t.written[own[0]]
			own = own[1:]
			key, value = w.key, w.value
			if isAbsent(value) {
				continue // the store's own value, if any, comes next
			}
		}
		if value != nil || order < 0 {
			if !fn(key[1:], value) {
				return
			}
		}
		if order <= 0 {
			more = it.Next()
		}
	}
	t.fail(it.Error())
}

// borrow hands out the batch's iterator, or another one inside a Scan.
func (t *tx) borrow() (*pebble.Iterator, func()) {
	if t.iter != nil && !t.inUse {
		t.inUse = true
		return t.iter, func() { t.inUse = false }
	}
	it, err := t.db.NewIter(nil)
	if err != nil {
		t.fail(err)
		return nil, func() {}
	}
	if t.iter == nil {
		t.iter, t.inUse = it, true
		return it, func() { t.inUse = false }
	}
	return it, func() { t.fail(it.Close()) }
}

// order keeps the overlay's keys sorted while they are being added: a sorted
// run, and a short tail that has not been merged into it yet.
type order struct {
	sorted, tail, spare []int32
	ranks               []ranked // scratch
}

// ranked is a key to be sorted: its position, and a number that decides nearly
// every comparison without a look at the key.
type ranked struct {
	rank uint64
	at   int32
}

const tailMax = 64

func (o *order) reset() { o.sorted, o.tail = o.sorted[:0], o.tail[:0] }

func (o *order) add(at int32) { o.tail = append(o.tail, at) }

func (o *order) all(t *tx) []int32 {
	o.merge(t)
	return o.sorted
}

func byKey(t *tx) func(a, b int32) int {
	return func(a, b int32) int { return bytes.Compare(t.written[a].key, t.written[b].key) }
}

func (o *order) merge(t *tx) {
	if len(o.tail) == 0 {
		return
	}
	o.sortTail(t)
	out := o.spare[:0]
	a, b := o.sorted, o.tail
	for len(a) > 0 && len(b) > 0 {
		if bytes.Compare(t.written[a[0]].key, t.written[b[0]].key) < 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	out = append(append(out, a...), b...)
	o.spare, o.sorted, o.tail = o.sorted, out, o.tail[:0]
}

// sortTail sorts the tail. The keys of a table begin alike (codes of one site, a
// time), so a rank is the table and what follows behind that.
func (o *order) sortTail(t *tx) {
	var alike [256]common
	for _, at := range o.tail {
		if k := t.written[at].key; len(k) > 1 {
			alike[k[1]].add(k[2:])
		}
	}
	o.ranks = o.ranks[:0]
	for _, at := range o.tail {
		r := ranked{at: at}
		if k := t.written[at].key; len(k) > 1 {
			r.rank = uint64(k[1])<<56 | alike[k[1]].rank(k[2:])>>8
		}
		o.ranks = append(o.ranks, r)
	}
	byKey := byKey(t)
	slices.SortFunc(o.ranks, func(a, b ranked) int {
		if a.rank != b.rank {
			return cmp.Compare(a.rank, b.rank)
		}
		return byKey(a.at, b.at)
	})
	for i, r := range o.ranks {
		o.tail[i] = r.at
	}
}

// common is what keys begin with, all of them.
type common struct {
	prefix []byte
	known  bool
}

func (c *common) add(key []byte) {
	if !c.known {
		c.prefix, c.known = key, true
	}
	n := 0
	for n < len(c.prefix) && n < len(key) && c.prefix[n] == key[n] {
		n++
	}
	c.prefix = c.prefix[:n]
}

// rank is the first eight bytes of a key behind what is common, with zeros after
// its end: of two keys with different ranks the one with the lower comes first.
func (c *common) rank(key []byte) uint64 {
	rest := key[len(c.prefix):]
	if len(rest) >= 8 {
		return binary.BigEndian.Uint64(rest)
	}
	var b [8]byte
	copy(b[:], rest)
	return binary.BigEndian.Uint64(b[:])
}

// span returns the positions of the keys in [lo, hi), in order. The slice is
// the caller's: a Scan may run inside a Scan.
func (o *order) span(t *tx, lo, hi []byte) []int32 {
	if len(o.tail) > tailMax {
		o.merge(t)
	}
	at := func(k []byte) int {
		return sort.Search(len(o.sorted), func(i int) bool { return bytes.Compare(t.written[o.sorted[i]].key, k) >= 0 })
	}
	i, j := 0, 0
	if len(o.sorted) > 0 {
		i, j = at(lo), at(hi)
	}
	var out []int32
	if i < j {
		out = append(out, o.sorted[i:j]...)
	}
	n := len(out)
	for _, at := range o.tail {
		if k := t.written[at].key; bytes.Compare(k, lo) >= 0 && bytes.Compare(k, hi) < 0 {
			out = append(out, at)
		}
	}
	if len(out) > n {
		slices.SortFunc(out, byKey(t))
	}
	return out
}
