package upload

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
)

// writeRejects copies the rejected rows of the spooled file at rows to a file
// of its own, each with its number, code, reason and fix, in a form that can
// be mended and uploaded again once the added columns are removed. The file
// holds what the input held, so only its owner may read it.
func writeRejects(path, rows string, rejects []Reject) (err error) {
	in, err := os.Open(rows)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := decoded(in)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	first, err := text.Peek(1)
	if err != nil {
		return err
	}
	if first[0] == '{' {
		return rejectedLines(out, text, rejects)
	}
	return rejectedRecords(out, text, rejects)
}

func rejectedRecords(out io.Writer, in io.Reader, rejects []Reject) error {
	r, w := csv.NewReader(in), csv.NewWriter(out)
	r.FieldsPerRecord = -1
	head, err := r.Read()
	if err != nil {
		return err
	}
	w.Write(append(head, "row", "code", "message", "fix"))
	for n := 1; len(rejects) > 0; n++ {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if rejects[0].Row != n {
			continue
		}
		w.Write(append(cells, strconv.Itoa(n), rejects[0].Code, rejects[0].Message, rejects[0].Fix))
		rejects = rejects[1:]
	}
	w.Flush()
	return w.Error()
}

func rejectedLines(out io.Writer, in io.Reader, rejects []Reject) error {
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	enc := json.NewEncoder(out)
	for n := 1; len(rejects) > 0 && s.Scan(); {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		if rejects[0].Row == n {
			if err := enc.Encode(struct {
				Reject
				Input string `json:"input"`
			}{rejects[0], s.Text()}); err != nil {
				return err
			}
			rejects = rejects[1:]
		}
		n++
	}
	return s.Err()
}
