package token

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// Prefix opens every token of this layout; a new layout takes a new prefix.
const Prefix = "QM1:"

// Kind says how a token was meant to be used. Numbers never change.
type Kind uint8

// The kinds of token.
const (
	Online  Kind = 1 // fetched a moment ago; counts for Kind.Life
	Offline Kind = 2 // kept for a day without network; a gate may refuse it
)

// Life is how long a token of this kind counts.
func (k Kind) Life() time.Duration {
	if k == Offline {
		return 24 * time.Hour
	}
	return time.Minute
}

// String is "online" or "offline".
func (k Kind) String() string {
	switch k {
	case Online:
		return "online"
	case Offline:
		return "offline"
	}
	return "unknown"
}

// Colour is a displayed colour. Numbers never change.
type Colour uint8

// The displayed colours, from best to worst.
const (
	Green  Colour = 1
	Yellow Colour = 2
	Orange Colour = 3
	Red    Colour = 4
)

// String is the colour's name in the API.
func (c Colour) String() string {
	switch c {
	case Green:
		return "green"
	case Yellow:
		return "yellow"
	case Orange:
		return "orange"
	case Red:
		return "red"
	}
	return "unknown"
}

// Flags qualify a statement.
type Flags uint8

// The flags of a statement.
const (
	Stale   Flags = 1 << 0 // the data behind the colour was older than the rule set calls fresh
	Managed Flags = 1 << 1 // green, but under management
)

// Claims is what a token states.
type Claims struct {
	Kind    Kind
	Issuer  string // carrier that signed; at most 16 bytes
	Subject [SubjectSize]byte
	Colour  Colour
	Level   uint8 // internal risk level behind the colour: 1 green … 5 purple
	Issued  int64 // Unix seconds
	Expires int64 // Unix seconds; the first second in which it no longer counts
	AsOf    int64 // Unix seconds: how far the data behind the colour reached; 0: no data
	Flags   Flags
}

// SubjectSize is the length of a blinded subject in bytes.
const SubjectSize = 12

// Subject blinds a person's pseudonym with the second of issue.
func Subject(person [16]byte, issued int64) (s [SubjectSize]byte) {
	var msg [17 + 16 + 8]byte
	copy(msg[:], "qianma subject 1:")
	copy(msg[17:], person[:])
	binary.BigEndian.PutUint64(msg[33:], uint64(issued))
	sum := sha256.Sum256(msg[:])
	copy(s[:], sum[:])
	return s
}

// Belongs reports whether the token was issued for the person.
func (c *Claims) Belongs(person [16]byte) bool { return Subject(person, c.Issued) == c.Subject }

// maxText bounds what a decoder looks at; a real token has under 220 bytes.
const maxText = 512

// Sign issues the token of the claims under the signer's key.
func Sign(s Signer, c Claims) (string, error) {
	if len(c.Issuer) > maxIssuer {
		return "", fmt.Errorf("token: issuer of %d bytes, at most %d", len(c.Issuer), maxIssuer)
	}
	var payload, protected, scratch [160]byte
	pay := appendPayload(payload[:0], &c)
	pro := appendProtected(protected[:0], s.Algorithm(), s.KeyID())
	sig, err := s.Sign(appendToSign(scratch[:0], pro, pay))
	if err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	var envelope, text [maxText]byte
	env := appendEnvelope(envelope[:0], pro, pay, sig)
	return string(appendBase45(append(text[:0], Prefix...), env)), nil
}

// Open reads a token and proves its signature against the key set, but leaves
// the clock alone. The error is a *Refusal.
func Open(set *KeySet, text string) (Claims, error) {
	env, err := parse(text)
	if err != nil {
		return Claims{}, err
	}
	key, ok := set.find(env.kid)
	if !ok || key.Verifier.Algorithm() != env.algorithm {
		return env.claims, refuse(UnknownKey, "it was signed with a key that is not in the key set")
	}
	var scratch [256]byte
	if key.Verifier.Verify(appendToSign(scratch[:0], env.protected, env.payload), env.signature) != nil {
		return env.claims, refuse(BadSignature, "its signature does not match its content")
	}
	if at := time.Unix(env.claims.Issued, 0); at.Before(key.NotBefore) || !at.Before(key.NotAfter) {
		return env.claims, refuse(UnknownKey, "it was issued at a time when its key did not count")
	}
	if key.Carrier != env.claims.Issuer {
		return env.claims, refuse(UnknownKey, "its key belongs to another issuer")
	}
	return env.claims, nil
}

// Leeway is how far a gate's clock may trail the issuer's before a fresh token
// looks as if it came from the future. Expiry gets no leeway: a gate whose
// clock is late must not extend anything.
const Leeway = 30 * time.Second

// Verify is Open and the clock. The claims are returned with the Refusal where
// they could be read, so that a gate can show what it refuses.
func Verify(set *KeySet, text string, now time.Time) (Claims, error) {
	c, err := Open(set, text)
	switch {
	case err != nil:
		return c, err
	case now.Unix() >= c.Expires:
		return c, refuse(Expired, "it no longer counts; ask for the code to be refreshed")
	case time.Unix(c.Issued, 0).After(now.Add(Leeway)):
		return c, refuse(NotYetValid, "it was issued in the future of this device's clock")
	}
	return c, nil
}

// Reason says, for programs, why a token was refused. Reasons are stable.
type Reason string

// Why a token can be refused.
const (
	Malformed    Reason = "malformed"
	UnknownKey   Reason = "unknown_key"
	BadSignature Reason = "bad_signature"
	Expired      Reason = "expired"
	NotYetValid  Reason = "not_yet_valid"
)

// Refusal is the error of Open and Verify.
type Refusal struct {
	Reason  Reason
	Message string // a plain sentence that continues "the token is refused: "
}

// Error is the sentence behind its reason.
func (r *Refusal) Error() string { return "token: " + string(r.Reason) + ": " + r.Message }

func refuse(r Reason, message string) *Refusal { return &Refusal{r, message} }
