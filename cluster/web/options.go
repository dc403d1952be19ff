package web

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
)

// Bounds of what a write may ask for.
const (
	MaxKey  = 128              // bytes of an idempotency key
	MaxWait = 30 * time.Second // for a level of the receipt
	// DefaultWait is how long ack=replicated waits when it does not say.
	DefaultWait = 5 * time.Second
)

// Options are what a write asks for beside its body.
type Options struct {
	Key    [16]byte // of the header Idempotency-Key, as machine.KeyOf has it
	Body   [16]byte // digest of method, path and body; zero without a key
	HasKey bool
	Ack    machine.Level // Committed unless Replicated was asked for
	Wait   time.Duration // how long to wait for Replicated

	place *place
}

// Rest gives the request's place in its class to another: what is left of it
// is to wait. It may be called once the work is done and until the handler
// returns.
func (o *Options) Rest() {
	if o.place != nil {
		o.place.leave()
	}
}

// WriteOptions reads the header Idempotency-Key and the query parameters ack
// and wait. With a key the body is read, because its digest tells a repeat
// from another request under the same key.
func WriteOptions(r *http.Request) (Options, error) {
	o := Options{Ack: machine.Committed, place: &bodyOf(r).place}
	if r.URL.RawQuery != "" {
		if err := o.query(r.URL.Query()); err != nil {
			return Options{}, err
		}
	}
	switch keys := r.Header["Idempotency-Key"]; {
	case len(keys) == 0:
		return o, nil
	case len(keys) > 1 || len(keys[0]) == 0 || len(keys[0]) > MaxKey || !visible(keys[0]):
		return Options{}, problem.New(problem.Malformed, "the Idempotency-Key is not 1 to 128 visible ASCII characters", "send one key for each request, such as a UUID of version 7")
	default:
		raw, err := Body(r)
		if err != nil {
			return Options{}, err
		}
		o.HasKey, o.Key, o.Body = true, machine.KeyOf(keys[0]), bodyDigest(r, raw)
	}
	return o, nil
}

func (o *Options) query(q url.Values) error {
	for _, name := range [...]string{"ack", "wait"} {
		if len(q[name]) > 1 {
			return problem.New(problem.Malformed, "the parameter "+name+" stands twice", "send it once")
		}
	}
	switch q.Get("ack") {
	case "", "committed":
	case "replicated":
		o.Ack, o.Wait = machine.Replicated, DefaultWait
	default:
		return problem.New(problem.Invalid, "the parameter ack is neither committed nor replicated", "send ack=committed or ack=replicated")
	}
	if w := q.Get("wait"); w != "" {
		d, err := time.ParseDuration(w)
		if err != nil || d < 0 || d > MaxWait {
			return problem.New(problem.Invalid, "the parameter wait is not a time of at most 30s", "send a number and a unit, such as wait=500ms or wait=5s")
		}
		o.Wait = d
	}
	return nil
}

// bodyDigest covers method and path too: the same key and bytes sent to
// another endpoint are another request.
func bodyDigest(r *http.Request, raw []byte) (d [16]byte) {
	h := sha256.New()
	var head strings.Builder
	head.WriteString(r.Method)
	head.WriteByte(0)
	head.WriteString(r.URL.Path)
	head.WriteByte(0)
	h.Write([]byte(head.String()))
	h.Write(raw)
	var sum [sha256.Size]byte
	copy(d[:], h.Sum(sum[:0]))
	return d
}
