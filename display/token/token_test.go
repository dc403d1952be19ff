package token_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
	"pgregory.net/rapid"

	"qianma/display/token"
)

var (
	now    = time.Date(2022, 1, 5, 8, 0, 0, 0, time.UTC)
	person = [16]byte{1, 2, 3, 4, 5}
)

// keys makes the key files of one carrier and loads them back.
func keys(t testing.TB) (token.Signer, *token.KeySet) {
	t.Helper()
	dir := t.TempDir()
	if err := token.GenerateKey(dir, "unicom", now.Add(-time.Hour), 365*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	signer, err := token.LoadSigner(filepath.Join(dir, token.PrivateFile("unicom")))
	if err != nil {
		t.Fatal(err)
	}
	set, err := token.LoadKeySet(filepath.Join(dir, token.KeySetFile))
	if err != nil {
		t.Fatal(err)
	}
	return signer, set
}

func claims() token.Claims {
	return token.Claims{
		Kind: token.Online, Issuer: "unicom", Subject: token.Subject(person, now.Unix()),
		Colour: token.Green, Level: 1, Issued: now.Unix(), Expires: now.Unix() + 60, AsOf: now.Unix() - 3,
	}
}

func sign(t testing.TB, s token.Signer, c token.Claims) string {
	t.Helper()
	text, err := token.Sign(s, c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func wantRefusal(t *testing.T, err error, want token.Reason) {
	t.Helper()
	var r *token.Refusal
	if !errors.As(err, &r) || r.Reason != want {
		t.Fatalf("got %v, want a refusal for %s", err, want)
	}
}

func TestWhatIsSignedIsReadBack(t *testing.T) {
	signer, set := keys(t)
	text := sign(t, signer, claims())
	got, err := token.Verify(set, text, now)
	if err != nil || got != claims() {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !got.Belongs(person) || got.Belongs([16]byte{9}) {
		t.Fatal("a token belongs to its own person alone")
	}
	if !strings.HasPrefix(text, "QM1:") || len(text) > 220 {
		t.Fatalf("token of %d characters: %s", len(text), text)
	}
}

func TestTwoTokensOfOnePersonLookUnrelated(t *testing.T) {
	if token.Subject(person, 1) == token.Subject(person, 2) {
		t.Fatal("the subject must change with the second of issue")
	}
}

func TestClockDecidesBetweenExpiredAndNotYet(t *testing.T) {
	signer, set := keys(t)
	text := sign(t, signer, claims())
	for _, c := range []struct {
		at   time.Duration
		want token.Reason
	}{
		{-token.Leeway - time.Second, token.NotYetValid}, {-token.Leeway, ""}, {0, ""}, {59 * time.Second, ""},
		{60 * time.Second, token.Expired}, {24 * time.Hour, token.Expired},
	} {
		got, err := token.Verify(set, text, now.Add(c.at))
		if c.want == "" {
			if err != nil {
				t.Errorf("at %v: %v", c.at, err)
			}
			continue
		}
		wantRefusal(t, err, c.want)
		if got != claims() {
			t.Errorf("at %v: the refused claims are not shown", c.at)
		}
	}
}

func TestOfflineTokenSaysSoAndLastsADay(t *testing.T) {
	signer, set := keys(t)
	c := claims()
	c.Kind, c.Expires = token.Offline, now.Add(token.Offline.Life()).Unix()
	got, err := token.Verify(set, sign(t, signer, c), now.Add(23*time.Hour))
	if err != nil || got.Kind != token.Offline || got.Kind.String() != "offline" {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestEveryChangedCharacterIsRefused(t *testing.T) {
	signer, set := keys(t)
	text := sign(t, signer, claims())
	for i := range text {
		for _, swap := range "0A:" {
			if text[i] == byte(swap) {
				continue
			}
			forged := text[:i] + string(swap) + text[i+1:]
			if _, err := token.Verify(set, forged, now); err == nil {
				t.Fatalf("character %d changed to %c and the token still counts", i, swap)
			}
		}
	}
}

func TestKeyOutsideTheSetIsUnknown(t *testing.T) {
	_, set := keys(t)
	stranger, _ := keys(t)
	_, err := token.Verify(set, sign(t, stranger, claims()), now)
	wantRefusal(t, err, token.UnknownKey)
}

func TestKeyCountsOnlyBetweenItsDatesAndForItsCarrier(t *testing.T) {
	signer, set := keys(t)
	early := claims()
	early.Issued = now.Add(-2 * time.Hour).Unix()
	_, err := token.Verify(set, sign(t, signer, early), now)
	wantRefusal(t, err, token.UnknownKey)
	other := claims()
	other.Issuer = "mobile"
	_, err = token.Verify(set, sign(t, signer, other), now)
	wantRefusal(t, err, token.UnknownKey)
}

func TestGarbageIsMalformed(t *testing.T) {
	_, set := keys(t)
	for _, text := range []string{"", "QM1:", "QM1:~", "QM2:00", "QM1:0", strings.Repeat("QM1:0", 999), "http://x", "QM1::::"} {
		_, err := token.Verify(set, text, now)
		wantRefusal(t, err, token.Malformed)
	}
}

// TestRotationKeepsOldTokensVerifying rotates a key and shows both keys' tokens.
func TestRotationKeepsOldTokensVerifying(t *testing.T) {
	dir := t.TempDir()
	load := func() (token.Signer, *token.KeySet) {
		s, err := token.LoadSigner(filepath.Join(dir, token.PrivateFile("unicom")))
		if err != nil {
			t.Fatal(err)
		}
		set, err := token.LoadKeySet(filepath.Join(dir, token.KeySetFile))
		if err != nil {
			t.Fatal(err)
		}
		return s, set
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(token.GenerateKey(dir, "unicom", now.Add(-time.Hour), 48*time.Hour))
	old, _ := load()
	before := sign(t, old, claims())
	must(token.GenerateKey(dir, "unicom", now.Add(-time.Minute), 48*time.Hour))
	fresh, set := load()
	if len(set.Keys()) != 2 {
		t.Fatalf("%d keys published", len(set.Keys()))
	}
	for _, text := range []string{before, sign(t, fresh, claims())} {
		if _, err := token.Verify(set, text, now); err != nil {
			t.Fatal(err)
		}
	}
	must(token.GenerateKey(dir, "mobile", now.Add(96*time.Hour), 48*time.Hour))
	if _, set = load(); len(set.Keys()) != 1 {
		t.Fatalf("keys whose last token has expired stay published: %d", len(set.Keys()))
	}
	info, err := os.Stat(filepath.Join(dir, token.PrivateFile("unicom")))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("private key file: %v %v", info.Mode(), err)
	}
}

func TestKeySetRefusesWhatItCannotTrust(t *testing.T) {
	for name, raw := range map[string]string{
		"not json":   `{`,
		"bad kid":    `{"keys":[{"kid":"zz","alg":"EdDSA","public":""}]}`,
		"bad public": `{"keys":[{"kid":"00","alg":"EdDSA","public":"AA"}]}`,
		"too large":  `{"keys":[],"x":"` + strings.Repeat("a", 65<<10) + `"}`,
	} {
		if _, err := token.ParseKeySet([]byte(raw)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	set, err := token.ParseKeySet([]byte(`{"keys":[{"kid":"00","alg":"SM2","public":"AA"}]}`))
	if err != nil || len(set.Keys()) != 0 {
		t.Fatalf("a key of an unknown algorithm must be left out: %v", err)
	}
}

// p256 is an algorithm from outside the package: the way SM2 joins.
type p256 struct {
	private *ecdsa.PrivateKey
	public  *ecdsa.PublicKey
}

func (p p256) Algorithm() int64 { return -7 }
func (p p256) KeyID() []byte    { return []byte("p256-1") }
func (p p256) Sign(m []byte) ([]byte, error) {
	sum := sha256.Sum256(m)
	return ecdsa.SignASN1(rand.Reader, p.private, sum[:])
}
func (p p256) Verify(m, sig []byte) error {
	sum := sha256.Sum256(m)
	if !ecdsa.VerifyASN1(p.public, sum[:], sig) {
		return errors.New("no match")
	}
	return nil
}

func TestAnotherAlgorithmJoinsWithoutANewFormat(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := token.Algorithm{ID: -7, Name: "ES256", NewVerifier: func(raw []byte) (token.Verifier, error) {
		key, err := x509.ParsePKIXPublicKey(raw)
		if err != nil {
			return nil, err
		}
		return p256{public: key.(*ecdsa.PublicKey)}, nil
	}}
	doc, _ := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kid": hex.EncodeToString([]byte("p256-1")), "alg": "ES256", "carrier": "unicom",
		"public":     base64.RawURLEncoding.EncodeToString(der),
		"not_before": now.Add(-time.Hour), "not_after": now.Add(time.Hour),
	}}})
	set, err := token.ParseKeySet(doc, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Verify(set, sign(t, p256{private: private}, claims()), now); err != nil {
		t.Fatal(err)
	}
}

// arbitrary draws claims from the whole range of the format.
func arbitrary(t *rapid.T) token.Claims {
	c := token.Claims{
		Kind:    token.Kind(rapid.IntRange(1, 2).Draw(t, "kind")),
		Issuer:  rapid.StringMatching(`[a-z]{0,16}`).Draw(t, "issuer"),
		Colour:  token.Colour(rapid.IntRange(1, 4).Draw(t, "colour")),
		Level:   rapid.Uint8().Draw(t, "level"),
		Issued:  rapid.Int64Range(0, 1<<37).Draw(t, "issued"),
		Expires: rapid.Int64Range(0, 1<<37).Draw(t, "expires"),
		AsOf:    rapid.Int64Range(0, 1<<37).Draw(t, "as_of"),
		Flags:   token.Flags(rapid.Uint8().Draw(t, "flags")),
	}
	copy(c.Subject[:], rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "subject"))
	return c
}

// TestAgreesWithGoCOSE holds the hand-written coder to a general COSE library:
// the library reads and verifies our tokens, builds the very same bytes from
// the same claims, and its tokens verify here.
func TestAgreesWithGoCOSE(t *testing.T) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := private.Public().(ed25519.PublicKey)
	ours := token.NewEdSigner(private)
	theirs, err := cose.NewSigner(cose.AlgorithmEdDSA, private)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := cose.NewVerifier(cose.AlgorithmEdDSA, public)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		c := arbitrary(t)
		text, err := token.Sign(ours, c)
		if err != nil {
			t.Fatal(err)
		}
		var msg cose.Sign1Message
		if err := msg.UnmarshalCBOR(token.DecodeText(text)); err != nil {
			t.Fatal(err)
		}
		if err := msg.Verify(nil, verifier); err != nil {
			t.Fatal(err)
		}
		var list []any
		if err := cbor.Unmarshal(msg.Payload, &list); err != nil || len(list) != 9 || list[1] != c.Issuer {
			t.Fatalf("payload %v, %v", list, err)
		}

		payload, err := cbor.Marshal([]any{c.Kind, c.Issuer, c.Subject[:], c.Colour, c.Level, c.Issued, c.Expires, c.AsOf, c.Flags})
		if err != nil {
			t.Fatal(err)
		}
		built := cose.Sign1Message{Payload: payload, Headers: cose.Headers{Protected: cose.ProtectedHeader{
			cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA, cose.HeaderLabelKeyID: ours.KeyID(),
		}}}
		if err := built.Sign(rand.Reader, nil, theirs); err != nil {
			t.Fatal(err)
		}
		raw, err := built.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		if got := token.EncodeText(raw); got != text {
			t.Fatalf("go-cose writes\n%s\nwe write\n%s", got, text)
		}
	})
}

func TestIssuerHasABound(t *testing.T) {
	signer, _ := keys(t)
	c := claims()
	c.Issuer = strings.Repeat("x", 17)
	if _, err := token.Sign(signer, c); err == nil {
		t.Fatal("an issuer over the bound was signed")
	}
}

// FuzzOpen: no text may panic, and what parses is the one text of its content.
func FuzzOpen(f *testing.F) {
	signer, set := keys(f)
	f.Add(sign(f, signer, claims()))
	f.Add("QM1:")
	f.Add("QM1:6BFOXN")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := token.Verify(set, text, now)
		if err == nil && text != sign(t, signer, c) {
			t.Fatalf("a second text for the same content: %q", text)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	_, set := keys(f)
	raw, _ := json.Marshal(set)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if set, err := token.ParseKeySet(raw); err == nil {
			_, _ = json.Marshal(set)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	signer, _ := keys(b)
	c := claims()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = token.Sign(signer, c)
	}
}

func BenchmarkVerify(b *testing.B) {
	signer, set := keys(b)
	text := sign(b, signer, claims())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := token.Verify(set, text, now); err != nil {
			b.Fatal(err)
		}
	}
}
