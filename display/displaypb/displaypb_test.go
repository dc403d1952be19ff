package displaypb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"qianma/display/displaypb"
)

// contract compiles display.proto, which is the contract; the coder is only a
// fast way to honour it.
func contract(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}}
	files, err := c.Compile(context.Background(), "display.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Messages().ByName("Fact")
}

// bodies is one empty fact of each kind.
func bodies() []displaypb.Body {
	return []displaypb.Body{new(displaypb.CitizenApplied), new(displaypb.Declared), new(displaypb.Restricted), new(displaypb.Released),
		new(displaypb.RuleSetPublished), new(displaypb.GuardianBound), new(displaypb.Corrected)}
}

// fill draws a value for every field of a fact.
func fill(t *rapid.T, f displaypb.Body) {
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		switch x := field.Addr().Interface().(type) {
		case *displaypb.Person:
			copy(x[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
		case *displaypb.ID:
			copy(x[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name))
		case *[]displaypb.ID:
			for range rapid.IntRange(1, 3).Draw(t, name) {
				*x = append(*x, displaypb.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")))
			}
		case *[]byte:
			*x = rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, name)
		case *string:
			*x = rapid.String().Draw(t, name)
		case *int64:
			*x = rapid.Int64().Draw(t, name)
		case *bool:
			*x = rapid.Bool().Draw(t, name)
		default:
			field.SetUint(uint64(rapid.Uint32().Draw(t, name)))
		}
	}
}

func anyFact(t *rapid.T) displaypb.Body {
	all := bodies()
	f := all[rapid.IntRange(0, len(all)-1).Draw(t, "kind")]
	fill(t, f)
	return f
}

// TestCoderHonoursTheContract reads what the coder writes with the compiled
// .proto, field by field, and the other way round.
func TestCoderHonoursTheContract(t *testing.T) {
	desc := contract(t)
	rapid.Check(t, func(t *rapid.T) {
		want := anyFact(t)
		raw := displaypb.Append(nil, want)
		dyn := dynamicpb.NewMessage(desc)
		if err := proto.Unmarshal(raw, dyn); err != nil {
			t.Fatalf("the contract cannot read the coder's bytes: %v", err)
		}
		sameAsDynamic(t, want, dyn)
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(dyn)
		if err != nil {
			t.Fatal(err)
		}
		got, err := displaypb.Decode(again)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("read back %+v, %v; want %+v", got, err, want)
		}
		if !bytes.Equal(again, raw) {
			t.Fatalf("not canonical: contract %x, coder %x", again, raw)
		}
	})
}

// sameAsDynamic compares every field of a fact with the field of its name in
// the contract.
func sameAsDynamic(t *rapid.T, f displaypb.Body, dyn *dynamicpb.Message) {
	t.Helper()
	body := dyn.Get(dyn.WhichOneof(dyn.Descriptor().Oneofs().ByName("body"))).Message()
	v := reflect.ValueOf(f).Elem()
	if got := string(body.Descriptor().Name()); got != v.Type().Name() {
		t.Fatalf("the contract reads a %s, the coder wrote a %s", got, v.Type().Name())
	}
	if len(body.GetUnknown()) != 0 || body.Descriptor().Fields().Len() != v.NumField() {
		t.Fatal("the coder and the contract do not list the same fields")
	}
	for i := range v.NumField() {
		name := snake(v.Type().Field(i).Name)
		if name == "cause" {
			name = "reason"
		}
		fd := body.Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			t.Fatalf("the contract has no field %s", name)
		}
		if got, want := show(body.Get(fd), fd), fmt.Sprintf("%v", plain(v.Field(i))); got != want {
			t.Fatalf("%s: the contract reads %s, the coder wrote %s", name, got, want)
		}
	}
}

func snake(s string) string {
	s = strings.ReplaceAll(s, "ID", "Id")
	var out strings.Builder
	for i, r := range s {
		if i > 0 && r >= 'A' && r <= 'Z' {
			out.WriteByte('_')
		}
		out.WriteString(strings.ToLower(string(r)))
	}
	return out.String()
}

func show(v protoreflect.Value, fd protoreflect.FieldDescriptor) string {
	if fd.IsList() {
		var all [][]byte
		for i := range v.List().Len() {
			all = append(all, v.List().Get(i).Bytes())
		}
		return fmt.Sprintf("%v", all)
	}
	if fd.Kind() == protoreflect.BytesKind && len(v.Bytes()) == 0 {
		return "[]"
	}
	return fmt.Sprintf("%v", v.Interface())
}

