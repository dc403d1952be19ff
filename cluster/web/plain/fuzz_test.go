package plain

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// prefixes under which the same bytes are looked at.
var prefixes = []string{"/v1/", "/", ""}

// Goal: net/http takes what is plain for the same. Method: any bytes; those that
// parse calls plain are read by http.ReadRequest, and all that a handler may see is
// compared. One message reads whatever comes, so that what it read before shows.
func FuzzParse(f *testing.F) {
	for _, c := range kinds {
		f.Add([]byte(c.bytes))
	}
	f.Add([]byte(get + post + get))
	var used message
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, prefix := range prefixes {
			agree(t, &used, prefix, data)
		}
	})
}

// agree fails where parse and net/http differ, and says what the bytes are.
func agree(t *testing.T, used *message, prefix string, data []byte) verdict {
	t.Helper()
	before := bytes.Clone(data)
	var fresh message
	var got, again http.Request
	v, size := fresh.parse(data, prefix, &got)
	v2, size2 := used.parse(data, prefix, &again)
	if v != v2 || size != size2 {
		t.Fatalf("%q is %d of %d bytes, and %d of %d for a message that was used", data, v, size, v2, size2)
	}
	if !bytes.Equal(data, before) {
		t.Fatalf("%q was changed to %q", before, data)
	}
	if v != plain {
		return v
	}
	in := bytes.NewReader(data)
	buffered := bufio.NewReader(in)
	want, err := http.ReadRequest(buffered)
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	body, err := io.ReadAll(want.Body)
	if err != nil {
		t.Fatalf("%q: body: %v", data, err)
	}
	if taken := len(data) - in.Len() - buffered.Buffered(); size != taken || size != fresh.size {
		t.Fatalf("%q: took %d bytes, net/http %d", data, size, taken)
	}
	same(t, data, &got, want, body)
	same(t, data, &again, want, body)
	begins(t, used, prefix, data[:size])
	return v
}

// same compares what a handler may see. The bodies are read, and so compared apart.
func same(t *testing.T, data []byte, got, want *http.Request, body []byte) {
	t.Helper()
	all, err := io.ReadAll(got.Body)
	if err != nil || !bytes.Equal(all, body) {
		t.Fatalf("%q: body %q, %v; net/http has %q", data, all, err, body)
	}
	if (got.Body == http.NoBody) != (want.Body == http.NoBody) {
		t.Fatalf("%q: NoBody in one only", data)
	}
	g, w := *got, *want
	g.Body, w.Body = nil, nil
	if !reflect.DeepEqual(&g, &w) {
		t.Fatalf("%q:\n%+v %+v\nnet/http has\n%+v %+v", data, g, *g.URL, w, *w.URL)
	}
	if want.TransferEncoding != nil || want.Close || want.Trailer != nil {
		t.Fatalf("%q asks something of the connection", data)
	}
}

// begins fails if the beginning of a plain request is taken for anything but that.
func begins(t *testing.T, m *message, prefix string, request []byte) {
	t.Helper()
	head := strings.Index(string(request), "\r\n\r\n") + 4
	for n := range len(request) {
		var r http.Request
		v, size := m.parse(request[:n], prefix, &r)
		if v != unfinished {
			t.Fatalf("%q is %d, and the beginning of %q", request[:n], v, request)
		}
		if n >= head && size != len(request) {
			t.Fatalf("%q will have %d bytes, not %d", request[:n], size, len(request))
		}
	}
}
