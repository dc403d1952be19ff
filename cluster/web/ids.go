package web

import (
	"crypto/rand"
	"encoding/base32"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
)

// ids names requests: eight random characters of this life of the process and
// a count. A caller may bring a name of its own, so that one name runs through
// a chain of processes.
type ids struct {
	prefix string
	count  *atomic.Uint64
}

const maxID = 64

func newIDs() ids {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails; the process ends if the system has no randomness
	return ids{strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-", new(atomic.Uint64)}
}

func (i ids) take(r *http.Request) string {
	if v := r.Header["X-Request-Id"]; len(v) == 1 && len(v[0]) > 0 && len(v[0]) <= maxID && visible(v[0]) {
		return v[0]
	}
	buf := make([]byte, 0, 24)
	buf = append(buf, i.prefix...)
	return string(strconv.AppendUint(buf, i.count.Add(1), 36))
}

// visible reports whether s is printable ASCII without spaces.
func visible(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
