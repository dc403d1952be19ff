package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Signer holds a private key, here or in a hardware module.
type Signer interface {
	Algorithm() int64 // COSE algorithm number
	KeyID() []byte    // at most 16 bytes; the caller does not change them
	Sign(message []byte) ([]byte, error)
}

// Verifier holds a public key.
type Verifier interface {
	Algorithm() int64
	Verify(message, signature []byte) error
}

// Algorithm lets keys of one kind be read from a key set.
type Algorithm struct {
	ID          int64  // COSE algorithm number
	Name        string // as the key set spells it
	NewVerifier func(public []byte) (Verifier, error)
}

// EdDSA is Ed25519, the algorithm every key set may use.
var EdDSA = Algorithm{ID: -8, Name: "EdDSA", NewVerifier: newEdVerifier}

type edVerifier ed25519.PublicKey

func newEdVerifier(public []byte) (Verifier, error) {
	if len(public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key of %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	return edVerifier(public), nil
}

func (v edVerifier) Algorithm() int64 { return EdDSA.ID }

func (v edVerifier) Verify(message, signature []byte) error {
	if len(signature) != ed25519.SignatureSize || !ed25519.Verify(ed25519.PublicKey(v), message, signature) {
		return errors.New("signature does not match")
	}
	return nil
}

type edSigner struct {
	key ed25519.PrivateKey
	kid []byte
}

// NewEdSigner signs with an Ed25519 key; its id is derived from its public half.
func NewEdSigner(key ed25519.PrivateKey) Signer {
	return &edSigner{key, keyID(key.Public().(ed25519.PublicKey))}
}

func (s *edSigner) Algorithm() int64                { return EdDSA.ID }
func (s *edSigner) KeyID() []byte                   { return s.kid }
func (s *edSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// keyID names a public key by the first bytes of its digest.
func keyID(public []byte) []byte {
	sum := sha256.Sum256(public)
	return sum[:8]
}

// Key is one public key of a set.
type Key struct {
	ID        []byte
	Carrier   string
	NotBefore time.Time // first moment at which the key may sign
	NotAfter  time.Time // first moment at which it may not
	Public    []byte
	Verifier  Verifier
	algorithm string
}

// KeySet is every public key a verifier trusts. The zero value trusts none.
type KeySet struct{ keys []Key }

// Keys returns the keys of the set.
func (s *KeySet) Keys() []Key { return slices.Clone(s.keys) }

func (s *KeySet) find(kid []byte) (*Key, bool) {
	for i := range s.keys {
		if string(s.keys[i].ID) == string(kid) {
			return &s.keys[i], true
		}
	}
	return nil, false
}

// keyJSON is a public key in a key set: what GET /v1/keys publishes.
type keyJSON struct {
	ID        string    `json:"kid"`
	Algorithm string    `json:"alg"`
	Carrier   string    `json:"carrier"`
	Public    string    `json:"public"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

type keySetJSON struct {
	Keys []keyJSON `json:"keys"`
}

// maxKeySet bounds a key set: 64 KiB is some 250 keys.
const maxKeySet = 64 << 10

// ParseKeySet reads a published key set. A key of an algorithm that is neither
// EdDSA nor among more is left out, so that an old verifier survives a new
// algorithm; a broken key is an error.
func ParseKeySet(raw []byte, more ...Algorithm) (*KeySet, error) {
	if len(raw) > maxKeySet {
		return nil, fmt.Errorf("key set of %d bytes, at most %d", len(raw), maxKeySet)
	}
	var doc keySetJSON
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	algorithms := append([]Algorithm{EdDSA}, more...)
	set := new(KeySet)
	for _, k := range doc.Keys {
		at := slices.IndexFunc(algorithms, func(a Algorithm) bool { return a.Name == k.Algorithm })
		if at < 0 {
			continue
		}
		key, err := k.key(algorithms[at])
		if err != nil {
			return nil, fmt.Errorf("key set: key %q: %w", k.ID, err)
		}
		set.keys = append(set.keys, key)
	}
	return set, nil
}

func (k keyJSON) key(a Algorithm) (Key, error) {
	id, err := hex.DecodeString(k.ID)
	if err != nil || len(id) == 0 || len(id) > maxKeyID {
		return Key{}, fmt.Errorf("kid is not 1 to %d bytes of hex", maxKeyID)
	}
	public, err := base64.RawURLEncoding.DecodeString(k.Public)
	if err != nil {
		return Key{}, fmt.Errorf("public: %w", err)
	}
	verifier, err := a.NewVerifier(public)
	if err != nil {
		return Key{}, err
	}
	return Key{id, k.Carrier, k.NotBefore, k.NotAfter, public, verifier, a.Name}, nil
}

// MarshalJSON writes the set as ParseKeySet reads it.
func (s *KeySet) MarshalJSON() ([]byte, error) {
	doc := keySetJSON{Keys: []keyJSON{}}
	for _, k := range s.keys {
		doc.Keys = append(doc.Keys, keyJSON{hex.EncodeToString(k.ID), k.algorithm, k.Carrier,
			base64.RawURLEncoding.EncodeToString(k.Public), k.NotBefore, k.NotAfter})
	}
	return json.Marshal(doc)
}

// Names of the key files inside a secrets directory.
const KeySetFile = "keys.json"

// PrivateFile is the name of a carrier's private key file.
func PrivateFile(carrier string) string { return "token-" + carrier + ".key" }

// LoadKeySet reads a key set file.
func LoadKeySet(path string, more ...Algorithm) (*KeySet, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseKeySet(raw, more...)
}

// privateJSON is a private key file.
type privateJSON struct {
	Algorithm string `json:"alg"`
	Carrier   string `json:"carrier"`
	Seed      []byte `json:"seed"`
}

// LoadSigner reads a private key file.
func LoadSigner(path string) (Signer, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var doc privateJSON
	if err := json.Unmarshal(raw, &doc); err != nil {
		// The decoder's own words could quote the key.
		return nil, fmt.Errorf("private key %s is not the JSON of a token key", path)
	}
	if doc.Algorithm != EdDSA.Name || len(doc.Seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("private key %s: want an %s seed of %d bytes", path, EdDSA.Name, ed25519.SeedSize)
	}
	return NewEdSigner(ed25519.NewKeyFromSeed(doc.Seed)), nil
}

// GenerateKey makes a new key for a carrier: its private half in
// dir/token-<carrier>.key, its public half added to dir/keys.json. Keys already
// published stay there until they have ended, so that tokens in the field keep
// verifying across a rotation. The public half is written first: a crash in
// between leaves a published key nobody signs with, never the reverse.
func GenerateKey(dir, carrier string, from time.Time, life time.Duration) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	set, err := LoadKeySet(filepath.Join(dir, KeySetFile))
	if errors.Is(err, os.ErrNotExist) {
		set, err = new(KeySet), nil
	}
	if err != nil {
		return err
	}
	from = from.UTC().Truncate(time.Second)
	set.keys = slices.DeleteFunc(set.keys, func(k Key) bool {
		return k.NotAfter.Add(Offline.Life()).Before(from) // no token of it can count any more
	})
	set.keys = append(set.keys, Key{keyID(public), carrier, from, from.Add(life), public, edVerifier(public), EdDSA.Name})
	published, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	secret, err := json.Marshal(privateJSON{EdDSA.Name, carrier, private.Seed()})
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, KeySetFile), append(published, '\n'), 0o644); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, PrivateFile(carrier)), append(secret, '\n'), 0o600)
}

// replaceFile leaves the old file or the new one, never a part of either.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".token-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
