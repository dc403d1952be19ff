// Package api is the nucleic subsystem's HTTP door: it reads what a booth, a
// packer, a lab or an operator sends, stamps it, turns it into commands of the
// contract and hands them to the replicated group; and it shows tubes, boxes,
// sites and worklists.
//
// It promises that nothing of a request is half-written within a shard, that a
// repeat under the same Idempotency-Key gets the same answer, that every row
// that is not plainly accepted is told why and what to do, and that an answer
// never says a level of safety that was not reached. It keeps no state, and
// document numbers end here: only pseudonyms go on.
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
	// Leader is the base address of the node that a shard's writes end up at;
	// "" when it is not known. Nil: callers are not told.
	Leader func(shard int) string
}

// API answers requests. It is safe for concurrent use.
type API struct {
	proposer machine.Proposer
	hasher   *identity.Hasher
	clock    clock.Clock
	leader   func(shard int) string
	intake   intake.Intake
}

// New returns the door.
func New(c Config) *API {
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	return &API{proposer: c.Proposer, hasher: c.Hasher, clock: c.Clock, leader: c.Leader,
		intake: intake.Intake{Proposer: c.Proposer, Wait: commitWait, Look: look}}
}

// Route is one endpoint.
type Route struct {
	Class   web.Class
	Pattern string // of http.ServeMux
	Handler func(w http.ResponseWriter, r *http.Request) error
}

// Routes lists the endpoints. Binding a swab to a person is never shed for the
// sake of anything else; looking at worklists goes first.
func (a *API) Routes() []Route {
	return []Route{
		{web.Vital, "POST /v1/registrations", a.register},
		{web.Vital, "POST /v1/registrations/batch", a.registerBatch},
		{web.Vital, "POST /v1/tubes", a.openTube},
		{web.Vital, "POST /v1/tubes/{tube}/seal", a.sealTube},
		{web.Normal, "POST /v1/sites", a.openSite},
		{web.Normal, "POST /v1/boxes", a.packBox},
		{web.Normal, "POST /v1/receptions", a.receive},
		{web.Normal, "POST /v1/results", a.report},
		{web.Normal, "POST /v1/results/batch", a.reportBatch},
		{web.Normal, "POST /v1/corrections", a.correct},
		{web.Normal, "GET /v1/tubes/{tube}", a.showTube},
		{web.Normal, "GET /v1/boxes/{box}", a.showBox},
		{web.Normal, "GET /v1/sites/{site}", a.showSite},
		{web.Optional, "GET /v1/worklists/{list}", a.showWorklist},
		{web.Normal, "GET /openapi.yaml", a.showContract},
	}
}

// Register adds the endpoints to a server.
func (a *API) Register(s *web.Server) {
	for _, r := range a.Routes() {
		s.HandleClass(r.Class, r.Pattern, r.Handler)
	}
}

// now is the door's time in Unix milliseconds.
func (a *API) now() int64 { return a.clock.Now().UnixMilli() }

// view opens a reader that sees every acknowledged write. Where no majority
// can vouch for that, it opens what this process has, and says so.
func (a *API) view(ctx context.Context, shard int) (v machine.View, stale bool, err error) {
	sure, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	v, err = a.proposer.View(sure, shard, true)
	if problem.Is(err, problem.Unavailable) || err != nil && sure.Err() != nil && ctx.Err() == nil {
		v, err = a.proposer.View(ctx, shard, false)
		return v, true, err
	}
	return v, false, err
}
