package identity

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"qianma/cluster/problem"
)

func TestNumbers(t *testing.T) {
	const refuse = "refused"
	cases := []struct {
		kind    Kind
		number  string
		country string
		want    string // the number as hashed, or refuse
		flags   Flags
	}{
		{Resident, "110101202311012176", "", "110101202311012176", 0},
		{Resident, " 110101 20231101 2176 ", "CHN", "110101202311012176", 0},
		{Resident, "１１０１０１２０２３１１０１２１７６", "", "110101202311012176", 0},
		{Resident, "110101202311012177", "", "110101202311012177", CheckDigit},
		{Resident, "11010519491231002X", "", "11010519491231002X", 0},
		{Resident, "11010519491231002x", "", "11010519491231002X", 0},
		{Resident, "11010519491231002ｘ", "", "11010519491231002X", 0},
		{Resident, "11010519491231002×", "", "11010519491231002X", 0},
		{Resident, "110105491231002", "", "11010519491231002X", OldForm},
		{Resident, "522121198002300018", "", "522121198002300018", CheckDigit | BirthDate},
		{Resident, "010101202311012176", "", refuse, 0},
		{Resident, "11010120231101217", "", refuse, 0},
		{Resident, "1101012023110121766", "", refuse, 0},
		{Resident, "1101012023110121X6", "", refuse, 0},
		{Resident, "11010120231101217Y", "", refuse, 0},
		{Resident, "", "", refuse, 0},
		{Resident, "１１０１０１２０２３１１０１２１７六", "", refuse, 0},
		{Resident, "110101\x80202311012176", "", refuse, 0},
		{Resident, strings.Repeat(" ", MaxNumber-18) + "110101202311012176", "", "110101202311012176", 0},
		{Resident, strings.Repeat(" ", MaxNumber-17) + "110101202311012176", "", refuse, 0},
		{HKMacauPermit, "h12345678", "", "H12345678", 0},
		{HKMacauPermit, "M1234567802", "", "M12345678", OldForm},
		{HKMacauPermit, "H1234567", "", refuse, 0},
		{HKMacauPermit, "H123456780", "", refuse, 0},
		{HKMacauPermit, "K12345678", "", refuse, 0},
		{HKMacauPermit, "123456789", "", refuse, 0},
		{TaiwanPermit, "12345678", "", "12345678", 0},
		{TaiwanPermit, "1234567801", "", "1234567801", OldForm},
		{TaiwanPermit, "123456789", "", refuse, 0},
		{TaiwanPermit, "T1234567", "", refuse, 0},
		{ResidencePermit, "810000199408230021", "", "810000199408230021", 0},
		{ResidencePermit, "830000199201300022", "", "830000199201300022", 0},
		{ResidencePermit, "820000199201300021", "", "820000199201300021", CheckDigit},
		{ResidencePermit, "110101202311012176", "", refuse, 0},
		{ForeignPermanent, "abc123456789012", "", "ABC123456789012", OldForm},
		{ForeignPermanent, "911124198108030024", "", "911124198108030024", 0},
		{ForeignPermanent, "911124198108030025", "", "911124198108030025", CheckDigit},
		{ForeignPermanent, "811124198108030024", "", refuse, 0},
		{ForeignPermanent, "AB1234567890123", "", refuse, 0},
		{Passport, "e-12345678", "GBR", "E12345678", 0},
		{Passport, "E12345678", "gbr", "E12345678", 0},
		{Passport, "E12345678", "", refuse, 0},
		{Passport, "E12345678", "GB", refuse, 0},
		{Passport, "E12345678", "GB1", refuse, 0},
		{Passport, "E123", "GBR", refuse, 0},
		{Passport, strings.Repeat("1", 21), "GBR", refuse, 0},
		{BirthCertificate, "T520012345", "", "T520012345", 0},
		{BirthCertificate, "5200123456", "", refuse, 0},
		{GuardianChild, "110101202311012176-1", "", "1101012023110121761", 0},
		{GuardianChild, "110101202311012176-0", "", refuse, 0},
		{GuardianChild, "1", "", refuse, 0},
		{"passport_card", "E12345678", "", refuse, 0},
	}
	for _, c := range cases {
		got, flags, err := Document{c.kind, c.number, c.country}.Normalize()
		switch {
		case c.want == refuse:
			if !problem.Is(err, problem.Invalid) || problem.From(err).Fix == "" {
				t.Errorf("%s %q %s: not refused in words: %v", c.kind, c.number, c.country, err)
			}
			if err != nil && len(c.number) > 3 && strings.Contains(err.Error(), c.number) {
				t.Errorf("%s: the error tells the number: %v", c.kind, err)
			}
		case err != nil:
			t.Errorf("%s %q %s: %v", c.kind, c.number, c.country, err)
		case got.Number != c.want || flags != c.flags || got.Kind != c.kind:
			t.Errorf("%s %q %s: %q, flags %v; want %q, %v", c.kind, c.number, c.country, got.Number, flags.Strings(), c.want, c.flags.Strings())
		}
	}
}

