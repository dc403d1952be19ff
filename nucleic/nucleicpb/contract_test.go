package nucleicpb

import (
	"bytes"
	"context"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"
)

// The contract is nucleic.proto. These tests compile it and hold the
// hand-written coder against what protobuf itself makes of the same bytes,
// field by field and by name, in both directions.

func contract(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{"."}}}
	files, err := c.Compile(context.Background(), "nucleic.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0]
}

// message is the struct inside f that its kind names.
func (f *Fact) message() reflect.Value {
	return reflect.ValueOf(f).Elem().FieldByName(camel(f.Kind.String()))
}

func camel(s string) string {
	var out strings.Builder
	for _, part := range strings.Split(s, "_") {
		out.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return out.String()
}

func snake(s string) string {
	var out strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

// equalMessage compares a Go message with a dynamic one by field name.
func equalMessage(t *rapid.T, v reflect.Value, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	if v.NumField() != fields.Len() {
		t.Fatalf("%s: %d Go fields, %d in the contract", m.Descriptor().Name(), v.NumField(), fields.Len())
	}
	for i := range v.NumField() {
		fd := fields.ByName(protoreflect.Name(snake(v.Type().Field(i).Name)))
		if fd == nil {
			t.Fatalf("%s: the contract has no field %s", m.Descriptor().Name(), v.Type().Field(i).Name)
		}
		equalField(t, fd, v.Field(i), m)
	}
}

func equalField(t *rapid.T, fd protoreflect.FieldDescriptor, v reflect.Value, m protoreflect.Message) {
	t.Helper()
	got := m.Get(fd)
	same := false
	switch fd.Kind() {
	case protoreflect.StringKind:
		same = got.String() == string(v.Bytes())
	case protoreflect.BytesKind:
		same = bytes.Equal(got.Bytes(), v.Bytes())
	case protoreflect.Int64Kind:
		same = got.Int() == v.Int()
	case protoreflect.Uint32Kind:
		same = got.Uint() == v.Uint()
	case protoreflect.EnumKind:
		same = int64(got.Enum()) == v.Int()
	case protoreflect.MessageKind:
		same = m.Has(fd) != v.IsNil()
		if same && !v.IsNil() {
			var bound Registered
			if err := bound.Unmarshal(v.Bytes()); err != nil {
				t.Fatalf("%s: %v", fd.FullName(), err)
			}
			equalMessage(t, reflect.ValueOf(bound), got.Message())
		}
	}
	if !same {
		t.Fatalf("%s: Go %v, protobuf %v", fd.FullName(), v.Interface(), got)
	}
}

// drawMessage fills a Go message with anything its types allow.
func drawMessage(t *rapid.T, v reflect.Value) {
	text := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[0-9A-Z]{1,20}`), rapid.String(), rapid.StringN(100, 200, -1))
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		switch {
		case name == "Rebind":
			if rapid.Bool().Draw(t, name) {
				bound := new(Registered)
				drawMessage(t, reflect.ValueOf(bound).Elem())
				f.SetBytes(bound.Append([]byte{}))
			}
		case name == "Person":
			f.SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, name))
		case f.Kind() == reflect.Slice:
			f.SetBytes([]byte(text.Draw(t, name)))
		case f.Kind() == reflect.Uint32:
			f.SetUint(uint64(rapid.Uint32().Draw(t, name)))
		case f.Kind() == reflect.Int32:
			f.SetInt(int64(rapid.Int32().Draw(t, name)))
		default:
			f.SetInt(rapid.Int64().Draw(t, name))
		}
	}
}

func drawFact(t *rapid.T) *Fact {
	f := &Fact{Kind: Kind(rapid.IntRange(1, int(kindLast)).Draw(t, "kind"))}
	drawMessage(t, f.message())
	return f
}

func TestHandWrittenEncodingIsTheContract(t *testing.T) {
	md := contract(t).Messages().ByName("Fact")
	rapid.Check(t, func(t *rapid.T) {
		f := drawFact(t)
		raw := f.Append(nil)
		m := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(raw, m); err != nil {
			t.Fatalf("protobuf refuses what we wrote: %v", err)
		}
		fd := m.WhichOneof(md.Oneofs().Get(0))
		if fd == nil || int(fd.Number()) != int(f.Kind) || string(fd.Name()) != f.Kind.String() {
			t.Fatalf("kind %v became %v", f.Kind, fd)
		}
		equalMessage(t, f.message(), m.Get(fd).Message())
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("protobuf writes\n%x, we write\n%x (%v)", again, raw, err)
		}
	})
}

func TestHandWrittenDecodingIsTheContract(t *testing.T) {
	md := contract(t).Messages().ByName("Fact")
	rapid.Check(t, func(t *rapid.T) {
		m := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(drawFact(t).Append(nil), m); err != nil {
			t.Fatal(err)
		}
		inner := m.Get(m.WhichOneof(md.Oneofs().Get(0))).Message()
		// A newer build's fields, which we must skip.
		inner.SetUnknown(protowire.AppendFixed64(protowire.AppendTag(nil, 99, protowire.Fixed64Type), 1))
		m.SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 77, protowire.BytesType), "later"))
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		f := new(Fact)
		if _, err := f.Decode(raw); err != nil {
			t.Fatalf("we refuse what protobuf wrote: %v", err)
		}
		equalMessage(t, f.message(), inner)
	})
}

func TestDecodeTellsUnknownFromMalformed(t *testing.T) {
	future := protowire.AppendBytes(protowire.AppendTag(nil, 40, protowire.BytesType), []byte("?"))
	registered := (&Registered{Tube: []byte("T1")}).AppendFact(nil)
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"empty":              {nil, ErrMalformed},
		"kind of a newer us": {future, ErrUnknownKind},
		"two kinds":          {append(bytes.Clone(registered), (&TubeSealed{}).AppendFact(nil)...), ErrMalformed},
		"cut short":          {registered[:len(registered)-1], ErrMalformed},
		"not UTF-8":          {(&Registered{Tube: []byte("\xff")}).AppendFact(nil), ErrMalformed},
		"bad rebinding":      {(&Corrected{Rebind: (&Registered{Tube: []byte("\xff")}).Append(nil)}).AppendFact(nil), ErrMalformed},
		"known and unknown":  {append(bytes.Clone(registered), future...), nil},
	} {
		kind, err := new(Fact).Decode(c.raw)
		if err != c.want || (err != nil) != (kind == KindUnknown) {
			t.Errorf("%s: %v, %v; want %v", name, kind, err, c.want)
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	raw := sampleRegistered().AppendFact(nil)
	f := new(Fact)
	if n := testing.AllocsPerRun(100, func() { _, _ = f.Decode(raw) }); n != 0 {
		t.Fatalf("%v allocations for a registration", n)
	}
}

func sampleRegistered() *Registered {
	return &Registered{
		Tube: []byte("52010012345678"), Person: bytes.Repeat([]byte{7}, PersonSize), Pool: PoolTen, Site: []byte("GY-0001"),
		SampledAt: 1642600000000, Channel: ChannelCode, Operator: []byte("op-17"), Device: []byte("d-1"), DoorAt: 1642600001000,
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sampleRegistered().AppendFact(nil))
	f.Add((&Resulted{Tube: []byte("T"), Lab: []byte("L"), Revision: 1, Outcome: OutcomeNegative}).AppendFact(nil))
	f.Add((&Corrected{Tube: []byte("T"), Person: []byte{1}, Rebind: sampleRegistered().Append(nil), Reason: []byte(strings.Repeat("r", 200))}).AppendFact(nil))
	f.Add((&SiteOpened{Site: []byte("S"), Name: []byte("观山湖")}).AppendFact(nil))
	md := contract(f).Messages().ByName("Fact")
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := new(Fact)
		if _, err := got.Decode(raw); err != nil {
			return
		}
		m := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(raw, m); err != nil {
			t.Fatalf("we take what protobuf refuses: %v", err)
		}
		// What we kept must be what protobuf kept, unknown fields apart.
		canonical := got.Append(nil)
		again := dynamicpb.NewMessage(md)
		if err := proto.Unmarshal(canonical, again); err != nil {
			t.Fatal(err)
		}
		stripUnknown(m)
		stripUnknown(again)
		if !proto.Equal(m, again) {
			t.Fatalf("protobuf reads %v, we read %v", m, again)
		}
		second := new(Fact)
		if _, err := second.Decode(canonical); err != nil || !bytes.Equal(second.Append(nil), canonical) {
			t.Fatalf("encoding is not stable: %v", err)
		}
		if !bytes.Equal(got.AppendIdentity(nil), second.AppendIdentity(nil)) {
			t.Fatal("identity changed on the way")
		}
	})
}

func stripUnknown(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() == protoreflect.MessageKind {
			stripUnknown(v.Message())
		}
		return true
	})
}

func BenchmarkDecodeRegistered(b *testing.B) {
	raw := sampleRegistered().AppendFact(nil)
	f := new(Fact)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRegistered(b *testing.B) {
	m := sampleRegistered()
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = m.AppendFact(buf[:0])
	}
}
