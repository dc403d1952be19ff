package upload

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// Reject is a row that was not taken, with the reason in words.
type Reject struct {
	Row     int    `json:"row"` // 1 is the first row behind the header
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// row is one row of the file: either what to send or why not.
type row struct {
	number int // from 1
	json   []byte
	reject *Reject
}

// maxLine bounds one NDJSON line.
const maxLine = 64 << 10

// eachRow reads the rows of a spooled file in order. It returns the first
// error of fn or of the file itself (never of a row: that is a Reject).
func eachRow(path string, kind Kind, fn func(row) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in, err := decoded(f)
	if err != nil {
		return err
	}
	first, err := in.Peek(1)
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	if err != nil {
		return err
	}
	if first[0] == '{' {
		return eachLine(in, fn)
	}
	return eachRecord(in, kind, fn)
}

// decoded hands out the file as UTF-8 without a byte order mark. A file whose
// beginning is not UTF-8 is GB18030, the only other encoding in use.
func decoded(f *os.File) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(f, 1<<18)
	head, err := in.Peek(1 << 16)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("\ufeff")) {
		_, err := in.Discard(len("\ufeff"))
		return in, err
	}
	if validPrefix(head) {
		return in, nil
	}
	return bufio.NewReaderSize(simplifiedchinese.GB18030.NewDecoder().Reader(in), 1<<18), nil
}

// validPrefix reports whether p is UTF-8 up to a rune cut off at its end.
func validPrefix(p []byte) bool {
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 {
			return len(p) < utf8.UTFMax && !utf8.FullRune(p)
		}
		p = p[n:]
	}
	return true
}

func eachRecord(in io.Reader, kind Kind, fn func(row) error) error {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	r.FieldsPerRecord = -1
	head, err := r.Read()
	if err != nil {
		return fmt.Errorf("the header cannot be read: %w", err)
	}
	places, err := kind.header(head)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		var bad *csv.ParseError
		out := row{number: n}
		switch {
		case errors.As(err, &bad):
			out.reject = &Reject{Code: "malformed", Message: fmt.Sprintf("line %d is not CSV", bad.StartLine), Fix: "mend its quotation marks"}
		case err != nil:
			return err
		default:
			out.json, out.reject = encode(places, cells)
		}
		if out.reject != nil {
			out.reject.Row = n
		}
		if err := fn(out); err != nil {
			return err
		}
	}
}

func eachLine(in *bufio.Reader, fn func(row) error) error {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for n := 1; s.Scan(); {
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		out := row{number: n, json: bytes.Clone(line)}
		if !json.Valid(line) {
			out.reject = &Reject{Row: n, Code: "malformed", Message: "the line is not JSON", Fix: "write one JSON object a line"}
		}
		if err := fn(out); err != nil {
			return err
		}
		n++
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line is longer than %d bytes", maxLine)
	}
	return s.Err()
}
