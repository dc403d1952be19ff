package rules

import (
	"bytes"
	"encoding/binary"

	"qianma/cluster/machine"
	"qianma/nucleic/nucleicpb"
)

// What follows only looks. Everything handed out is a copy.

// Member is one person's binding to a tube.
type Member struct {
	nucleicpb.Registered        // Person is set even where only a correction has come
	Voided               uint32 // bindings up to this revision do not count
	Live                 bool
}

// Result is one result of a tube.
type Result struct {
	nucleicpb.Resulted
	Voided bool
}

// Tube is everything held of one tube.
type Tube struct {
	Code        []byte
	Opened      *nucleicpb.TubeOpened
	Sealed      *nucleicpb.TubeSealed
	Boxes       []nucleicpb.Boxed
	Receptions  []nucleicpb.LabReceived
	Members     []Member // in the order of their persons
	Results     []Result
	Corrections []nucleicpb.Corrected
	Verdict     nucleicpb.Verdict
	Conflicts   uint64 // bits, see ConflictNames
}

// Pool is the pool the tube is held to be for: as opened, else the largest its
// live members name.
func (t *Tube) Pool() nucleicpb.Pool {
	if t.Opened != nil {
		return t.Opened.Pool
	}
	pool := nucleicpb.PoolUnknown
	for i := range t.Members {
		if t.Members[i].Live {
			pool = max(pool, t.Members[i].Pool)
		}
	}
	return pool
}

// ReadTube reads a tube; ok is false where nothing is held of it.
func ReadTube(r machine.Reader, code []byte) (*Tube, bool) {
	held := load(r, code)
	if !held.exists {
		return nil, false
	}
	t := &Tube{Code: held.code, Verdict: held.sum.verdict, Conflicts: held.index.conflicts}
	v := readVerdicts(held.head, t.add)
	for i := range v.results {
		t.Results = append(t.Results, Result{v.results[i], v.void(&v.results[i])})
	}
	t.Corrections = v.voids
	t.Members = readMembers(r, code)
	return t, true
}

func (t *Tube) add(f *nucleicpb.Fact) {
	switch f.Kind {
	case nucleicpb.KindTubeOpened:
		m := f.TubeOpened
		t.Opened = &m
	case nucleicpb.KindTubeSealed:
		m := f.TubeSealed
		t.Sealed = &m
	case nucleicpb.KindBoxed:
		t.Boxes = append(t.Boxes, f.Boxed)
	case nucleicpb.KindLabReceived:
		t.Receptions = append(t.Receptions, f.LabReceived)
	}
}

func readMembers(r machine.Reader, code []byte) (out []Member) {
	prefix := pairKey(nil, tableMember, code, nil)
	r.Scan(prefix, after(prefix), func(key, value []byte) bool {
		var m Member
		person := bytes.Clone(key[len(prefix):])
		voided, body := splitMember(code, person, bytes.Clone(value))
		_ = m.Unmarshal(body)
		m.Person, m.Voided = person, voided
		m.Live = body != nil && m.Rev() > voided
		out = append(out, m)
		return true
	})
	return out
}

// Box is what one shard holds of a box.
type Box struct {
	Tubes      [][]byte
	Receptions []nucleicpb.LabReceived
}

// ReadBox reads a box; ok is false where this shard holds nothing of it.
func ReadBox(r machine.Reader, box []byte) (b Box, ok bool) {
	var key [128]byte
	_, receptions := readBox(r, key[:], box)
	eachFact(receptions, func(raw []byte) bool {
		var f nucleicpb.Fact
		_, _ = f.Decode(raw)
		b.Receptions = append(b.Receptions, f.LabReceived)
		return true
	})
	b.Tubes = tubesOf(r, box)
	return b, len(b.Tubes) > 0 || len(b.Receptions) > 0
}

// ReadSite reads a site.
func ReadSite(r machine.Reader, site []byte) (nucleicpb.SiteOpened, bool) {
	raw, ok := r.Get(plainKey(nil, tableSite, site))
	if !ok {
		return nucleicpb.SiteOpened{}, false
	}
	var f nucleicpb.Fact
	_, err := f.Decode(bytes.Clone(raw))
	return f.SiteOpened, err == nil
}

// Worklist is something people must look at.
type Worklist byte

// The worklists.
const (
	ResultsWithoutRegistration Worklist = tableUnregistered
	RegistrationsWithoutResult Worklist = tableWaiting
	PackedNotReceived          Worklist = tablePacked
	ConflictsToSettle          Worklist = tableConflict
)

// ParseWorklist reads a worklist's public name.
func ParseWorklist(s string) (Worklist, bool) {
	switch s {
	case "results-without-registration":
		return ResultsWithoutRegistration, true
	case "registrations-without-result":
		return RegistrationsWithoutResult, true
	case "packed-not-received":
		return PackedNotReceived, true
	case "conflicts":
		return ConflictsToSettle, true
	}
	return 0, false
}

// Entry is one line of a worklist.
type Entry struct {
	// Place orders the entries of one list over all shards and is where the
	// next page begins: pass it back as after.
	Place     []byte
	Tube      []byte
	Since     int64  // since when it waits, Unix milliseconds; 0 on the list of conflicts
	Conflicts uint64 // bits; on the list of conflicts alone
}

// List returns up to limit entries of a worklist that come after a place (nil:
// from the start) and wait since before a time (Unix milliseconds, excluded;
// conflicts have no time and ignore it). The longest waiting come first.
func List(r machine.Reader, list Worklist, place []byte, before int64, limit int) (out []Entry) {
	start := append([]byte{byte(list)}, place...)
	if len(place) > 0 {
		start = append(start, 0) // the first key after the place itself
	}
	end := after([]byte{byte(list)})
	if list != ConflictsToSettle {
		end = timeKey(nil, byte(list), before, nil)
	}
	if limit <= 0 || bytes.Compare(start, end) >= 0 {
		return nil
	}
	r.Scan(start, end, func(key, value []byte) bool {
		out = append(out, readEntry(list, bytes.Clone(key[1:]), value))
		return len(out) < limit
	})
	return out
}

func readEntry(list Worklist, place, value []byte) Entry {
	if list == ConflictsToSettle {
		bits, _ := binary.Uvarint(value)
		return Entry{Place: place, Tube: place, Conflicts: bits}
	}
	return Entry{Place: place, Tube: place[8:], Since: int64(binary.BigEndian.Uint64(place) ^ 1<<63)}
}
