package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"qianma/cluster/problem"
)

// Person is a pseudonym: the same person under the same key, nothing else.
type Person [16]byte

const prefix = "p_"

// PersonText is the length of a Person's text form.
const PersonText = len(prefix) + 26

var text = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String is "p_" and 26 lower-case base32 characters.
func (p Person) String() string { return string(p.Append(make([]byte, 0, PersonText))) }

// Append adds the text form behind dst.
func (p Person) Append(dst []byte) []byte {
	return text.AppendEncode(append(dst, prefix...), p[:])
}

// MarshalText writes the text form.
func (p Person) MarshalText() ([]byte, error) { return p.Append(nil), nil }

// UnmarshalText reads the text form.
func (p *Person) UnmarshalText(b []byte) error {
	q, err := ParsePerson(string(b))
	if err == nil {
		*p = q
	}
	return err
}

// IsZero reports whether p is nobody.
func (p Person) IsZero() bool { return p == Person{} }

// ParsePerson reads what String wrote, and nothing else: one person has one
// text form.
func ParsePerson(s string) (Person, error) {
	var p Person
	if len(s) != PersonText || s[:len(prefix)] != prefix {
		return Person{}, notAPerson()
	}
	// The decoder skips line breaks, so the count has to be looked at too.
	if n, err := text.Decode(p[:], []byte(s[len(prefix):])); err != nil || n != len(p) {
		return Person{}, notAPerson()
	}
	// The last character holds 3 bits of the person and 2 that must be zero.
	if strings.IndexByte("aeimquy4", s[PersonText-1]) < 0 {
		return Person{}, notAPerson()
	}
	return p, nil
}

func notAPerson() error {
	return problem.New(problem.Invalid, "that is not a person's code name", `a code name is "p_" and 26 letters and digits, as answers of this system give it; to start from a document, ask /v1/persons/resolve`)
}

// KeySize is the length of the key that pseudonyms hang on.
const KeySize = 32

// Hasher makes pseudonyms. Whoever holds the key can test whether a number
// belongs to a pseudonym, so the key is a secret of the province.
type Hasher struct{ pool sync.Pool }

type state struct {
	mac hash.Hash
	buf []byte
	sum [sha256.Size]byte
}

// NewHasher uses a key of KeySize bytes.
func NewHasher(key []byte) (*Hasher, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("identity: the key has %d bytes; want %d", len(key), KeySize)
	}
	key = append([]byte(nil), key...)
	h := &Hasher{}
	h.pool.New = func() any { return &state{mac: hmac.New(sha256.New, key), buf: make([]byte, 0, 2*MaxNumber)} }
	return h, nil
}

// LoadHasher reads a key file that NewKey wrote: 64 hex digits.
func LoadHasher(path string) (*Hasher, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("identity: %s is not %d hex digits", path, 2*KeySize)
	}
	return NewHasher(key)
}

// NewKey writes a new key file with mode 0600. It refuses to replace one:
// without its key a province no longer knows anybody.
func NewKey(path string) error {
	var key [KeySize]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(hex.EncodeToString(key[:]) + "\n")
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	// Link fails where a file is, rename would replace it.
	return os.Link(tmp.Name(), path)
}

// Person is the pseudonym of a document that Normalize returned.
func (h *Hasher) Person(d Document) (p Person) {
	s := h.pool.Get().(*state)
	s.buf = append(s.buf[:0], d.Kind...)
	s.buf = append(append(s.buf, 0), d.Country...)
	s.buf = append(append(s.buf, 0), d.Number...)
	s.mac.Reset()
	s.mac.Write(s.buf)
	copy(p[:], s.mac.Sum(s.sum[:0]))
	clear(s.buf)
	h.pool.Put(s)
	return p
}
