// Package province is a running province as a target: operations become HTTP
// requests to its public API, answers become outcomes.
//
// It sends what a booth, a lab, a phone or a gate would send, over the
// network, and believes an acknowledgement only at the level that was asked
// for. What it says of an answer: 429 and 503 mean that nothing was done; a
// lost connection, a timeout, 504 and any 500 mean that something may have
// been done; other refusals are final. It retries nothing by itself: package
// drive does.
package province

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/google/uuid"

	"qianma/cluster/identity"
	"qianma/loadtest/client"
	"qianma/loadtest/drive"
	"qianma/loadtest/population"
)

// Format is how batches are written on the wire.
type Format string

// The formats.
const (
	NDJSON Format = "ndjson" // a line of JSON for each row
	Binary Format = "binary" // length-prefixed facts of the contract
)

// Config is a province seen from outside.
type Config struct {
	Endpoints *Endpoints
	Carriers  []string
	People    *population.People
	// Hasher turns documents into pseudonyms here. Nil: the province is asked
	// for each person once, over HTTP, and batches go as NDJSON.
	Hasher *identity.Hasher
	Run    string        // what tells its idempotency keys from those of other runs
	Ack    string        // "committed" or "replicated"
	Wait   time.Duration // longest wait for the level; 0: 10 s
	Format Format
	Client client.Config
}

// Target is a province under load.
type Target struct {
	cfg     Config
	loop    *client.Loop
	groups  [sides][]*client.Group // by side, then carrier
	start   time.Time              // of the run's clock
	shift   time.Duration          // from the loop's clock to the run's
	run     uint64                 // a digest of the run's name
	known   map[uint32]identity.Person
	done    func(*drive.Op)
	suffix  string // query of writes
	scratch []byte
}

// CodePath is where a phone asks for a code; its person follows.
const CodePath = "/v1/code?person="

// side is who asks: each has connections of its own, so that none waits behind
// the others' crowd.
type side int

const (
	booths side = iota
	labs
	phones
	sides
)

// asked is the subsystem that each side asks.
var asked = [sides]string{booths: "nucleic", labs: "nucleic", phones: "display"}

func sideOf(k drive.Kind) side {
	switch k {
	case drive.Display, drive.Verify:
		return phones
	case drive.Report, drive.ReportBatch:
		return labs
	}
	return booths
}

// Nodes is how many nodes the sides that ask for these kinds of operation keep
// connections to; a node that two sides ask is two.
func (e *Endpoints) Nodes(carriers []string, kinds ...drive.Kind) (n int) {
	var met [sides]bool
	for _, k := range kinds {
		if s := sideOf(k); !met[s] {
			met[s] = true
			for _, c := range carriers {
				n += len(e.Carriers[c][asked[s]])
			}
		}
	}
	return n
}

// Open connects to nothing yet: connections are made as they are needed.
func Open(cfg Config) (*Target, error) {
	loop, err := client.Open(cfg.Client)
	if err != nil {
		return nil, err
	}
	name := fnv.New64a()
	_, _ = name.Write([]byte(cfg.Run))
	t := &Target{cfg: cfg, loop: loop, run: name.Sum64(), known: map[uint32]identity.Person{}}
	if cfg.Hasher == nil {
		t.cfg.Format = NDJSON
	}
	if cfg.Ack == "replicated" {
		wait := cfg.Wait
		if wait == 0 {
			wait = 10 * time.Second
		}
		t.suffix = "?ack=replicated&wait=" + wait.String()
	}
	for s, name := range asked {
		for _, c := range cfg.Carriers {
			g, err := loop.Group(cfg.Endpoints.Carriers[c][name])
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%s of %s: %w", name, c, err), loop.Close())
			}
			t.groups[s] = append(t.groups[s], g)
		}
	}
	return t, nil
}

// Begin fixes the run's clock.
func (t *Target) Begin(start time.Time) { t.start, t.shift = start, t.loop.Since(start) }

// Carriers is how many the target has.
func (t *Target) Carriers() int { return len(t.cfg.Carriers) }

// Nodes is how many nodes a carrier has for the kind.
func (t *Target) Nodes(carrier int, k drive.Kind) int { return t.groups[sideOf(k)][carrier].Nodes() }

// Close ends what is open; each operation is reported to the last Poll's done.
func (t *Target) Close() error { return t.loop.Close() }

// Start sends the operation.
func (t *Target) Start(op *drive.Op) {
	c := &op.Call
	c.Tag = op
	if op.Kind == drive.Display && t.cfg.Hasher == nil {
		if _, ok := t.known[op.Person]; !ok {
			t.resolve(op)
			return
		}
	}
	if op.Tries == 1 {
		t.write(op)
	}
	t.loop.Start(t.groups[sideOf(op.Kind)][op.Carrier], c)
}

