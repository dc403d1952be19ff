// Package api is the display subsystem's HTTP door: it shows codes, checks
// tokens, and takes what is said and decided about people.
//
// It promises that a code is answered as long as this one process lives,
// whatever else is dead: from the middle stores, from the last-known copy, or
// with the words that nothing is known; that every answer says how old it is;
// that a reader who sends `seen` back is never shown the past unawares; that
// nothing of a document's number is kept in the clear, logged or repeated in an
// error; and that openapi.yaml describes exactly what it serves.
//
// It refuses to know how a colour comes about: that is package colour's. What
// it keeps (answers, tokens) are caches bounded in bytes, which may be lost at
// any moment.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"qianma/cluster/clock"
	"qianma/cluster/identity"
	"qianma/cluster/intake"
	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/display/source"
	"qianma/display/vault"
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
	Name     string // of this process: served_by
	Carrier  string // issuer of tokens
	Proposer machine.Proposer
	// Heard is when this process last heard from a shard's majority: how far
	// the restrictions it knows reach. Nil: always just now.
	Heard func(shard int) time.Time
	// Others is how far this process has taken in what the other carriers hold
	// of a shard: the zero time when nothing is known of that, and applies is
	// false where there is no other carrier. Nil: there is none.
	Others func(shard int) (at time.Time, applies bool)
	Source *source.Source
	Hasher *identity.Hasher
	Vault  *vault.Vault
	Keys   *Keyring
	Cache  *Cache
	Clock  clock.Clock // nil: the machine's
	Logger *slog.Logger
}

// API answers requests. It is safe for concurrent use.
type API struct {
	Config
	intake *intake.Intake
	rules  *ruleSets
	turns  chan struct{} // places for concluding codes
	qr     chan struct{} // places for drawing pictures, which is costly
}

// New returns the door.
func New(c Config) *API {
	if c.Clock == nil {
		c.Clock = clock.Real
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Cache == nil {
		c.Cache = NewCache(0, 0)
	}
	if c.Heard == nil {
		c.Heard = func(int) time.Time { return c.Clock.Now() }
	}
	if c.Others == nil {
		c.Others = func(int) (time.Time, bool) { return time.Time{}, false }
	}
	a := &API{Config: c, turns: make(chan struct{}, turns*runtime.GOMAXPROCS(0)), qr: make(chan struct{}, 2)}
	a.intake = &intake.Intake{Proposer: c.Proposer, Wait: commitWait, Look: "look at the persons concerned"}
	a.rules = &ruleSets{api: a}
	return a
}

// Route is one endpoint.
type Route struct {
	Class   web.Class
	Pattern string // of http.ServeMux
	Handler func(w http.ResponseWriter, r *http.Request) error
}

// Routes lists the endpoints. Showing and checking a code is never shed; the
// vaccination history is what goes first, as Hainan did.
func (a *API) Routes() []Route {
	return []Route{
		{web.Vital, "GET /v1/code", a.showCode},
		{web.Vital, "POST /v1/verify", a.verify},
		{web.Normal, "GET /v1/code.png", a.drawCode},
		{web.Normal, "GET /v1/keys", a.showKeys},
		{web.Optional, "GET /v1/vaccinations", a.showVaccinations},
		{web.Normal, "POST /v1/persons/resolve", a.resolve},
		{web.Normal, "POST /v1/citizens", a.apply},
		{web.Normal, "GET /v1/citizens/{person}", a.showCitizen},
		{web.Normal, "POST /v1/guardians", a.bind},
		{web.Normal, "POST /v1/declarations", a.declare},
		{web.Normal, "POST /v1/restrictions", a.restrict},
		{web.Normal, "POST /v1/restrictions/batch", a.restrictBatch},
		{web.Normal, "GET /v1/restrictions", a.showRestrictions},
		{web.Normal, "POST /v1/releases", a.release},
		{web.Normal, "POST /v1/corrections", a.correct},
		{web.Normal, "POST /v1/rule-sets", a.publish},
		{web.Normal, "GET /v1/rule-sets", a.showRuleSets},
		{web.Normal, "GET /openapi.yaml", a.showContract},
		{web.Normal, "GET /{$}", a.showPage},
		{web.Normal, "GET /page/{file}", a.showPageFile},
	}
}

// atWork is how many codes are at work at a time for each processor. Those that
// were let in must be done before their phones give up, also where the process
// gets a tenth of a processor and does a few hundred a second: with four times as
// many every answer came too late, and all that was done was for nobody.
const atWork = 128

// Register adds the endpoints to a server.
func (a *API) Register(s *web.Server) {
	s.Bound(web.Vital, atWork)
	for _, r := range a.Routes() {
		s.HandleClass(r.Class, r.Pattern, r.Handler)
	}
	s.Check("token-key", func(context.Context) error { return a.Keys.Check(a.Clock.Now()) })
}

// now is the door's time in Unix milliseconds.
func (a *API) now() int64 { return a.Clock.Now().UnixMilli() }

func (a *API) shardOf(person identity.Person) int {
	return machine.ShardOfKey(person[:], a.Proposer.Shards())
}

// view opens a reader that sees every acknowledged write. Where no majority
// can vouch for that, it opens what this process has, and says so.
func (a *API) view(ctx context.Context, shard int) (v machine.View, stale bool, err error) {
	sure, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	v, err = a.Proposer.View(sure, shard, true)
	if problem.Is(err, problem.Unavailable) {
		v, err = a.Proposer.View(ctx, shard, false)
		return v, true, err
	}
	return v, false, err
}
