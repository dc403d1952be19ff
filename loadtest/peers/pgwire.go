package peers

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"qianma/loadtest/drive"
)

const pgKinds = drive.Tube + 1

// pgStatements are what an operation of each kind asks, prepared on every
// connection under the kind's name; what is not here PostgreSQL is not asked.
var pgStatements = [pgKinds]string{
	drive.Register:      pgRegister,
	drive.RegisterBatch: pgRegisterBatch,
	drive.Report:        pgReport,
	drive.ReportBatch:   pgReportBatch,
	drive.Display:       pgRead,
	drive.Tube:          pgTube,
}

// pgTypes are the types of each statement's parameters, as the server said.
type pgTypes [pgKinds][]uint32

const (
	pgSite     = "520100-load"
	pgLab      = "lab-load"
	pgOperator = "qianma-load"
)

var (
	pgBinary  = []int16{pgtype.BinaryFormatCode}
	pgExecute = &pgproto3.Execute{}
	pgSync    = &pgproto3.Sync{}
)

// pgWriter writes operations as messages, and keeps what it needs for that from
// one to the next.
type pgWriter struct {
	types          *pgtype.Map
	bind           pgproto3.Bind
	args           []any
	values         []byte
	tubes, sampled []int64
	persons        [][16]byte
	small          []int16
}

func newPGWriter() *pgWriter {
	return &pgWriter{types: pgtype.NewMap(), bind: pgproto3.Bind{ParameterFormatCodes: pgBinary, ResultFormatCodes: pgBinary}}
}

// append appends the operation: its statement with its values, all in one
// transaction that Sync ends.
func (w *pgWriter) append(dst []byte, op *drive.Op, types *pgTypes) ([]byte, error) {
	args, oids := w.arguments(op), types[op.Kind]
	if len(args) != len(oids) {
		return dst, fmt.Errorf("a %s has %d parameters, the server wants %d", op.Kind, len(args), len(oids))
	}
	w.values, w.bind.Parameters = w.values[:0], w.bind.Parameters[:0]
	for i, arg := range args {
		from := len(w.values)
		var err error
		if w.values, err = w.types.Encode(oids[i], pgtype.BinaryFormatCode, arg, w.values); err != nil {
			return dst, err
		}
		w.bind.Parameters = append(w.bind.Parameters, w.values[from:])
	}
	w.bind.PreparedStatement = op.Kind.String()
	out, err := w.bind.Encode(dst)
	if err == nil {
		out, err = pgExecute.Encode(out)
	}
	if err == nil {
		out, err = pgSync.Encode(out)
	}
	return out, err
}

// arguments are the values of the operation's statement.
func (w *pgWriter) arguments(op *drive.Op) []any {
	w.args, w.tubes, w.sampled, w.persons, w.small = w.args[:0], w.tubes[:0], w.sampled[:0], w.persons[:0], w.small[:0]
	switch op.Kind {
	case drive.Register:
		s := &op.Samples[0]
		w.args = append(w.args, int64(s.Tube), person(s.Person), int16(s.Pool), pgSite, s.Sampled, pgOperator)
	case drive.RegisterBatch:
		for i := range op.Samples {
			s := &op.Samples[i]
			w.tubes, w.persons = append(w.tubes, int64(s.Tube)), append(w.persons, person(s.Person))
			w.small, w.sampled = append(w.small, int16(s.Pool)), append(w.sampled, s.Sampled)
		}
		w.args = append(w.args, w.tubes, w.persons, w.small, w.sampled, pgSite, pgOperator)
	case drive.Report:
		r := &op.Results[0]
		w.args = append(w.args, int64(r.Tube), pgLab, int16(r.Outcome), r.At)
	case drive.ReportBatch:
		for i := range op.Results {
			r := &op.Results[i]
			w.tubes, w.small, w.sampled = append(w.tubes, int64(r.Tube)), append(w.small, int16(r.Outcome)), append(w.sampled, r.At)
		}
		w.args = append(w.args, w.tubes, w.small, w.sampled, pgLab)
	case drive.Display:
		w.args = append(w.args, person(op.Person))
	case drive.Tube:
		w.args = append(w.args, int64(op.TubeNo))
	}
	return w.args
}

var errRow = errors.New("a row of other columns than were asked for")

// pgView reads a row into what the operation shows. Only the first one counts,
// which is what a query for one row takes.
func pgView(op *drive.Op, values [][]byte) error {
	if op.View.Found {
		return nil
	}
	var n [3]int64
	if len(values) > len(n) {
		return errRow
	}
	for i, v := range values {
		var err error
		if n[i], err = pgInteger(v); err != nil {
			return err
		}
	}
	switch {
	case op.Kind == drive.Display && len(values) == 3:
		op.View = view(n[0], uint8(n[1]), uint8(n[2]))
	case op.Kind == drive.Tube && len(values) == 1:
		op.View = drive.View{Found: true, Swabs: int(n[0])}
	default:
		return errRow
	}
	return nil
}

// pgInteger reads a number in the server's binary format, of whatever size: an
// expression's is the server's choice.
func pgInteger(v []byte) (int64, error) {
	switch len(v) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(v))), nil
	case 4:
		return int64(int32(binary.BigEndian.Uint32(v))), nil
	case 8:
		return int64(binary.BigEndian.Uint64(v)), nil
	}
	return 0, errRow
}
