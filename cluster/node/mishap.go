package node

import (
	"net/http"

	"qianma/cluster/mishap"
	"qianma/cluster/web"
)

// MishapsAnswer is GET /v1/mishaps: the orders of drills that this process is
// under. A process that was not started for drills has no such page.
type MishapsAnswer struct {
	Process string         `json:"process"`
	Orders  []mishap.Order `json:"orders"`
}

// obey lets a drill ask which orders are in force. To be asked is to look: an
// order that was given or taken back takes hold with the question, so that
// what is answered is what is so.
func (b *Base) obey() {
	if b.kit == nil {
		return
	}
	b.Web.HandleClass(web.Operations, "GET /v1/mishaps", func(w http.ResponseWriter, _ *http.Request) error {
		orders, err := b.kit.Look()
		if err != nil {
			return err
		}
		return web.WriteJSON(w, http.StatusOK, MishapsAnswer{b.Config.Name, orders})
	})
}