func TestEveryKindHasAForm(t *testing.T) {
	if len(Kinds()) != len(forms) {
		t.Fatalf("%d kinds, %d forms", len(Kinds()), len(forms))
	}
	_, _, err := Document{Kind: "nothing"}.Normalize()
	for _, k := range Kinds() {
		if !strings.Contains(problem.From(err).Fix, string(k)) {
			t.Errorf("the fix of an unknown kind does not name %s", k)
		}
	}
}

func TestFlagsHaveNames(t *testing.T) {
	if got := (CheckDigit | BirthDate | OldForm).Strings(); !slices.Equal(got, []string{"check_digit", "birth_date", "old_form"}) {
		t.Fatal(got)
	}
	if Flags(0).Strings() != nil {
		t.Fatal("no flags have names")
	}
}

// Whatever prints a document, its number stays inside.
func TestNumbersAreNeverPrinted(t *testing.T) {
	d := Document{Resident, "110101202311012176", "XYZ"}
	odd := Document{Kind: "110101202311012176", Number: "110101202311012176"}
	type Row struct{ Doc Document }
	var out bytes.Buffer
	for _, v := range []any{d, &d, odd, Row{d}, []Document{d}, map[string]Document{"d": d}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		l := slog.New(h)
		l.Info("x", "d", d, "p", &d, "o", odd)
		l.With("d", d).Error("y", slog.Group("g", "d", d))
	}
	_, _, err := Document{Resident, "110101202311012176" + "A", ""}.Normalize()
	fmt.Fprintf(&out, "%v %+v %#v", err, err, err)
	if s := out.String(); strings.Contains(s, "1101012") || strings.Contains(s, "XYZ") || strings.Contains(s, "31313031") {
		t.Fatal(s)
	}
}

var key = bytes.Repeat([]byte{7}, KeySize)

func hasher(tb testing.TB) *Hasher {
	tb.Helper()
	h, err := NewHasher(key)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// The pseudonym is fixed for ever: HMAC-SHA256 of kind, country and number.
func TestPersonIsTheKeyedHash(t *testing.T) {
	h := hasher(t)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("passport\x00GBR\x00E12345678"))
	want := Person(mac.Sum(nil)[:16])
	for range 3 {
		if got := h.Person(Document{Passport, "E12345678", "GBR"}); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	if h.Person(Document{Passport, "E12345678", "FRA"}) == want || h.Person(Document{Resident, "E12345678", "GBR"}) == want {
		t.Fatal("kind and country do not count")
	}
	if got := h.Person(Document{Resident, "110101202311012176", ""}).String(); got != "p_odfg4l7zzacptzyae4b5rjudym" {
		t.Fatalf("the pseudonym has changed: %s", got)
	}
}

func TestHasherIsSafeForConcurrentUse(t *testing.T) {
	h := hasher(t)
	docs := make([]Document, 64)
	want := make([]Person, len(docs))
	for i := range docs {
		docs[i] = Document{Resident, fmt.Sprintf("%018d", i), ""}
		want[i] = h.Person(docs[i])
	}
	done := make(chan bool)
	for range 4 {
		go func() {
			ok := true
			for range 200 {
				for i, d := range docs {
					ok = ok && h.Person(d) == want[i]
				}
			}
			done <- ok
		}()
	}
	for range 4 {
		if !<-done {
			t.Error("two callers shared a state")
		}
	}
}

func TestPersonText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Person(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "p"))
		s := p.String()
		if len(s) != PersonText || strings.ToLower(s) != s {
			t.Fatal(s)
		}
		if q, err := ParsePerson(s); err != nil || q != p {
			t.Fatalf("%v, %v", q, err)
		}
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q Person
		if err := json.Unmarshal(raw, &q); err != nil || q != p {
			t.Fatalf("%v, %v", q, err)
		}
	})
}

func TestPersonTextIsRefused(t *testing.T) {
	good := Person{1, 2, 3}.String()
	for _, s := range []string{"", "p_", good[2:], strings.ToUpper(good), good + "a", good[:len(good)-1], good[:len(good)-1] + "b", "q" + good[1:], good[:10] + "1" + good[11:], good[:10] + "\n" + good[11:]} {
		if _, err := ParsePerson(s); !problem.Is(err, problem.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// However a number is typed, the pseudonym is the same; and normalising twice
// changes nothing.
func TestTypingDoesNotMatter(t *testing.T) {
	h := hasher(t)
	rapid.Check(t, func(t *rapid.T) {
		d := drawDocument(t)
		want, flags, err := d.Normalize()
		if err != nil {
			t.Fatalf("%s: %v", d.Kind, err)
		}
		typed := d
		typed.Number = drawTyping(t, d.Number)
		got, odd, err := typed.Normalize()
		if err != nil || got != want || odd != flags || h.Person(got) != h.Person(want) {
			t.Fatalf("typed as %q: %q, %v; want %q", typed.Number, got.Number, err, want.Number)
		}
		again, _, err := want.Normalize()
		if err != nil || again != want {
			t.Fatalf("%q normalised again: %q, %v", want.Number, again.Number, err)
		}
	})
}

// One digit typed wrong, or two neighbours swapped, is always flagged.
func TestCheckDigitFindsTypingErrors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := []byte(drawResident(t))
		i := rapid.IntRange(1, 16).Draw(t, "at") // the first digit must not become 0
		if rapid.Bool().Draw(t, "swap") {
			n[i], n[i+1] = n[i+1], n[i]
			if n[i] == n[i+1] || n[i] == 'X' {
				t.Skip("nothing changed, or no longer a number")
			}
		} else {
			n[i] = '0' + (n[i]-'0'+byte(rapid.IntRange(1, 9).Draw(t, "by")))%10
		}
		_, flags, err := Document{Resident, string(n), ""}.Normalize()
		if err != nil || !flags.Has(CheckDigit) {
			t.Fatalf("%s: %v, %v", n, flags.Strings(), err)
		}
	})
}