// plain strips the types (and their String methods) off a value.
func plain(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case displaypb.Person:
		if x == (displaypb.Person{}) {
			return []byte{}
		}
		return x[:]
	case displaypb.ID:
		return x[:]
	case []displaypb.ID:
		var all [][]byte
		for i := range x {
			all = append(all, x[i][:])
		}
		return all
	}
	if v.CanUint() {
		return v.Uint()
	}
	return v.Interface()
}

// TestDecodeSkipsWhatANewerWriterAdded adds a field no build of today has, in
// the fact and in its body.
func TestDecodeSkipsWhatANewerWriterAdded(t *testing.T) {
	want := &displaypb.Declared{Symptoms: displaypb.Fever, At: 7}
	body, _ := protowire.ConsumeBytes(displaypb.Append(nil, want)[1:])
	body = protowire.AppendString(protowire.AppendTag(slices.Clone(body), 90, protowire.BytesType), "new")
	raw := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), body)
	raw = protowire.AppendFixed64(protowire.AppendTag(raw, 91, protowire.Fixed64Type), 7)
	got, err := displaypb.Decode(raw)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestDecodeTellsUnknownFromMalformed(t *testing.T) {
	newer := protowire.AppendBytes(protowire.AppendTag(nil, 40, protowire.BytesType), []byte("a fact of next year"))
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"nothing":      {nil, displaypb.ErrUnknown},
		"newer kind":   {newer, displaypb.ErrUnknown},
		"short person": {protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0x0a, 2, 1, 2}), displaypb.ErrMalformed},
		"not UTF-8":    {protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0x32, 1, 0xff}), displaypb.ErrMalformed},
		"cut short":    {newer[:len(newer)-1], displaypb.ErrMalformed},
	} {
		if _, err := displaypb.Decode(c.raw); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestIDHasOneSpelling(t *testing.T) {
	id := displaypb.IDOf([]byte("fact"))
	if got, err := displaypb.ParseID(id.String()); err != nil || got != id {
		t.Fatalf("got %v, %v; want %v", got, err, id)
	}
	last := id.String()[27]
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	twin := id.String()[:27] + string(letters[(strings.IndexByte(letters, last)+1)%32])
	for _, s := range []string{"", "f_", strings.ToUpper(id.String()), id.String() + "a", "p_" + id.String()[2:], twin} {
		if _, err := displaypb.ParseID(s); err == nil {
			t.Errorf("%q was taken for an id", s)
		}
	}
}

func TestCausesHaveNames(t *testing.T) {
	for _, c := range displaypb.Causes() {
		if got, ok := displaypb.ParseCause(c.String()); !ok || got != c {
			t.Errorf("cause %d: %q reads back as %d", c, c, got)
		}
	}
	if _, ok := displaypb.ParseCause("bank_depositor"); ok {
		t.Error("a cause that is no cause was read")
	}
	if _, ok := displaypb.ParseCause(""); ok || displaypb.Cause(99).String() != "unknown" {
		t.Error("no cause is a cause")
	}
}

// FuzzDecode: what the coder accepts, the contract accepts, and its canonical
// form reads back the same.
func FuzzDecode(f *testing.F) {
	desc := contract(f)
	f.Add(displaypb.Append(nil, &displaypb.Restricted{Level: displaypb.Red, Cause: displaypb.CloseContact, Evidence: "e", From: 1, Until: 2}))
	f.Add(displaypb.Append(nil, &displaypb.Released{Restrictions: []displaypb.ID{{1}, {2}}, Reason: "two negatives"}))
	f.Add(displaypb.Append(nil, &displaypb.RuleSetPublished{Name: "guizhou", Version: 3, Document: []byte("{}")}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := displaypb.Decode(raw)
		if err != nil {
			return
		}
		if err := proto.Unmarshal(raw, dynamicpb.NewMessage(desc)); err != nil {
			t.Fatalf("the coder took what the contract refuses: %v", err)
		}
		again, err := displaypb.Decode(displaypb.Append(nil, got))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("round trip: %+v, %v; want %+v", again, err, got)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw := displaypb.Append(nil, &displaypb.Restricted{Person: displaypb.Person{1}, Level: displaypb.Red, Cause: displaypb.CloseContact,
		Evidence: "case 17", Operator: "n17", Approver: "n18", Source: "520103", Scope: "province", From: 1641340800000, Until: 1642550400000})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := displaypb.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
