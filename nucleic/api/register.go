package api

import (
	"net/http"
	"time"

	"qianma/cluster/web"
	"qianma/nucleic/nucleicpb"
	"qianma/nucleic/rules"
)

// registration is one row of POST /v1/registrations.
type registration struct {
	who
	Tube      string    `json:"tube"`
	Pool      poolText  `json:"pool"`
	Site      string    `json:"site"`
	SampledAt time.Time `json:"sampled_at"`
	Channel   string    `json:"channel"`
	Operator  string    `json:"operator"`
	Device    string    `json:"device"`
	Division  string    `json:"division"`
	Revision  uint32    `json:"revision"`
}

// register binds one swab to one person.
func (a *API) register(w http.ResponseWriter, r *http.Request) error {
	var in registration
	o, err := write(r, &in)
	if err != nil {
		return err
	}
	return a.submitOne(w, r, o, a.registration(new(space), &in))
}

// registerBatch binds many, as JSON, as NDJSON, or as facts of the contract.
func (a *API) registerBatch(w http.ResponseWriter, r *http.Request) error {
	return a.batch(w, r, nucleicpb.KindRegistered, func(s *space, raw []byte) (row, error) {
		var in registration
		if err := web.Decode(raw, &in); err != nil {
			return row{}, err
		}
		return a.registration(s, &in), nil
	})
}

func (a *API) registration(s *space, in *registration) row {
	person, flags, bad := a.known(&in.who)
	if bad != nil {
		return row{Problem: bad}
	}
	m := &nucleicpb.Registered{
		Tube: []byte(in.Tube), Person: person[:], Pool: in.Pool.known(), Site: []byte(in.Site), SampledAt: ms(in.SampledAt),
		Channel: channelOf(in.Channel), Operator: []byte(in.Operator), Device: []byte(in.Device),
		Flags: uint32(flags), Division: []byte(in.Division), Revision: in.Revision, DoorAt: a.now(),
	}
	if bad := refusal(rules.CheckRegistered(m, always)); bad != nil {
		return row{Problem: bad}
	}
	return a.rowIn(s, m.Tube, m)
}

// channelOf reads a channel; one that was not given is unknown, any other
// word is invalid.
func channelOf(s string) nucleicpb.Channel {
	if s == "" {
		return nucleicpb.ChannelUnknown
	}
	c, ok := nucleicpb.ParseChannel(s)
	if !ok {
		return -1
	}
	return c
}