func drawResident(t *rapid.T) string {
	n := rapid.StringMatching(`52(01|22|26)[0-9]{2}(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])[0-9]{3}`).Draw(t, "resident")
	return n + string(mod11Digit(n))
}

func drawDocument(t *rapid.T) Document {
	pattern := map[Kind]string{
		HKMacauPermit: `[HM]([0-9]{8}|[0-9]{10})`, TaiwanPermit: `[0-9]{8}|[0-9]{10}`,
		ResidencePermit: `8[123]0000[0-9]{11}[0-9X]`, ForeignPermanent: `[A-Z]{3}[0-9]{12}|9[0-9]{16}[0-9X]`,
		Passport: `[A-Z0-9]{5,20}`, BirthCertificate: `[A-Z][0-9]{9}`, GuardianChild: `[0-9]{17}[0-9X][1-9]`,
	}
	d := Document{Kind: rapid.SampledFrom(Kinds()).Draw(t, "kind")}
	if d.Kind == Passport {
		d.Country = rapid.StringMatching(`[A-Z]{3}`).Draw(t, "country")
	}
	if d.Kind == Resident {
		d.Number = drawResident(t)
	} else {
		d.Number = rapid.StringMatching(pattern[d.Kind]).Draw(t, "number")
	}
	return d
}

// drawTyping spells a number as a tired hand might.
func drawTyping(t *rapid.T, n string) string {
	var b strings.Builder
	for _, r := range n {
		switch rapid.IntRange(0, 7).Draw(t, "slip") {
		case 0:
			b.WriteString(" ")
		case 1:
			b.WriteString("　")
		case 2:
			b.WriteString("-")
		case 3:
			r += '！' - '!'
		case 4:
			r = []rune(strings.ToLower(string(r)))[0]
		}
		b.WriteRune(r)
	}
	if s := b.String(); len(s) <= MaxNumber {
		return s
	}
	return n
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "person.key")
	if err := NewKey(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if err := NewKey(path); err == nil {
		t.Fatal("a key was replaced")
	}
	a, err := LoadHasher(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadHasher(path)
	if err != nil {
		t.Fatal(err)
	}
	d := Document{Resident, "110101202311012176", ""}
	if a.Person(d) != b.Person(d) || a.Person(d) == hasher(t).Person(d) {
		t.Fatal("pseudonyms do not hang on the key file")
	}
	for _, bad := range []string{"", "zz", strings.Repeat("0", 62)} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadHasher(path); err == nil {
			t.Errorf("key %q was taken", bad)
		}
	}
	if _, err := LoadHasher(path + "x"); err == nil {
		t.Error("a key that is not there was taken")
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"110101202311012176", "１１０", "H12345678", "", "×", "\xff", "abc123456789012"} {
		for i := range Kinds() {
			f.Add(i, s, "GBR")
		}
	}
	f.Fuzz(func(t *testing.T, k int, number, country string) {
		kind := Kinds()[uint(k)%uint(len(Kinds()))]
		d, _, err := Document{kind, number, country}.Normalize()
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if !plain(d.Number) || len(d.Number) < 5 || len(d.Number) > 24 || (kind == Passport) != (d.Country != "") {
			t.Fatalf("%q became %q %q", number, d.Number, d.Country)
		}
		if again, _, err := d.Normalize(); err != nil || again != d {
			t.Fatalf("%q normalised again: %q, %v", d.Number, again.Number, err)
		}
	})
}

func FuzzParsePerson(f *testing.F) {
	f.Add(Person{}.String())
	f.Add(Person{255}.String())
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePerson(s); err == nil && p.String() != s {
			t.Fatalf("%q is a second name of %s", s, p)
		}
	})
}

func BenchmarkPerson(b *testing.B) {
	h := hasher(b)
	d := Document{Resident, "110101202311012176", ""}
	b.ReportAllocs()
	for b.Loop() {
		h.Person(d)
	}
}

func BenchmarkNormalize(b *testing.B) {
	d := Document{Resident, "110101202311012176", ""}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := d.Normalize(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkString(b *testing.B) {
	p := Person{1, 2, 3}
	b.ReportAllocs()
	for b.Loop() {
		_ = p.String()
	}
}
