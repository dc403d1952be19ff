package vaccinepb_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"qianma/vaccine/vaccinepb"
)

// contract compiles vaccine.proto, which is the contract; the coder is only a
// fast way to honour it.
func contract(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}}
	files, err := c.Compile(context.Background(), "vaccine.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Messages().ByName("Fact")
}

func doseGiven() *rapid.Generator[vaccinepb.Fact] {
	return rapid.Custom(func(t *rapid.T) vaccinepb.Fact {
		return vaccinepb.Fact{Kind: vaccinepb.KindDoseGiven, DoseGiven: vaccinepb.DoseGiven{
			Person:   vaccinepb.Person(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "person")),
			Product:  rapid.String().Draw(t, "product"),
			Batch:    rapid.String().Draw(t, "batch"),
			Dose:     rapid.Uint32().Draw(t, "dose"),
			Site:     rapid.String().Draw(t, "site"),
			Day:      rapid.Int32().Draw(t, "day"),
			Operator: rapid.String().Draw(t, "operator"),
		}}
	})
}

func corrected() *rapid.Generator[vaccinepb.Fact] {
	return rapid.Custom(func(t *rapid.T) vaccinepb.Fact {
		return vaccinepb.Fact{Kind: vaccinepb.KindCorrected, Corrected: vaccinepb.Corrected{
			Person:   vaccinepb.Person(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "person")),
			Target:   vaccinepb.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "target")),
			Operator: rapid.String().Draw(t, "operator"),
			Reason:   rapid.String().Draw(t, "reason"),
			At:       rapid.Int64().Draw(t, "at"),
		}}
	})
}

func anyFact() *rapid.Generator[vaccinepb.Fact] { return rapid.OneOf(doseGiven(), corrected()) }

// TestCoderHonoursTheContract reads what the coder writes with the compiled
// .proto, and the other way round.
func TestCoderHonoursTheContract(t *testing.T) {
	desc := contract(t)
	rapid.Check(t, func(t *rapid.T) {
		want := anyFact().Draw(t, "fact")
		raw := want.Append(nil)

		dyn := dynamicpb.NewMessage(desc)
		if err := proto.Unmarshal(raw, dyn); err != nil {
			t.Fatalf("the contract cannot read the coder's bytes: %v", err)
		}
		if len(dyn.GetUnknown()) != 0 {
			t.Fatalf("the coder wrote fields that are not in the contract")
		}
		sameAsDynamic(t, &want, dyn)

		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(dyn)
		if err != nil {
			t.Fatal(err)
		}
		got, err := vaccinepb.Decode(again)
		if err != nil || got != want {
			t.Fatalf("read back %+v, %v; want %+v", got, err, want)
		}
		if !bytes.Equal(again, raw) {
			t.Fatalf("not canonical: contract %x, coder %x", again, raw)
		}
	})
}

func sameAsDynamic(t *rapid.T, f *vaccinepb.Fact, dyn *dynamicpb.Message) {
	t.Helper()
	body := dyn.Get(dyn.WhichOneof(dyn.Descriptor().Oneofs().ByName("body"))).Message()
	get := func(name protoreflect.Name) protoreflect.Value {
		return body.Get(body.Descriptor().Fields().ByName(name))
	}
	var same bool
	switch f.Kind {
	case vaccinepb.KindDoseGiven:
		d := &f.DoseGiven
		same = body.Descriptor().Name() == "DoseGiven" && bytes.Equal(get("person").Bytes(), d.Person[:]) &&
			get("product").String() == d.Product && get("batch").String() == d.Batch && get("dose").Uint() == uint64(d.Dose) &&
			get("site").String() == d.Site && get("day").Int() == int64(d.Day) && get("operator").String() == d.Operator
	case vaccinepb.KindCorrected:
		c := &f.Corrected
		same = body.Descriptor().Name() == "Corrected" && bytes.Equal(get("person").Bytes(), c.Person[:]) &&
			bytes.Equal(get("target").Bytes(), c.Target[:]) && get("operator").String() == c.Operator &&
			get("reason").String() == c.Reason && get("at").Int() == c.At
	}
	if !same {
		t.Fatalf("the contract reads %v, the coder wrote %+v", dyn, f)
	}
}

