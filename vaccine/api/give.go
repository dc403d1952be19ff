package api

import (
	"net/http"

	"qianma/cluster/web"
)

// give is POST /v1/doses: one dose was given.
func (a *API) give(w http.ResponseWriter, r *http.Request) error {
	o, err := web.WriteOptions(r)
	if err != nil {
		return err
	}
	var in dose
	if err := web.ReadJSON(r, &in); err != nil {
		return err
	}
	return a.submitOne(w, r, o, a.doseRow(&in))
}
