package api

import (
	"net/http"

	"qianma/cluster/web"
)

// correct is POST /v1/corrections: a fact does not stand. It stays to be seen,
// with who took it back and why.
func (a *API) correct(w http.ResponseWriter, r *http.Request) error {
	o, err := web.WriteOptions(r)
	if err != nil {
		return err
	}
	var in correction
	if err := web.ReadJSON(r, &in); err != nil {
		return err
	}
	return a.submitOne(w, r, o, a.correctionRow(&in))
}
