package middlestorepb_test

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"qianma/middle-store/middlestorepb"
)

// contract compiles middlestore.proto, which is the contract; the coder is
// only a fast way to honour it.
func contract(t testing.TB) protoreflect.MessageDescriptors {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}}
	files, err := c.Compile(context.Background(), "middlestore.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Messages()
}

type message interface {
	Append([]byte) []byte
	Decode([]byte) error
}

// messages are all that crosses the wire, filled at random.
var messages = map[protoreflect.Name]func(t *rapid.T) (filled, empty message){
	"LookupRequest": func(t *rapid.T) (message, message) { return draw(t, request), new(middlestorepb.LookupRequest) },
	"LookupResponse": func(t *rapid.T) (message, message) {
		return draw(t, response), new(middlestorepb.LookupResponse)
	},
	"Person": func(t *rapid.T) (message, message) { return draw(t, person), new(middlestorepb.Person) },
	"ChangesRequest": func(t *rapid.T) (message, message) {
		return &middlestorepb.ChangesRequest{Epoch: number(t), After: number(t)}, new(middlestorepb.ChangesRequest)
	},
	"ChangesResponse": func(t *rapid.T) (message, message) {
		return &middlestorepb.ChangesResponse{Head: response(t), Changed: subjects(t)}, new(middlestorepb.ChangesResponse)
	},
	"CheckpointOpenRequest": func(t *rapid.T) (message, message) {
		return &middlestorepb.CheckpointOpenRequest{By: text(t)}, new(middlestorepb.CheckpointOpenRequest)
	},
	"CheckpointOpenResponse": func(t *rapid.T) (message, message) {
		return draw(t, checkpoint), new(middlestorepb.CheckpointOpenResponse)
	},
	"CheckpointReadRequest": func(t *rapid.T) (message, message) {
		return &middlestorepb.CheckpointReadRequest{ID: number(t), File: uint32(number(t)), Offset: number(t)}, new(middlestorepb.CheckpointReadRequest)
	},
	"CheckpointReadResponse": func(t *rapid.T) (message, message) {
		data := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "data")
		return &middlestorepb.CheckpointReadResponse{Data: data, CRC: uint32(number(t))}, new(middlestorepb.CheckpointReadResponse)
	},
	"CheckpointCloseRequest": func(t *rapid.T) (message, message) {
		return &middlestorepb.CheckpointCloseRequest{ID: number(t)}, new(middlestorepb.CheckpointCloseRequest)
	},
}

func draw[T any](t *rapid.T, make func(*rapid.T) T) *T {
	v := make(t)
	return &v
}

func text(t *rapid.T) string   { return rapid.String().Draw(t, "text") }
func number(t *rapid.T) uint64 { return rapid.Uint64().Draw(t, "number") }
func truth(t *rapid.T) bool    { return rapid.Bool().Draw(t, "truth") }

// several draws a few of something; none is nil, as a decoder leaves it.
func several[T any](t *rapid.T, make func(*rapid.T) T) []T {
	var out []T
	for range rapid.IntRange(0, 3).Draw(t, "several") {
		out = append(out, make(t))
	}
	return out
}

func marks(t *rapid.T) middlestorepb.Marks {
	return several(t, func(t *rapid.T) middlestorepb.Mark { return middlestorepb.Mark{Origin: number(t), Seq: number(t)} })
}

func subjects(t *rapid.T) []uint32 {
	return several(t, func(t *rapid.T) uint32 { return uint32(number(t)) })
}

func request(t *rapid.T) middlestorepb.LookupRequest {
	return middlestorepb.LookupRequest{
		Persons: several(t, func(t *rapid.T) middlestorepb.PersonID {
			return middlestorepb.PersonID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "person"))
		}),
		Seen: marks(t), Tubes: uint32(number(t)), StaleOK: truth(t), Subjects: truth(t),
	}
}

func response(t *rapid.T) middlestorepb.LookupResponse {
	return middlestorepb.LookupResponse{
		Persons: several(t, person), Marks: marks(t),
		Freshness: several(t, func(t *rapid.T) middlestorepb.Freshness {
			return middlestorepb.Freshness{Carrier: text(t), Subsystem: text(t), AsOf: int64(number(t)), Behind: number(t), Newest: int64(number(t))}
		}),
		Behind: truth(t), AnsweredAt: int64(number(t)), ServedBy: text(t), Epoch: number(t), Position: number(t),
	}
}

