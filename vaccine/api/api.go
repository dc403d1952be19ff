// Package api is the vaccine subsystem's HTTP door: it reads requests, turns
// their rows into commands of the contract, hands them to the replicated group
// and says what became of each; and it shows a person's history.
//
// It promises that nothing of a request is half-written within a shard, that
// every row is answered, that an answer never says a level of safety that was
// not reached, that nothing of a document's number is kept, logged or repeated
// in an error, and that openapi.yaml describes exactly what it serves. It
// keeps no state, and refuses to know what makes a dose right: that is the
// rules'.
package api

import (
	"context"
	"net/http"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/identity"
	"qianma/cluster/intake"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/web"
)

// Bounds of requests.
const (
	// MaxRows is the most rows one request may carry.
	MaxRows = 1000
	// commitWait bounds how long a write waits for its commit. What has not
	// been answered by then is unknown, never failed.
	commitWait = 15 * time.Second
	// readWait bounds how long a read waits to be sure it sees everything.
	readWait = 2 * time.Second
)

// Config is what the door stands on.
type Config struct {
	Proposer machine.Proposer
	Hasher   *identity.Hasher
	Clock    clock.Clock // nil: the machine's
}

// API answers requests. It is safe for concurrent use.
type API struct {
	proposer machine.Proposer
	intake   *intake.Intake
	hasher   *identity.Hasher
	clock    clock.Clock
}

// New returns the door.
func New(c Config) *API {
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	in := &intake.Intake{Proposer: c.Proposer, Wait: commitWait, Look: "read the doses of the persons concerned"}
	return &API{proposer: c.Proposer, intake: in, hasher: c.Hasher, clock: c.Clock}
}

// Route is one endpoint.
type Route struct {
	Class   web.Class
	Pattern string // of http.ServeMux
	Handler func(w http.ResponseWriter, r *http.Request) error
}

// Routes lists the endpoints. History is what is shed first of all: displays
// have its summary from the middle store.
func (a *API) Routes() []Route {
	return []Route{
		{web.Normal, "POST /v1/doses", a.give},
		{web.Normal, "POST /v1/doses/batch", a.giveBatch},
		{web.Normal, "POST /v1/corrections", a.correct},
		{web.Optional, "GET /v1/persons/{person}/doses", a.showDoses},
		{web.Normal, "GET /openapi.yaml", a.showContract},
	}
}

// Register adds the endpoints to a server.
func (a *API) Register(s *web.Server) {
	for _, r := range a.Routes() {
		s.HandleClass(r.Class, r.Pattern, r.Handler)
	}
}

// view opens a reader that sees every acknowledged write. Where no majority
// can vouch for that, it opens what this process has, and says so.
func (a *API) view(ctx context.Context, shard int) (v machine.View, stale bool, err error) {
	sure, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	v, err = a.proposer.View(sure, shard, true)
	if problem.Is(err, problem.Unavailable) {
		v, err = a.proposer.View(ctx, shard, false)
		return v, true, err
	}
	return v, false, err
}
