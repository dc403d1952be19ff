package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"qianma/cluster/fact"
	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
)

// The store's own keys, beside fold's rows:
//
//	'm' origin             how far the origin is folded
//	'u' origin 0 seq       a fact that could not be folded
//	'y'                    the store has once held all there was
//	'z'                    the layout of the rows
const (
	tagMark     = 'm'
	tagAside    = 'u'
	tagComplete = 'y'
	tagLayout   = 'z'
)

var errLayout = errors.New("the rows are of another layout")

// held is how far every origin is folded. It is never changed: each commit
// makes a new one.
type held struct {
	origins map[fact.Origin]origin
	marks   middlestorepb.Marks // the same, as readers keep it
}

// origin is how far one origin is folded.
type origin struct {
	mark  fact.Mark
	stamp int64 // of the newest folded block, Unix nanoseconds
}

func newHeld(origins map[fact.Origin]origin) *held {
	h := &held{origins: origins, marks: make(middlestorepb.Marks, 0, len(origins))}
	for o, at := range origins {
		h.marks = append(h.marks, middlestorepb.Mark{Origin: middlestorepb.OriginKey(o.String()), Seq: at.mark.Seq})
	}
	h.marks.Sort()
	return h
}

func (h *held) facts() (n uint64) {
	for _, at := range h.origins {
		n += at.mark.Seq
	}
	return n
}

func markKey(o fact.Origin) []byte { return append([]byte{tagMark}, o.String()...) }

func asideKey(o fact.Origin, seq uint64) []byte {
	key := append(append([]byte{tagAside}, o.String()...), 0)
	return binary.BigEndian.AppendUint64(key, seq)
}

const originSize = 8 + len(fact.Digest{}) + 8

func (at origin) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, at.mark.Seq)
	dst = append(dst, at.mark.Digest[:]...)
	return binary.BigEndian.AppendUint64(dst, uint64(at.stamp))
}

func parseOrigin(p []byte) (at origin, ok bool) {
	if len(p) != originSize {
		return at, false
	}
	at.mark.Seq = binary.BigEndian.Uint64(p)
	copy(at.mark.Digest[:], p[8:])
	at.stamp = int64(binary.BigEndian.Uint64(p[8+len(at.mark.Digest):]))
	return at, true
}

// checkLayout fails unless the rows mean what this build thinks they mean. An
// empty store is given this build's layout.
func (s *Store) checkLayout() error {
	v, closer, err := s.db.Get([]byte{tagLayout})
	if errors.Is(err, pebble.ErrNotFound) {
		return s.db.Set([]byte{tagLayout}, []byte{fold.Layout}, pebble.NoSync)
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(v, []byte{fold.Layout}) {
		err = errLayout
	}
	return errors.Join(err, closer.Close())
}

// load reads the marks and tries again what was set aside.
func (s *Store) load() error {
	if err := s.checkLayout(); err != nil {
		return err
	}
	origins := map[fact.Origin]origin{}
	err := s.each(tagMark, func(key, value []byte) error {
		o, err := fact.ParseOrigin(string(key[1:]))
		at, ok := parseOrigin(value)
		if err != nil || !ok {
			return errors.New("an unreadable mark")
		}
		origins[o] = at
		return nil
	})
	if err != nil {
		return err
	}
	s.held.Store(newHeld(origins))
	_, closer, err := s.db.Get([]byte{tagComplete})
	if err == nil {
		s.complete.Store(true)
		err = closer.Close()
	}
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	return s.refold()
}

// Complete reports whether the store has once held all there was. Until then
// what it does not hold says nothing, so it must not answer anybody.
func (s *Store) Complete() bool { return s.complete.Load() }

// SetComplete says that the store holds all there is. It is written behind the
// rows, so a crash that loses rows loses it too.
func (s *Store) SetComplete() error {
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.db.Set([]byte{tagComplete}, nil, pebble.NoSync); err != nil {
		return err
	}
	s.dirty = true
	s.complete.Store(true)
	return nil
}

// refold tries the facts that were set aside: this may be the build that
// understands them. Rows and the end of the setting aside commit together.
func (s *Store) refold() error {
	p := s.begin()
	defer p.batch.Close()
	left := uint64(0)
	err := s.each(tagAside, func(key, value []byte) error {
		o, ok := asideOrigin(key)
		if !ok {
			return errors.New("an unreadable key of a fact set aside")
		}
		if s.folder.Fold(p, o.Subsystem, value) != nil {
			left++
			return nil
		}
		return p.batch.Delete(key, nil)
	})
	if err = errors.Join(err, s.sorter.write(p.batch)); err != nil {
		return err
	}
	s.aside.Store(left)
	s.dirty = !p.batch.Empty()
	return p.batch.Commit(pebble.NoSync)
}

func asideOrigin(key []byte) (fact.Origin, bool) {
	if len(key) < 1+1+8 {
		return fact.Origin{}, false
	}
	o, err := fact.ParseOrigin(string(key[1 : len(key)-9]))
	return o, err == nil
}

// each walks the keys with a tag.
func (s *Store) each(tag byte, fn func(key, value []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{tag}, UpperBound: []byte{tag + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = fn(it.Key(), it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}