func person(t *rapid.T) middlestorepb.Person {
	p := middlestorepb.Person{Status: middlestorepb.Status(rapid.IntRange(0, 5).Draw(t, "status")), MoreTubes: truth(t), DecidedBy: uint32(number(t)), HasDoses: truth(t), Subjects: subjects(t)}
	p.Tubes = several(t, func(t *rapid.T) middlestorepb.Tube {
		return middlestorepb.Tube{Tube: text(t), Pool: uint32(number(t)), SampledAt: int64(number(t)), ReceivedAt: int64(number(t)), TestedAt: int64(number(t)),
			ReportedAt: int64(number(t)), Outcome: middlestorepb.Outcome(rapid.IntRange(0, 4).Draw(t, "outcome")), Conflict: truth(t), Revision: uint32(number(t))}
	})
	if p.HasDoses {
		p.Doses = middlestorepb.Doses{Count: uint32(number(t)), LastDay: int32(number(t)), Conflict: truth(t), Doses: several(t, func(t *rapid.T) middlestorepb.Dose {
			return middlestorepb.Dose{Dose: uint32(number(t)), Day: int32(number(t)), Product: text(t), Batch: text(t), Site: text(t), Conflict: truth(t)}
		})}
	}
	return p
}

func checkpoint(t *rapid.T) middlestorepb.CheckpointOpenResponse {
	return middlestorepb.CheckpointOpenResponse{ID: number(t), Facts: number(t), Layout: uint32(number(t)),
		Files: several(t, func(t *rapid.T) middlestorepb.File { return middlestorepb.File{Name: text(t), Size: number(t)} })}
}

// TestCoderHonoursTheContract sends every message through the compiled .proto
// and back. The contract must write the very bytes the coder wrote: that
// leaves no field out, swaps none, and types none wrongly.
func TestCoderHonoursTheContract(t *testing.T) {
	all := contract(t)
	for name, make := range messages {
		t.Run(string(name), func(t *testing.T) {
			desc := all.ByName(name)
			rapid.Check(t, func(t *rapid.T) {
				want, got := make(t)
				raw := want.Append(nil)
				dyn := dynamicpb.NewMessage(desc)
				if err := proto.Unmarshal(raw, dyn); err != nil {
					t.Fatalf("the contract cannot read the coder's bytes: %v", err)
				}
				if unknown := unknownIn(dyn); unknown != "" {
					t.Fatalf("the coder wrote a field of %s that is not in the contract", unknown)
				}
				again, err := proto.MarshalOptions{Deterministic: true}.Marshal(dyn)
				if err != nil || !bytes.Equal(again, raw) {
					t.Fatalf("contract wrote %x, %v\ncoder wrote    %x", again, err, raw)
				}
				if err := got.Decode(again); err != nil || !reflect.DeepEqual(want, got) {
					t.Fatalf("read back %+v, %v\nwant      %+v", got, err, want)
				}
			})
		})
	}
}

func unknownIn(m protoreflect.Message) (found string) {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				if found = unknownIn(v.List().Get(i).Message()); found != "" {
					return false
				}
			}
		case fd.Message() != nil:
			found = unknownIn(v.Message())
		}
		return found == ""
	})
	return found
}

