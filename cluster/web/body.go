package web

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"

	"qianma/cluster/problem"
	"qianma/cluster/web/plain"
)

// Bounds of bodies.
const (
	MaxJSON  = 1 << 20 // one object
	MaxBatch = 4 << 20 // many rows
	MaxRow   = 64 << 10
	// firstStep is how much is set aside before a byte has come.
	firstStep = 64 << 10
	// maxKept is the largest buffer that is kept for the next request.
	maxKept = 64 << 10
)

// body reads a request's body once into memory, in step with what the whole
// server may hold, and gives it as often as it is asked for.
type body struct {
	from   io.ReadCloser
	length int64 // as declared; -1: unknown
	srv    *Server
	held   int64  // reserved of the server's budget
	buf    []byte // what was read
	own    []byte // a buffer to read into
	loaded bool
	err    error
	place  place
}

var bodies = sync.Pool{New: func() any { return new(body) }}

// lend gives a request that has taken a place a body to read.
func (s *Server) lend(r *http.Request, taken *gate) *body {
	b := bodies.Get().(*body)
	*b = body{from: r.Body, length: r.ContentLength, srv: s, own: b.own}
	b.place.gate = taken
	r.Body = b
	return b
}

// giveBack ends the use of the buffer and of the place: the handler has returned.
func (b *body) giveBack() {
	b.place.leave()
	if b.held != 0 {
		b.srv.held.Add(-b.held)
	}
	own := b.own
	if cap(own) > maxKept {
		own = nil
	}
	*b = body{own: own}
	bodies.Put(b)
}

// Read and Close make a body an io.ReadCloser for handlers that stream.
func (b *body) Read(p []byte) (int, error) {
	if b.loaded {
		return 0, io.EOF
	}
	return b.from.Read(p)
}

func (b *body) Close() error { return b.from.Close() }

// bodyOf is the request's body; outside a Server it is made here.
func bodyOf(r *http.Request) *body {
	if b, ok := r.Body.(*body); ok {
		return b
	}
	b := &body{from: r.Body, length: r.ContentLength}
	if r.Body == nil {
		b.from = http.NoBody
	}
	r.Body = b
	return b
}

// Body is the whole body of a request, up to MaxBatch. It may be asked for
// again. The bytes are valid until the handler returns.
func Body(r *http.Request) ([]byte, error) { return bodyOf(r).load(MaxBatch) }

func (b *body) load(limit int) ([]byte, error) {
	if !b.loaded {
		if b.length > int64(limit) {
			return nil, tooLarge()
		}
		b.loaded = true
		b.take()
	}
	if b.err == nil && len(b.buf) > limit {
		return nil, tooLarge()
	}
	return b.buf, b.err
}

// take has the whole body in buf: where the connection's buffer has it, there.
func (b *body) take() {
	if all, ok := plain.Whole(b.from); ok {
		b.buf = all
		return
	}
	b.own, b.err = b.read()
	b.buf = b.own
}

func (b *body) read() ([]byte, error) {
	buf := b.own[:0]
	if b.length > MaxBatch {
		return buf, tooLarge()
	}
	// One byte more than declared, so that the end is seen without growing;
	// but a mere declaration reserves no more than a first step.
	step := 4 << 10
	if b.length >= 0 {
		step = min(int(b.length)+1, firstStep)
	}
	for {
		if len(buf) == cap(buf) || cap(buf) < step {
			if len(buf) > MaxBatch {
				return buf, tooLarge()
			}
			buf = slices.Grow(buf, max(step, len(buf)))
		}
		n, err := b.from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if full := b.reserve(int64(len(buf))); full != nil {
			return buf, full
		}
		switch {
		case err == io.EOF && len(buf) > MaxBatch:
			return buf, tooLarge()
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return buf, cutShort(err)
		}
	}
}

// reserve raises what this body holds of the server's budget to n bytes.
func (b *body) reserve(n int64) error {
	if b.srv == nil || n <= b.held {
		return nil
	}
	more := n - b.held
	if b.srv.held.Add(more) > b.srv.cfg.BodyBytes {
		b.srv.held.Add(-more)
		return problem.New(problem.Overloaded, "too much is being sent at the same time", "wait as long as Retry-After says, then repeat").After(busy(Normal).RetryAfter)
	}
	b.held = n
	return nil
}

func tooLarge() error {
	return problem.New(problem.TooLarge, "the body is over the bound", "send at most 1 MiB for one thing, and at most 4 MiB and 1000 rows for a batch; cut a larger one in parts")
}

func cutShort(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return problem.Wrap(err, problem.Malformed, "the body did not come in time", "send it at once, or in smaller parts")
	}
	return problem.Wrap(err, problem.Malformed, "the body ended before its declared length", "send it again, whole")
}
