package drill

import "qianma/chaos/model"

// plants are lies told to the checkers in a canary drill: what they find then
// proves that they look.
var plants = map[string]func(*model.History){
	// A replica drops one fact: one acknowledged member is missing in the end.
	"forget-one": func(h *model.History) {
		for i := range h.Ops {
			if w := h.Ops[i]; w.Kind == model.Register && w.Tube != "" && w.Outcome == model.OK {
				for k := range h.Ops {
					if r := &h.Ops[k]; r.Final && r.Tube == w.Tube {
						r.Members &^= 1 << w.Member
					}
				}
				return
			}
		}
	},
}
