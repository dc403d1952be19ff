package client

import (
	"bytes"
	"strconv"
	"time"
)

// appendRequest writes the call as HTTP/1.1.
func appendRequest(dst []byte, host string, c *Call) []byte {
	if c.Post {
		dst = append(dst, "POST "...)
	} else {
		dst = append(dst, "GET "...)
	}
	dst = append(dst, c.Path...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, host...)
	if c.Post {
		dst = append(dst, "\r\nContent-Type: "...)
		dst = append(dst, c.Type...)
		dst = append(dst, "\r\nContent-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(c.Body)), 10)
	}
	if len(c.Key) > 0 {
		dst = append(dst, "\r\nIdempotency-Key: "...)
		dst = append(dst, c.Key...)
	}
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, c.Body...)
}

// answer is one HTTP response as far as it has arrived.
type answer struct {
	status     int
	retryAfter time.Duration
	body       []byte
	leader     []byte // the node that later writes should go to; empty: not said
	last       bool   // the server closes the connection behind it
}

type progress int

const (
	more  progress = iota // not whole yet
	whole                 // an answer, and nothing behind it
	bad                   // not an answer
)

// parse reads an answer from the front of p. ended says that the server has
// closed its side, so nothing more will come. It starts anew at each call:
// nearly every answer arrives in one piece.
func parse(p []byte, ended bool, out *answer) progress {
	for {
		head := bytes.Index(p, crlf2)
		if head < 0 {
			return short(ended)
		}
		h, ok := parseHead(p[:head+2])
		if !ok {
			return bad
		}
		rest := p[head+4:]
		if h.status >= 100 && h.status < 200 && h.status != 101 {
			p = rest // an interim answer; the real one follows
			continue
		}
		out.status, out.retryAfter, out.leader, out.last = h.status, h.retryAfter, h.leader, h.close
		return parseBody(h, rest, ended, out)
	}
}

func parseBody(h head, rest []byte, ended bool, out *answer) progress {
	switch {
	case h.status == 204 || h.status == 304:
		out.body = rest[:0]
		return exact(len(rest) == 0)
	case h.chunked:
		return parseChunks(rest, ended, out)
	case h.length >= 0:
		if len(rest) < h.length {
			return short(ended)
		}
		out.body = rest[:h.length]
		return exact(len(rest) == h.length)
	default: // it ends when the connection does
		out.body, out.last = rest, true
		if ended {
			return whole
		}
		return more
	}
}

func short(ended bool) progress {
	if ended {
		return bad
	}
	return more
}

// exact refuses bytes behind an answer: with one request in flight they
// cannot be anybody's.
func exact(ok bool) progress {
	if ok {
		return whole
	}
	return bad
}

// parseChunks joins the chunks in place, over their own framing. It only
// writes once the last chunk is there, because parse may be called again.
func parseChunks(p []byte, ended bool, out *answer) progress {
	end, state := walkChunks(p, nil)
	if state == more {
		return short(ended)
	}
	if state == bad || end != len(p) {
		return bad
	}
	n := 0
	walkChunks(p, func(chunk []byte) { n += copy(p[n:], chunk) })
	out.body = p[:n]
	return whole
}

func walkChunks(p []byte, visit func([]byte)) (end int, state progress) {
	for at := 0; ; {
		line := bytes.Index(p[at:], crlf)
		if line < 0 {
			return 0, more
		}
		text, _, _ := bytes.Cut(p[at:at+line], []byte{';'})
		size, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 16, 31)
		if err != nil {
			return 0, bad
		}
		at += line + 2
		if size == 0 {
			return endOfChunks(p, at)
		}
		if len(p)-at < int(size)+2 {
			return 0, more
		}
		chunk := p[at : at+int(size)]
		at += int(size)
		if p[at] != '\r' || p[at+1] != '\n' {
			return 0, bad
		}
		at += 2
		if visit != nil {
			visit(chunk)
		}
	}
}

// endOfChunks skips trailers up to the empty line.
func endOfChunks(p []byte, at int) (int, progress) {
	for {
		line := bytes.Index(p[at:], crlf)
		if line < 0 {
			return 0, more
		}
		at += line + 2
		if line == 0 {
			return at, whole
		}
	}
}

var (
	crlf  = []byte("\r\n")
	crlf2 = []byte("\r\n\r\n")
)

type head struct {
	status     int
	length     int // -1: not said
	chunked    bool
	close      bool
	retryAfter time.Duration
	leader     []byte // who leads, as a base address; empty: not said
}

// parseHead reads the status line and the five headers that matter here.
// Every line of p ends in CRLF.
func parseHead(p []byte) (head, bool) {
	h := head{length: -1, retryAfter: -1}
	// "HTTP/1.1 200": the reason behind it may be missing.
	if len(p) < 14 || string(p[:7]) != "HTTP/1." || p[8] != ' ' {
		return h, false
	}
	h.close = p[7] == '0'
	for _, d := range p[9:12] {
		if d < '0' || d > '9' {
			return h, false
		}
		h.status = h.status*10 + int(d-'0')
	}
	first := bytes.Index(p, crlf)
	if bytes.IndexByte(p[:first], '\n') >= 0 {
		return h, false // a line that others would read as two
	}
	for p = p[first+2:]; len(p) > 0; {
		end := bytes.Index(p, crlf)
		if bytes.IndexByte(p[:end], '\n') >= 0 || !h.line(p[:end]) {
			return h, false
		}
		p = p[end+2:]
	}
	return h, h.status >= 100
}

func (h *head) line(l []byte) bool {
	colon := bytes.IndexByte(l, ':')
	if colon < 0 {
		return false
	}
	// The length tells most headers apart before any byte is compared.
	switch name := l[:colon]; {
	case colon == len("content-length") && bytes.EqualFold(name, []byte("content-length")):
		n, ok := number(l[colon+1:])
		h.length = n
		return ok
	case colon == len("transfer-encoding") && bytes.EqualFold(name, []byte("transfer-encoding")):
		h.chunked = bytes.EqualFold(bytes.TrimSpace(l[colon+1:]), []byte("chunked"))
		return h.chunked
	case colon == len("connection") && bytes.EqualFold(name, []byte("connection")):
		h.close = h.close || bytes.EqualFold(bytes.TrimSpace(l[colon+1:]), []byte("close"))
	case colon == len("retry-after") && bytes.EqualFold(name, []byte("retry-after")):
		if n, ok := number(l[colon+1:]); ok {
			h.retryAfter = time.Duration(n) * time.Second
		}
	case colon == len("x-leader") && bytes.EqualFold(name, []byte("x-leader")):
		h.leader = bytes.TrimSpace(l[colon+1:])
	}
	return true
}

func number(p []byte) (int, bool) {
	p = bytes.TrimSpace(p)
	n := 0
	for _, d := range p {
		if d < '0' || d > '9' || n > 1<<40 {
			return -1, false
		}
		n = n*10 + int(d-'0')
	}
	return n, len(p) > 0
}