// TestFieldsAreNamedAlike reads a filled response by field name, which bytes
// alone cannot prove.
func TestFieldsAreNamedAlike(t *testing.T) {
	r := middlestorepb.LookupResponse{Persons: []middlestorepb.Person{{Status: middlestorepb.StatusNegative, DecidedBy: 1, MoreTubes: true, Subjects: []uint32{16, 17},
		Tubes:    []middlestorepb.Tube{{Tube: "t", Pool: 10, SampledAt: 1, ReceivedAt: 2, TestedAt: 3, ReportedAt: 4, Outcome: middlestorepb.OutcomeNegative, Conflict: true, Revision: 5}},
		HasDoses: true, Doses: middlestorepb.Doses{Count: 6, LastDay: 7, Conflict: true, Doses: []middlestorepb.Dose{{Dose: 8, Day: 9, Product: "p", Batch: "b", Site: "s", Conflict: true}}}}},
		Freshness: []middlestorepb.Freshness{{Carrier: "c", Subsystem: "n", AsOf: 10, Behind: 11, Newest: 12}}, Marks: middlestorepb.Marks{{Origin: 13, Seq: 14}}, AnsweredAt: 15, ServedBy: "me", Behind: true, Epoch: 18, Position: 19}
	dyn := dynamicpb.NewMessage(contract(t).ByName("LookupResponse"))
	if err := proto.Unmarshal(r.Append(nil), dyn); err != nil {
		t.Fatal(err)
	}
	const want = `persons:{status:STATUS_NEGATIVE tubes:{tube:"t" pool:10 sampled_at:1 received_at:2 tested_at:3 reported_at:4 outcome:OUTCOME_NEGATIVE conflict:true revision:5} ` +
		`more_tubes:true decided_by:1 doses:{count:6 last_day:7 conflict:true doses:{dose:8 day:9 product:"p" batch:"b" site:"s" conflict:true}} subjects:16 subjects:17} ` +
		`marks:{origins:13 seqs:14} freshness:{carrier:"c" subsystem:"n" as_of:10 behind:11 newest:12} behind:true answered_at:15 served_by:"me" epoch:18 position:19`
	if got := spaceless(dyn.String()); got != spaceless(want) {
		t.Fatalf("got  %s\nwant %s", dyn, want)
	}
}

// spaceless drops what the text form varies on purpose.
func spaceless(s string) string { return string(bytes.ReplaceAll([]byte(s), []byte(" "), nil)) }

// TestDecodeReusesAndForgets decodes a large answer and then a small one into
// the same value: nothing of the first may shine through.
func TestDecodeReusesAndForgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first, second := response(t), response(t)
		var got, want middlestorepb.LookupResponse
		if err := got.Decode(first.Append(nil)); err != nil {
			t.Fatal(err)
		}
		raw := second.Append(nil)
		if err := got.Decode(raw); err != nil {
			t.Fatal(err)
		}
		if err := want.Decode(raw); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Append(nil), want.Append(nil)) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
	})
}

func TestPersonsOneByOne(t *testing.T) {
	r := middlestorepb.LookupResponse{Persons: []middlestorepb.Person{{Status: 2}, {}}, ServedBy: "unicom-middlestore-1"}
	var raw []byte
	for i := range r.Persons {
		raw = middlestorepb.AppendPerson(raw, &r.Persons[i])
	}
	if raw = r.AppendTail(raw); !bytes.Equal(raw, r.Append(nil)) {
		t.Fatal("a response written person by person differs")
	}
}

func TestMarksTravel(t *testing.T) {
	m := middlestorepb.Marks{{Origin: middlestorepb.OriginKey("unicom/nucleic/0/1"), Seq: 7}, {Origin: 3, Seq: 1 << 40}}
	m.Sort()
	got, err := middlestorepb.ParseMarks(m.String())
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("got %v, %v; want %v", got, err, m)
	}
	for _, bad := range []string{"!", "AA", "CgEA", "CggBAQEBAQEBAQ", "EgEB"} {
		if got, err := middlestorepb.ParseMarks(bad); err == nil {
			t.Errorf("%q was taken for marks: %v", bad, got)
		}
	}
	if empty, err := middlestorepb.ParseMarks(""); err != nil || len(empty) != 0 {
		t.Fatalf("no marks: %v, %v", empty, err)
	}
}

// TestMarksOneByOne: the contract lets a writer leave repeated numbers
// unpacked.
func TestMarksOneByOne(t *testing.T) {
	var seen []byte
	for i := range uint64(2) {
		seen = protowire.AppendFixed64(protowire.AppendTag(seen, 1, protowire.Fixed64Type), i+1)
		seen = protowire.AppendVarint(protowire.AppendTag(seen, 2, protowire.VarintType), 300+i)
	}
	var r middlestorepb.LookupRequest
	err := r.Decode(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), seen))
	if want := (middlestorepb.Marks{{Origin: 1, Seq: 300}, {Origin: 2, Seq: 301}}); err != nil || !reflect.DeepEqual(r.Seen, want) {
		t.Fatalf("got %v, %v; want %v", r.Seen, err, want)
	}
}

