package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"qianma/cluster/machine"
)

// toy is a subsystem small enough to see through. A command is a subject of
// eight bytes and any value. A value for a subject is a fact; two values for
// one subject are a conflict, and both are kept. A value that starts with '!'
// is rejected, one with '?' is not understood by a build without the flag, one
// with '*' makes Decide panic and one with '#' makes Fold panic.
type toy struct {
	understands bool
	cache       map[string]bool // subjects seen
}

const toySubject = 8

func toyCommand(subject uint64, value string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, subject), value...)
}

func (m *toy) Reset() { m.cache = nil }

// Sought makes every test of a replica one of its sieve too: whoever takes a value
// that is there for a new one holds another history than the others.
func (m *toy) Sought() []byte { return []byte("v") }

func (m *toy) Decide(r machine.Reader, at int64, command []byte) machine.Decision {
	if len(command) <= toySubject || command[toySubject] == '!' {
		return machine.Decision{Status: machine.Rejected, Code: "toy_refused"}
	}
	if command[toySubject] == '*' {
		panic("a command like no other")
	}
	if _, ok := r.Get(append([]byte("v"), command...)); ok {
		return machine.Decision{Status: machine.Duplicate}
	}
	other := false
	subject := append([]byte("v"), command[:toySubject]...)
	end := append(bytes.Clone(subject), 0xff)
	if m.cache[string(command[:toySubject])] {
		r.Scan(subject, end, func(key, value []byte) bool { other = true; return false })
	}
	if other {
		return machine.Decision{Status: machine.Conflicts, Code: "toy_conflict", Fact: command}
	}
	return machine.Decision{Status: machine.Accepted, Fact: command}
}

func (m *toy) Fold(tx machine.Tx, fact []byte) error {
	tx.Set(append([]byte("v"), fact...), []byte{1})
	if fact[toySubject] == '?' && !m.understands {
		return errors.New("what is this")
	}
	if fact[toySubject] == '#' {
		panic("a fact like no other")
	}
	if m.cache == nil {
		m.cache = map[string]bool{}
	}
	m.cache[string(fact[:toySubject])] = true
	// How many facts a subject has: a count over the set, so order cannot matter.
	n := uint64(0)
	subject := append([]byte("v"), fact[:toySubject]...)
	tx.Scan(subject, append(bytes.Clone(subject), 0xff), func(k, v []byte) bool { n++; return true })
	tx.Set(append([]byte("n"), fact[:toySubject]...), binary.BigEndian.AppendUint64(nil, n))
	return nil
}

// toyDump is everything a reader can see, as text.
func toyDump(r machine.Reader) string {
	var b bytes.Buffer
	r.Scan(nil, nil, func(k, v []byte) bool {
		fmt.Fprintf(&b, "%x=%x\n", k, v)
		return true
	})
	return b.String()
}
