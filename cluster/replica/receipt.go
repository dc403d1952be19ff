package replica

import (
	"encoding/binary"
	"errors"

	"qianma/cluster/machine"
)

// Rows are stored as runs: a count and a status, and where the status is not
// plain, its code. A batch that was accepted whole takes three bytes.

var errReceipt = errors.New("replica: malformed receipt")

const maxCode = 64

func appendRows(dst []byte, rows []machine.Row) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(rows)))
	for i := 0; i < len(rows); {
		n := 1
		for i+n < len(rows) && rows[i+n] == rows[i] {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		dst = append(dst, byte(rows[i].Status), byte(len(rows[i].Code)))
		dst = append(dst, rows[i].Code...)
		i += n
	}
	return dst
}

func decodeRows(p []byte) (rows []machine.Row, rest []byte, err error) {
	total, w := binary.Uvarint(p)
	if w <= 0 || total > MaxCommands {
		return nil, nil, errReceipt
	}
	p = p[w:]
	rows = make([]machine.Row, 0, total)
	for uint64(len(rows)) < total {
		n, w := binary.Uvarint(p)
		if w <= 0 || n == 0 || n > total-uint64(len(rows)) || len(p) < w+2 {
			return nil, nil, errReceipt
		}
		row := machine.Row{Status: machine.Status(p[w])}
		size := int(p[w+1])
		p = p[w+2:]
		if size > len(p) {
			return nil, nil, errReceipt
		}
		row.Code, p = string(p[:size]), p[size:]
		for range n {
			rows = append(rows, row)
		}
	}
	return rows, p, nil
}

// stored is a receipt under its idempotency key.
type stored struct {
	body        [16]byte
	origin      uint32 // id of the origin in this store
	first, last uint64
	rows        []machine.Row
}

func (s *stored) append(dst []byte) []byte {
	dst = append(dst, s.body[:]...)
	dst = binary.AppendUvarint(dst, uint64(s.origin))
	dst = binary.AppendUvarint(dst, s.first)
	dst = binary.AppendUvarint(dst, s.last-s.first)
	return appendRows(dst, s.rows)
}

func decodeStored(p []byte) (s stored, err error) {
	if len(p) < len(s.body) {
		return s, errReceipt
	}
	p = p[copy(s.body[:], p):]
	var n [3]uint64
	for i := range n {
		v, w := binary.Uvarint(p)
		if w <= 0 {
			return s, errReceipt
		}
		n[i], p = v, p[w:]
	}
	s.origin, s.first, s.last = uint32(n[0]), n[1], n[1]+n[2]
	s.rows, p, err = decodeRows(p)
	if err == nil && len(p) != 0 {
		err = errReceipt
	}
	return s, err
}
