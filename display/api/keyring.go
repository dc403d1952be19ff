package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"qianma/display/token"
)

// Keyring is this carrier's private token key and every carrier's public ones,
// as the files of a secrets directory say. It looks at the files again every
// few seconds of use, so that a rotation needs no restart; files that cannot be
// read leave what was read before in force.
type Keyring struct {
	dir, carrier string
	current      atomic.Pointer[keys]

	mu    sync.Mutex
	check atomic.Int64 // when to look again, Unix seconds
	stamp [2]time.Time // of the files that were read
}

// keys is one reading of the files.
type keys struct {
	signer    token.Signer
	set       *token.KeySet
	published []byte // the set as GET /v1/keys answers
	notBefore time.Time
	notAfter  time.Time
}

// keyPace is how often the files are looked at, in seconds.
const keyPace = 5

// OpenKeyring reads the files of a secrets directory.
func OpenKeyring(dir, carrier string) (*Keyring, error) {
	k := &Keyring{dir: dir, carrier: carrier}
	return k, k.read()
}

func (k *Keyring) files() [2]string {
	return [2]string{filepath.Join(k.dir, token.PrivateFile(k.carrier)), filepath.Join(k.dir, token.KeySetFile)}
}

func (k *Keyring) read() error {
	var stamp [2]time.Time
	for i, name := range k.files() {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("token keys: %w", err)
		}
		stamp[i] = info.ModTime()
	}
	if stamp == k.stamp {
		return nil
	}
	signer, err := token.LoadSigner(k.files()[0])
	if err != nil {
		return fmt.Errorf("token keys: %w", err)
	}
	set, err := token.LoadKeySet(k.files()[1])
	if err != nil {
		return fmt.Errorf("token keys: %w", err)
	}
	next := &keys{signer: signer, set: set}
	if next.published, err = json.Marshal(set); err != nil {
		return err
	}
	for _, key := range set.Keys() {
		if string(key.ID) == string(signer.KeyID()) {
			next.notBefore, next.notAfter = key.NotBefore, key.NotAfter
		}
	}
	if next.notAfter.IsZero() {
		return errors.New("token keys: the private key is not among the published ones: nobody could check its tokens")
	}
	k.current.Store(next)
	k.stamp = stamp
	return nil
}

// now returns the keys in force, after a look at the files when one is due.
func (k *Keyring) now(unix int64) *keys {
	if unix >= k.check.Load() && k.mu.TryLock() {
		defer k.mu.Unlock()
		k.check.Store(unix + keyPace)
		_ = k.read() // what was read before stays in force; Check tells
	}
	return k.current.Load()
}

// Check reports why tokens signed now would not count, if so.
func (k *Keyring) Check(now time.Time) error {
	if in := k.now(now.Unix()); now.Before(in.notBefore) || !now.Before(in.notAfter) {
		return errors.New("the token key does not count at this time: rotate it")
	}
	return nil
}
