package plain

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// verdict is what the bytes of a connection are.
type verdict int

const (
	unfinished verdict = iota // the beginning of a request, so far
	plain                     // a whole request of the kind that is answered here
	other                     // anything else: net/http knows what to do
)

// message is a request taken apart. It is used for one after another of a
// connection, so that they cost next to nothing.
type message struct {
	size   int // bytes of all of it
	url    url.URL
	header http.Header
	values [maxFields]string // what header's lists are cut from
	used   int
	body   body
}

// maxFields bounds the header lines of a plain request.
const maxFields = 32

// body is a request's body, of which all has come.
type body struct {
	all  []byte
	read int
}

func (b *body) Read(p []byte) (int, error) {
	n := copy(p, b.all[b.read:])
	b.read += n
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (b *body) Close() error { return nil }

// Whole is the body of a request that has come whole. The bytes are valid until
// the handler returns. It is false for a request of net/http.
func Whole(r io.Reader) (all []byte, ok bool) {
	b, ok := r.(*body)
	if !ok {
		return nil, false
	}
	return b.all, true
}

// parse takes apart the request that buf begins with and puts it into r, which is
// empty but for its context and caller. Of an unfinished request size is what it
// will have, where that is known.
//
// Plain is a GET without a body, or a POST that says how long its body is, of
// HTTP/1.1, to one host, under the prefix, with nothing in it that asks something of
// the connection or that could be read in two ways. Nothing is taken that net/http
// would refuse, or take for something else.
func (m *message) parse(buf []byte, prefix string, r *http.Request) (v verdict, size int) {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < 0 {
		return m.begun(buf, prefix, r), 0
	}
	head := string(buf[:end+2])
	line, lines, _ := strings.Cut(head, "\r\n")
	if !m.target(line, prefix, r) {
		return other, 0
	}
	length, sized, ok := m.fields(lines, r)
	if !ok || r.Host == "" || (r.Method == http.MethodGet && length > 0) || (r.Method == http.MethodPost && !sized) {
		return other, 0
	}
	m.size = end + 4 + length
	if m.size > len(buf) {
		return unfinished, m.size
	}
	r.ContentLength, r.Body = int64(length), http.NoBody
	if length > 0 {
		m.body = body{all: buf[end+4 : m.size]}
		r.Body = &m.body
	}
	return plain, m.size
}

// begun tells by the lines that have come whether a head that has not ended may
// still become a plain one. Who has said what is no request hears so at once, and who
// ends lines otherwise would wait for an end that never comes.
func (m *message) begun(buf []byte, prefix string, r *http.Request) verdict {
	head := string(buf[:bytes.LastIndexByte(buf, '\n')+1])
	if head == "" {
		return unfinished
	}
	line, lines, _ := strings.Cut(head, "\r\n")
	if !m.target(line, prefix, r) {
		return other
	}
	if _, _, ok := m.fields(lines, r); !ok {
		return other
	}
	return unfinished
}

// target reads the first line.
func (m *message) target(line, prefix string, r *http.Request) bool {
	method, rest, _ := strings.Cut(line, " ")
	uri, version, _ := strings.Cut(rest, " ")
	switch method {
	case http.MethodGet, http.MethodPost:
		r.Method = method
	default:
		return false
	}
	path, query, asked := strings.Cut(uri, "?")
	if version != "HTTP/1.1" || !strings.HasPrefix(path, prefix) || !clean(path) || !printed(query) || strings.IndexByte(query, '#') >= 0 {
		return false
	}
	m.url = url.URL{Path: path, RawQuery: query, ForceQuery: asked && query == ""}
	r.URL, r.RequestURI = &m.url, uri
	r.Proto, r.ProtoMajor, r.ProtoMinor = version, 1, 1
	return true
}

// clean reports whether a path stands for itself: it begins at the root, nothing in
// it is escaped, and no part is empty or dots, which a mux would answer with another
// path.
func clean(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	before := byte(0)
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c == '-', c == '_':
		case c == '/' || c == '.':
			if before == '/' {
				return false
			}
		default:
			return false
		}
		before = c
	}
	return true
}

// fields reads the header lines. length is that of the body, if it is sized.
func (m *message) fields(lines string, r *http.Request) (length int, sized, ok bool) {
	if m.header == nil {
		m.header = make(http.Header, 8)
	}
	clear(m.header)
	m.used = 0
	for lines != "" {
		var line string
		line, lines, _ = strings.Cut(lines, "\r\n")
		name, value, found := strings.Cut(line, ":")
		if !found || !named(name) || !text(value) {
			return 0, false, false
		}
		name, value = canonical(name), strings.Trim(value, " \t")
		switch name {
		case "Host":
			if r.Host != "" || !host(value) {
				return 0, false, false
			}
			r.Host = value
			continue
		case "Content-Length":
			if length, ok = decimal(value); !ok || sized {
				return 0, false, false
			}
			sized = true
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return 0, false, false
			}
		case "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Te", "Pragma":
			return 0, false, false
		}
		if !m.add(name, value) {
			return 0, false, false
		}
	}
	r.Header = m.header
	return length, sized, true
}

func (m *message) add(name, value string) bool {
	if have := m.header[name]; have != nil {
		m.header[name] = append(have, value) // its capacity is its length
		return true
	}
	if m.used == maxFields {
		return false
	}
	m.values[m.used] = value
	m.header[name] = m.values[m.used : m.used+1 : m.used+1]
	m.used++
	return true
}

// canonical is the name as net/http has it.
func canonical(name string) string {
	switch name {
	case "Host", "Content-Length", "Content-Type", "Idempotency-Key", "Connection", "Accept", "Authorization":
		return name
	}
	return textproto.CanonicalMIMEHeaderKey(name)
}

// named reports whether s is a header's name.
func named(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// text reports whether s is printable ASCII with blanks.
func text(s string) bool {
	for i := 0; i < len(s); i++ {
		if (s[i] < ' ' || s[i] > '~') && s[i] != '\t' {
			return false
		}
	}
	return true
}

// host reports whether s is a name or address with or without a port.
func host(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '.' && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return s != ""
}

// decimal reads a length of at most seven digits.
func decimal(s string) (n int, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return n, len(s) > 0 && len(s) < 8
}

// printed reports whether s is printable ASCII without blanks.
func printed(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
