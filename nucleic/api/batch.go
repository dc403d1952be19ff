package api

import (
	"net/http"

	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
)

// batch reads rows in any of the three forms, turns each into a command, and
// submits them. A row that cannot be read is rejected in its place; a body
// that cannot be cut into rows is refused whole.
func (a *API) batch(w http.ResponseWriter, r *http.Request, kind nucleicpb.Kind, fromJSON func(s *space, raw []byte) (row, error)) error {
	o, err := web.WriteOptions(r)
	if err != nil {
		return err
	}
	var rows []row
	s := new(space)
	if web.MediaType(r) == web.Facts {
		f := new(nucleicpb.Fact)
		err = web.EachFact(r, MaxRows, func(_ int, raw []byte) error {
			rows = append(rows, a.fromFact(s, f, kind, raw))
			return nil
		})
	} else {
		err = web.EachRow(r, MaxRows, func(_ int, raw []byte) error {
			one, err := fromJSON(s, raw)
			if err != nil {
				one = row{Problem: problem.From(err)}
			}
			rows = append(rows, one)
			return nil
		})
	}
	if err != nil {
		return err
	}
	return a.submit(w, r, o, rows)
}

// fromFact turns a fact that a machine built into a row. The door writes it
// anew in the contract's one form and stamps it: it trusts nobody's bytes.
func (a *API) fromFact(s *space, f *nucleicpb.Fact, kind nucleicpb.Kind, raw []byte) row {
	switch got, err := f.Decode(raw); {
	case err != nil:
		return row{Problem: explain("malformed")}
	case got != kind:
		return row{Problem: explain(wrongKind)}
	}
	if bad := check(f); bad != nil {
		return row{Problem: bad}
	}
	if kind == nucleicpb.KindRegistered {
		f.Registered.DoorAt = a.now()
		return a.rowIn(s, f.Registered.Tube, &f.Registered)
	}
	f.Resulted.DoorAt = a.now()
	return a.rowIn(s, f.Resulted.Tube, &f.Resulted)
}
