// Package ledger remembers every test of a run, in sixteen bytes each, so that
// afterwards all of them can be looked for.
//
// What an entry says is what the generator was told, never what it hopes: a
// test is Acked only when the registration and the tube's result were both
// acknowledged. A lost answer makes it Unknown: it may be there or not, but
// not twice. Nobody is named: a person is an index into the population of the
// run's seed.
//
// A Ledger is not safe for concurrent use.
package ledger

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"
)

// State is what is known of a test.
type State uint8

// The states of a test, in the order in which it passes them.
const (
	Started    State = iota // nothing is known yet
	Registered              // the registration was acknowledged
	Acked                   // the tube's result was too
	Unknown                 // some answer was lost for good
	Failed                  // surely refused
)

// Entry is one test.
type Entry struct {
	Person  uint32 // index into the population
	Tube    uint32 // ordinal within the run
	Sampled uint32 // ms since the run's start
	Carrier uint8  // index into Head.Carriers
	State   State
	Pool    uint8
	Outcome uint8 // of the tube: nucleic's numbers
}

const entrySize = 16

// Head says what the entries are relative to.
type Head struct {
	Run      string    `json:"run"`
	Start    time.Time `json:"start"`
	Seed     uint64    `json:"seed"`
	People   uint32    `json:"people"`
	TubeBase uint64    `json:"tube_base"`
	Stride   uint64    `json:"stride"` // generators of the run; tube ordinals are that far apart
	Part     uint64    `json:"part"`   // which of them this was
	Carriers []string  `json:"carriers"`
	Entries  int       `json:"entries"`
}

// TubeNumber is the tube of an entry as the province knows it.
func (h *Head) TubeNumber(ordinal uint32) uint64 {
	return h.TubeBase + uint64(ordinal)*max(1, h.Stride) + h.Part
}

// SampledAt is when an entry's swab was taken, in Unix milliseconds.
func (h *Head) SampledAt(e *Entry) int64 { return h.Start.UnixMilli() + int64(e.Sampled) }

const chunk = 1 << 16

// Ledger is the list of a run's tests.
type Ledger struct {
	Head Head
	// Later: other runs may have tested the same people since. It is not saved:
	// whoever reads a ledger back long after its run says so.
	Later  bool
	chunks [][]Entry
	n      int
}

// New returns an empty ledger.
func New(h Head) *Ledger { return &Ledger{Head: h} }

// Add appends an entry and returns its index.
func (l *Ledger) Add(e Entry) uint32 {
	if l.n%chunk == 0 {
		l.chunks = append(l.chunks, make([]Entry, 0, chunk))
	}
	last := &l.chunks[len(l.chunks)-1]
	*last = append(*last, e)
	l.n++
	return uint32(l.n - 1)
}

// At is the entry of that index, in place. It stays where it is.
func (l *Ledger) At(i uint32) *Entry { return &l.chunks[i/chunk][i%chunk] }

// Len is how many entries there are.
func (l *Ledger) Len() int { return l.n }

// Count is how many entries are in each state.
func (l *Ledger) Count() map[State]int {
	out := map[State]int{}
	for _, c := range l.chunks {
		for i := range c {
			out[c[i].State]++
		}
	}
	return out
}

// Save writes the ledger to a file that appears whole or not at all.
func (l *Ledger) Save(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".ledger-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	w := bufio.NewWriterSize(tmp, 1<<20)
	if err := errors.Join(l.write(w), w.Flush(), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// The file is the head as one line of JSON, the entries, and the CRC of both.
func (l *Ledger) write(w io.Writer) error {
	sum := crc32.NewIEEE()
	both := io.MultiWriter(w, sum)
	l.Head.Entries = l.n
	head, err := json.Marshal(l.Head)
	if err != nil {
		return err
	}
	if _, err := both.Write(append(head, '\n')); err != nil {
		return err
	}
	var buf [entrySize]byte
	for _, c := range l.chunks {
		for i := range c {
			if _, err := both.Write(c[i].append(buf[:0])); err != nil {
				return err
			}
		}
	}
	_, err = w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

func (e *Entry) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, e.Person)
	dst = binary.LittleEndian.AppendUint32(dst, e.Tube)
	dst = binary.LittleEndian.AppendUint32(dst, e.Sampled)
	return append(dst, e.Carrier, byte(e.State), e.Pool, e.Outcome)
}

func (e *Entry) read(p []byte) {
	e.Person = binary.LittleEndian.Uint32(p)
	e.Tube = binary.LittleEndian.Uint32(p[4:])
	e.Sampled = binary.LittleEndian.Uint32(p[8:])
	e.Carrier, e.State, e.Pool, e.Outcome = p[12], State(p[13]), p[14], p[15]
}

// Load reads a file that Save wrote.
func Load(path string) (*Ledger, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, err := read(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s is no ledger of a load run, or it is damaged (%w): name a run's directory, or its file `ledger`; of a damaged one nothing can be read back", path, err)
	}
	return l, nil
}

func read(r *bufio.Reader) (*Ledger, error) {
	sum := crc32.NewIEEE()
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	sum.Write(line)
	l := new(Ledger)
	if err := json.Unmarshal(line, &l.Head); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	var buf [entrySize]byte
	for i := range l.Head.Entries {
		if _, err := io.ReadFull(r, buf[:]); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		sum.Write(buf[:])
		var e Entry
		e.read(buf[:])
		if int(e.Carrier) >= len(l.Head.Carriers) || e.State > Failed {
			return nil, fmt.Errorf("entry %d names a carrier or a state that there is not", i)
		}
		l.Add(e)
	}
	if _, err := io.ReadFull(r, buf[:4]); err != nil {
		return nil, fmt.Errorf("checksum: %w", err)
	}
	if binary.LittleEndian.Uint32(buf[:4]) != sum.Sum32() {
		return nil, errors.New("the checksum is wrong: the file was damaged")
	}
	return l, nil
}
