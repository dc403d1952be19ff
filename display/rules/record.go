package rules

import (
	"bytes"
	"encoding/binary"

	"qianma/cluster/machine"
	"qianma/display/displaypb"
)

// record is all that a code needs to know about one person beside tests and
// doses, under one key, so that showing a code costs one read. It is a sorted
// list of entries; adding one is a union, so a record depends on the set of
// entries alone.
//
//	entry = tag, key (16 or 24 bytes), length of the value as a uvarint, value
type record []byte

// Tags of entries. Numbers are stored: they never change.
const (
	tagRestricted = 1 // id -> the fact
	tagReleased   = 2 // id of a restriction -> time and id of its first release
	tagIll        = 3 // time, id -> flags; the newest few
	tagWell       = 4 // time, id -> flags; the newest few
	tagGuardian   = 5 // time, id -> guardian; the newest few
	tagWithdrawn  = 6 // id of a fact that does not count -> nothing
)

// newest is how many entries of a kind stay, where only the newest matter. Of
// a set's newest few, the newest few of any union can be told: so this too
// does not depend on the order of arrival. Illness has a list of its own, so
// that no number of healthy declarations pushes it out.
const newest = 8

func keepsNewest(tag byte) bool { return tag == tagIll || tag == tagWell || tag == tagGuardian }

func keyLen(tag byte) int {
	if keepsNewest(tag) {
		return 8 + 16
	}
	return 16
}

type entry struct {
	tag   byte
	key   []byte
	value []byte
}

// next cuts the first entry off; what it returns aliases r.
func (r record) next() (e entry, rest record, ok bool) {
	if len(r) == 0 {
		return e, nil, false
	}
	n := keyLen(r[0])
	if len(r) < 1+n {
		return e, nil, false
	}
	size, w := binary.Uvarint(r[1+n:])
	body := r[1+n+max(w, 0):]
	if w <= 0 || size > uint64(len(body)) {
		return e, nil, false
	}
	return entry{r[0], r[1 : 1+n], body[:size:size]}, body[size:], true
}

func (e *entry) append(dst []byte) []byte {
	dst = append(append(dst, e.tag), e.key...)
	dst = binary.AppendUvarint(dst, uint64(len(e.value)))
	return append(dst, e.value...)
}

func (e *entry) compare(o *entry) int {
	if e.tag != o.tag {
		return int(e.tag) - int(o.tag)
	}
	return bytes.Compare(e.key, o.key)
}

// with returns the record with one more entry, and whether that is a change.
func (r record) with(add entry) (record, bool) {
	at, rest := 0, r
	for {
		e, after, ok := rest.next()
		if !ok || e.compare(&add) > 0 {
			break
		}
		if e.compare(&add) == 0 {
			// The same id has the same content; only releases can differ, and
			// the first one counts.
			if bytes.Compare(e.value, add.value) <= 0 {
				return r, false
			}
			rest = after
			break
		}
		at, rest = len(r)-len(after), after
	}
	out := make(record, 0, len(r)+len(add.key)+len(add.value)+6)
	out = append(out, r[:at]...)
	out = append(add.append(out), rest...)
	if keepsNewest(add.tag) {
		out = out.trim(add.tag)
	}
	return out, !bytes.Equal(out, r)
}

// trim drops the oldest entry of a kind when there are too many.
func (r record) trim(tag byte) record {
	if r.count(tag) <= newest {
		return r
	}
	for at, rest := 0, r; ; {
		e, after, ok := rest.next()
		if !ok {
			return r
		}
		if e.tag == tag {
			return append(r[:at:at], after...)
		}
		at, rest = len(r)-len(after), after
	}
}

func (r record) count(tag byte) (n int) {
	for e, rest, ok := r.next(); ok; e, rest, ok = rest.next() {
		if e.tag == tag {
			n++
		}
	}
	return n
}

func (r record) has(tag byte, key []byte) bool {
	for e, rest, ok := r.next(); ok; e, rest, ok = rest.next() {
		if e.tag == tag && bytes.Equal(e.key, key) {
			return true
		}
	}
	return false
}

// names reports whether a declaration or a guardian of that id is held.
func (r record) names(id displaypb.ID) bool {
	for e, rest, ok := r.next(); ok; e, rest, ok = rest.next() {
		if keepsNewest(e.tag) && bytes.Equal(e.key[8:], id[:]) {
			return true
		}
	}
	return false
}

func recordOf(r machine.Reader, p displaypb.Person) record {
	raw, _ := r.Get(personKey(p))
	return raw
}

// orderedKey sorts by time, then by id.
func orderedKey(at int64, id displaypb.ID) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 24), uint64(at)), id[:]...)
}