func TestMarksCoverAndMerge(t *testing.T) {
	here := middlestorepb.Marks{{Origin: 1, Seq: 5}, {Origin: 2, Seq: 9}}
	for name, c := range map[string]struct {
		seen middlestorepb.Marks
		want bool
	}{
		"nothing seen":   {nil, true},
		"as far":         {middlestorepb.Marks{{Origin: 2, Seq: 9}}, true},
		"further":        {middlestorepb.Marks{{Origin: 1, Seq: 6}}, false},
		"unknown origin": {middlestorepb.Marks{{Origin: 3, Seq: 1}}, false},
	} {
		if got := here.Covers(c.seen); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
	merged := here.Merge(middlestorepb.Marks{{Origin: 3, Seq: 1}, {Origin: 1, Seq: 6}, {Origin: 2, Seq: 1}})
	if want := (middlestorepb.Marks{{Origin: 1, Seq: 6}, {Origin: 2, Seq: 9}, {Origin: 3, Seq: 1}}); !reflect.DeepEqual(merged, want) {
		t.Fatalf("got %v, want %v", merged, want)
	}
	if here[0].Seq != 5 {
		t.Fatal("merging changed what it merged from")
	}
}

func fuzz[T any, P interface {
	*T
	message
}](f *testing.F, name protoreflect.Name, seed P) {
	desc := contract(f).ByName(name)
	f.Add(seed.Append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got, again T
		if P(&got).Decode(raw) != nil {
			return
		}
		if err := proto.Unmarshal(raw, dynamicpb.NewMessage(desc)); err != nil {
			t.Fatalf("the coder took what the contract refuses: %v", err)
		}
		written := P(&got).Append(nil)
		if err := P(&again).Decode(written); err != nil || !bytes.Equal(P(&again).Append(nil), written) {
			t.Fatalf("round trip changed the message: %v", err)
		}
	})
}

func FuzzLookupRequest(f *testing.F) {
	fuzz(f, "LookupRequest", &middlestorepb.LookupRequest{Persons: make([]middlestorepb.PersonID, 2), Seen: middlestorepb.Marks{{Origin: 1, Seq: 300}}, Tubes: 3})
}

func FuzzLookupResponse(f *testing.F) {
	fuzz(f, "LookupResponse", &middlestorepb.LookupResponse{Persons: []middlestorepb.Person{{Tubes: make([]middlestorepb.Tube, 2), HasDoses: true}}, ServedBy: "x"})
}

func FuzzCheckpointOpenResponse(f *testing.F) {
	fuzz(f, "CheckpointOpenResponse", &middlestorepb.CheckpointOpenResponse{ID: 1, Files: []middlestorepb.File{{Name: "a", Size: 2}}})
}

func FuzzCheckpointReadRequest(f *testing.F) {
	fuzz(f, "CheckpointReadRequest", &middlestorepb.CheckpointReadRequest{ID: 1, File: 2, Offset: 3})
}

func FuzzCheckpointReadResponse(f *testing.F) {
	fuzz(f, "CheckpointReadResponse", &middlestorepb.CheckpointReadResponse{Data: []byte{1}, CRC: 2})
}

func FuzzChangesResponse(f *testing.F) {
	fuzz(f, "ChangesResponse", &middlestorepb.ChangesResponse{Head: middlestorepb.LookupResponse{Epoch: 1, Position: 2}, Changed: []uint32{3}})
}

func typical() *middlestorepb.LookupResponse {
	r := &middlestorepb.LookupResponse{ServedBy: "unicom-middlestore-1", AnsweredAt: 1641340800000}
	for range 64 {
		r.Persons = append(r.Persons, middlestorepb.Person{Status: middlestorepb.StatusNegative, DecidedBy: 1, HasDoses: true,
			Tubes: []middlestorepb.Tube{{Tube: "52010012345678", Pool: 10, SampledAt: 1641340800000, ReceivedAt: 1641344400000, ReportedAt: 1641351600000, Outcome: 1, Revision: 1}},
			Doses: middlestorepb.Doses{Count: 2, LastDay: 18900, Doses: []middlestorepb.Dose{{Dose: 1, Day: 18800, Product: "A", Batch: "B"}, {Dose: 2, Day: 18900, Product: "A", Batch: "B"}}}})
	}
	return r
}

func BenchmarkEncode64(b *testing.B) {
	r := typical()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0])
	}
}

func BenchmarkDecode64(b *testing.B) {
	raw := typical().Append(nil)
	var r middlestorepb.LookupResponse
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
