// Package vault seals the three things display must be able to show and
// nobody else may read: a citizen's name, document number and telephone.
//
// AES-256-GCM; the key is a file of the province's secrets; the citizen's
// pseudonym is the associated data, so a sealed record cannot be passed off as
// another person's. The package keeps nothing, and printing a Citizen shows
// nothing of it. A Vault is safe for concurrent use.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// KeyFile is the name of the key inside a secrets directory: 64 hex digits.
const KeyFile = "contact.key"

// Citizen is what is sealed.
type Citizen struct {
	Name   string `json:"name,omitempty"`
	Number string `json:"number,omitempty"`
	Phone  string `json:"phone,omitempty"`
}

// Format implements fmt.Formatter: no verb shows anything.
func (Citizen) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[sealed]") }

// Masked is the name as a gate may see it: the first character, then stars.
func (c Citizen) Masked() string {
	for i, r := range c.Name {
		if i == 0 {
			return string(r) + strings.Repeat("*", min(2, max(1, len([]rune(c.Name))-1)))
		}
	}
	return ""
}

// Vault seals and opens under one key.
type Vault struct {
	aead cipher.AEAD
	id   string
}

// New uses a key of 32 bytes.
func New(key []byte) (*Vault, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("vault: the key has %d bytes; want 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("qianma vault 1:"), key...))
	return &Vault{aead, hex.EncodeToString(sum[:4])}, nil
}

// Load reads a key file of 64 hex digits.
func Load(path string) (*Vault, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("vault: %s is not 64 hex digits", path)
	}
	return New(key)
}

// KeyID names the key without giving anything of it away.
func (v *Vault) KeyID() string { return v.id }

// Seal encrypts for one person: nonce, then ciphertext.
func (v *Vault) Seal(person [16]byte, c Citizen) ([]byte, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	out := make([]byte, v.aead.NonceSize(), v.aead.NonceSize()+len(plain)+v.aead.Overhead())
	if _, err := rand.Read(out); err != nil {
		return nil, err
	}
	return v.aead.Seal(out, out, plain, person[:]), nil
}

// ErrSealed is returned when a record was not sealed for this person under
// this key.
var ErrSealed = errors.New("vault: the record was sealed under another key, for another person, or is damaged")

// Open decrypts what Seal made for the same person.
func (v *Vault) Open(person [16]byte, keyID string, sealed []byte) (Citizen, error) {
	n := v.aead.NonceSize()
	if keyID != v.id || len(sealed) < n {
		return Citizen{}, ErrSealed
	}
	plain, err := v.aead.Open(nil, sealed[:n], sealed[n:], person[:])
	if err != nil {
		return Citizen{}, ErrSealed
	}
	var c Citizen
	if err := json.Unmarshal(plain, &c); err != nil {
		return Citizen{}, ErrSealed
	}
	return c, nil
}