// TestDecodeSkipsWhatANewerWriterAdded adds a field no build of today has, in
// the fact and in its body.
func TestDecodeSkipsWhatANewerWriterAdded(t *testing.T) {
	f := vaccinepb.Fact{Kind: vaccinepb.KindDoseGiven, DoseGiven: vaccinepb.DoseGiven{Product: "BBIBP", Dose: 2}}
	body, _ := protowire.ConsumeBytes(f.Append(nil)[1:])
	body = protowire.AppendString(protowire.AppendTag(append([]byte(nil), body...), 90, protowire.BytesType), "new")
	raw := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), body)
	raw = protowire.AppendFixed64(protowire.AppendTag(raw, 91, protowire.Fixed64Type), 7)

	got, err := vaccinepb.Decode(raw)
	if err != nil || got != f {
		t.Fatalf("got %+v, %v; want %+v", got, err, f)
	}
}

func TestDecodeTellsUnknownFromMalformed(t *testing.T) {
	newer := protowire.AppendBytes(protowire.AppendTag(nil, 40, protowire.BytesType), []byte("a fact of next year"))
	shortPerson := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0x0a, 2, 1, 2})
	notText := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte{0x12, 1, 0xff})
	for name, c := range map[string]struct {
		raw  []byte
		want error
	}{
		"nothing":      {nil, vaccinepb.ErrUnknown},
		"newer kind":   {newer, vaccinepb.ErrUnknown},
		"short person": {shortPerson, vaccinepb.ErrMalformed},
		"not UTF-8":    {notText, vaccinepb.ErrMalformed},
		"cut short":    {newer[:len(newer)-1], vaccinepb.ErrMalformed},
	} {
		if _, err := vaccinepb.Decode(c.raw); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestIDHasOneSpelling(t *testing.T) {
	id := vaccinepb.IDOf([]byte("fact"))
	got, err := vaccinepb.ParseID(id.String())
	if err != nil || got != id {
		t.Fatalf("got %v, %v; want %v", got, err, id)
	}
	last := id.String()[27]
	twin := id.String()[:27] + string("abcdefghijklmnopqrstuvwxyz234567"[(strings.IndexByte("abcdefghijklmnopqrstuvwxyz234567", last)+1)%32])
	for _, s := range []string{"", "f_", strings.ToUpper(id.String()), id.String() + "a", "p_" + id.String()[2:], twin} {
		if _, err := vaccinepb.ParseID(s); err == nil {
			t.Errorf("%q was taken for an id", s)
		}
	}
}

// FuzzDecode: what the coder accepts, the contract accepts and reads alike.
func FuzzDecode(f *testing.F) {
	desc := contract(f)
	seed := vaccinepb.Fact{Kind: vaccinepb.KindCorrected, Corrected: vaccinepb.Corrected{Reason: "wrong arm", At: 1641340800000}}
	f.Add(seed.Append(nil))
	seed = vaccinepb.Fact{Kind: vaccinepb.KindDoseGiven, DoseGiven: vaccinepb.DoseGiven{Product: "BBIBP", Dose: 1, Day: 18997}}
	f.Add(seed.Append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := vaccinepb.Decode(raw)
		if err != nil {
			return
		}
		dyn := dynamicpb.NewMessage(desc)
		if err := proto.Unmarshal(raw, dyn); err != nil {
			t.Fatalf("the coder took what the contract refuses: %v", err)
		}
		canonical := got.Append(nil)
		again, err := vaccinepb.Decode(canonical)
		if err != nil || again != got {
			t.Fatalf("round trip: %+v, %v; want %+v", again, err, got)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	f := vaccinepb.Fact{Kind: vaccinepb.KindDoseGiven, DoseGiven: vaccinepb.DoseGiven{Person: vaccinepb.Person{1}, Product: "BBIBP-CorV", Batch: "202108B2715", Dose: 2, Site: "520103-01", Day: 18997, Operator: "n17"}}
	raw := f.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := vaccinepb.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