// write forms the request; a later try sends the same bytes again.
func (t *Target) write(op *drive.Op) {
	c := &op.Call
	c.Post, c.Type = op.Kind != drive.Display && op.Kind != drive.Tube, "application/json"
	c.Path, op.Body = c.Path[:0], op.Body[:0]
	if op.Phone {
		c.Home = 1 + uint32(population.Mix(0, uint64(op.Person))>>33)
	}
	switch op.Kind {
	case drive.Register:
		c.Path = append(append(c.Path, "/v1/registrations"...), t.suffix...)
		op.Body = t.appendSample(op.Body, &op.Samples[0])
	case drive.RegisterBatch:
		c.Path = append(append(c.Path, "/v1/registrations/batch"...), t.suffix...)
		t.writeSamples(op)
	case drive.Report:
		c.Path = append(append(c.Path, "/v1/results"...), t.suffix...)
		op.Body = appendResult(op.Body, &op.Results[0])
	case drive.ReportBatch:
		c.Path = append(append(c.Path, "/v1/results/batch"...), t.suffix...)
		t.writeResults(op)
	case drive.Display:
		c.Path = t.person(op.Person).Append(append(c.Path, CodePath...))
	case drive.Verify:
		c.Path = append(c.Path, "/v1/verify"...)
		op.Body = append(append(append(op.Body, `{"token":"`...), op.Token...), `"}`...)
	case drive.Tube:
		c.Path = population.AppendTube(append(c.Path, "/v1/tubes/"...), op.TubeNo)
	}
	if op.Kind.Write() {
		c.Key = t.appendKey(c.Key[:0], op)
	}
	c.Body = op.Body
}

// appendKey appends an idempotency key as careful callers make them: a UUID of
// version 7, of the instant at which the request should have started. Beside its
// time it is the request's number in the run, scattered without a loss of any bit,
// under the run's name.
func (t *Target) appendKey(dst []byte, op *drive.Op) []byte {
	n := population.Mix(t.run, op.Key)
	at := uint64(t.start.Add(op.Intended).UnixMilli())
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:], at<<16|7<<12|n>>62|t.run<<2&0xffc)
	binary.BigEndian.PutUint64(u[8:], 1<<63|n<<2>>2)
	return append(dst, u.String()...)
}

// document is what person i holds up.
func (t *Target) document(i uint32) identity.Document {
	t.scratch = t.cfg.People.AppendNumber(t.scratch[:0], i)
	return identity.Document{Kind: identity.Resident, Number: string(t.scratch)}
}

func (t *Target) person(i uint32) identity.Person {
	if t.cfg.Hasher != nil {
		return t.cfg.Hasher.Person(t.document(i))
	}
	return t.known[i]
}

// resolve asks the province who a person is before the operation itself.
func (t *Target) resolve(op *drive.Op) {
	c := &op.Call
	c.Post, c.Type = true, "application/json"
	c.Path = append(c.Path[:0], "/v1/persons/resolve"...)
	op.Body = append(op.Body[:0], `{"document":{"kind":"resident","number":"`...)
	op.Body = t.cfg.People.AppendNumber(op.Body, op.Person)
	op.Body = append(op.Body, `"}}`...)
	c.Body = op.Body
	t.loop.Start(t.groups[phones][op.Carrier], c)
}

// resolved keeps the answer of resolve and goes on with the operation; false
// when the answer was no person, and the try is over.
func (t *Target) resolved(op *drive.Op) bool {
	c := &op.Call
	if c.Err != nil || c.Status != 200 {
		return false
	}
	p, err := identity.ParsePerson(string(unquote(field(c.Answer, "person"))))
	if err != nil {
		return false
	}
	t.known[op.Person] = p
	t.write(op)
	t.loop.Start(t.groups[phones][op.Carrier], c)
	return true
}

// Poll hands over what has ended.
func (t *Target) Poll(wait time.Duration, done func(*drive.Op)) error {
	t.done = done
	return t.loop.Poll(wait, t.ended)
}

func (t *Target) ended(c *client.Call) {
	op := c.Tag.(*drive.Op)
	asking := op.Kind == drive.Display && c.Post
	if asking && t.resolved(op) {
		return
	}
	if c.Sent {
		op.Tried = c.SentAt - t.shift
		if op.First == 0 {
			op.First = op.Tried
		}
	}
	op.Ended, op.Sent = c.EndedAt-t.shift, c.Sent
	t.judge(op)
	if asking && op.Outcome == drive.OK {
		op.Outcome, op.Code = drive.Rejected, "no_person"
	}
	t.done(op)
}
