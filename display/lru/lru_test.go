package lru_test

import (
	"testing"

	"qianma/display/lru"
)

// in is a person of one shard, so that order can be told.
func in(n byte) [16]byte { return [16]byte{0: n, 15: 7} }

// three fit in the shard of in.
const (
	size  = 100
	bound = 64 * 3 * (size + lru.Overhead)
)

func TestWhatIsUsedLeastLatelyGoes(t *testing.T) {
	m := lru.New[[16]byte, int](bound)
	for n := range byte(3) {
		m.Put(in(n), int(n), size)
	}
	m.Get(in(0))
	m.Put(in(3), 3, size)
	for n, want := range []bool{true, false, true, true} {
		if v, ok := m.Get(in(byte(n))); ok != want || ok && v != n {
			t.Errorf("%d: %d, %v, wanted %v", n, v, ok, want)
		}
	}
	if got := m.Bytes(); got != 3*(size+lru.Overhead) {
		t.Errorf("%d bytes of three", got)
	}
}

func TestPutAgainCountsOnce(t *testing.T) {
	m := lru.New[[16]byte, int](bound)
	for n := range 10 {
		m.Put(in(1), n, size)
	}
	if v, ok := m.Get(in(1)); !ok || v != 9 || m.Bytes() != size+lru.Overhead {
		t.Fatalf("%d, %v, %d bytes", v, ok, m.Bytes())
	}
}

func TestDropAndClear(t *testing.T) {
	m := lru.New[[16]byte, int](bound)
	m.Put(in(1), 1, size)
	m.Put(in(2), 2, size)
	m.Drop(in(1))
	m.Drop(in(9)) // who is not there
	if _, ok := m.Get(in(1)); ok || m.Bytes() != size+lru.Overhead {
		t.Fatalf("dropped, and there: %d bytes", m.Bytes())
	}
	m.Clear()
	if _, ok := m.Get(in(2)); ok || m.Bytes() != 0 {
		t.Fatalf("cleared, and there: %d bytes", m.Bytes())
	}
	m.Put(in(2), 2, size)
	if _, ok := m.Get(in(2)); !ok {
		t.Fatal("nothing can be put after Clear")
	}
}
