package api

import (
	"net/http"

	"qianma/cluster/web"
)

// giveBatch is POST /v1/doses/batch: many doses, each answered by itself. A
// row that cannot be read costs that row alone.
func (a *API) giveBatch(w http.ResponseWriter, r *http.Request) error {
	o, err := web.WriteOptions(r)
	if err != nil {
		return err
	}
	var rows []row
	if web.MediaType(r) == web.Facts {
		err = web.EachFact(r, MaxRows, func(_ int, raw []byte) error {
			rows = append(rows, a.factRow(raw))
			return nil
		})
	} else {
		err = web.EachRow(r, MaxRows, func(_ int, raw []byte) error {
			rows = append(rows, a.readRow(raw))
			return nil
		})
	}
	if err != nil {
		return err
	}
	return a.submit(w, r, o, rows)
}

func (a *API) readRow(raw []byte) row {
	var in dose
	if err := web.Decode(raw, &in); err != nil {
		return refused(err)
	}
	return a.doseRow(&in)
}
