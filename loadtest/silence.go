package loadtest

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"qianma/loadtest/drive"
)

// Silent is that a carrier left every question unanswered for too long.
type Silent struct {
	Carriers []string // that one, and those that had not answered for a while either
	Asked    string   // what nobody answered there
	For      time.Duration
}

// Error says where.
func (s *Silent) Error() string {
	return fmt.Sprintf("nobody at %s answered any question about %s for %v; is the province up? `qianma up`",
		strings.Join(s.Carriers, " and "), s.Asked, s.For.Round(time.Second))
}

const (
	// absentMost is how long a carrier is waited for that answers nothing at all:
	// longer than it takes to start one again.
	absentMost = 30 * time.Second
	// absentSay is the part of the wait after which it is said that one waits.
	absentSay = 10
)

// ear stands before a target that is read back, and hears whether each carrier
// answers anything. Like a target it belongs to the driver's goroutine.
type ear struct {
	drive.Target
	now    func() time.Duration
	names  []string // of carriers
	most   time.Duration
	say    func(string)
	giveUp func()
	quiet  map[place]quiet
	silent *Silent // why it was given up
}

// place answers for itself: other processes of a carrier show people than tell
// what is in a tube.
type place struct {
	carrier int
	kind    drive.Kind
}

// quiet is how long a place has not answered.
type quiet struct {
	since time.Duration // the first question after its last answer
	said  bool
}

func newEar(t drive.Target, names []string, how Reading, giveUp func()) *ear {
	return &ear{Target: t, names: names, most: cmp.Or(how.Absent, absentMost), say: how.Say, giveUp: giveUp, quiet: map[place]quiet{}}
}

// Start begins to wait for an answer.
func (e *ear) Start(op *drive.Op) {
	at := place{op.Carrier, op.Kind}
	if _, asked := e.quiet[at]; !asked {
		e.quiet[at] = quiet{since: e.now()}
	}
	e.Target.Start(op)
}

// Poll hands over what has ended, and hears it first.
func (e *ear) Poll(wait time.Duration, done func(*drive.Op)) error {
	return e.Target.Poll(wait, func(op *drive.Op) {
		e.hear(op)
		done(op)
	})
}

// hear takes down the end of one try. A refusal is an answer: whoever refuses is
// there, and will do better when it can.
func (e *ear) hear(op *drive.Op) {
	at := place{op.Carrier, op.Kind}
	if answered(op) {
		delete(e.quiet, at)
		return
	}
	q := e.quiet[at]
	waited := e.now() - q.since
	if !q.said && waited > e.most/absentSay {
		q.said = true
		e.quiet[at] = q
		if e.say != nil {
			e.say(fmt.Sprintf("%s does not answer questions about %s: waiting for it, %v at most", e.names[at.carrier], about(at.kind), e.most))
		}
	}
	if waited > e.most && e.silent == nil {
		e.silent = &Silent{Carriers: e.quietWith(at), Asked: about(at.kind), For: waited}
		e.giveUp()
	}
}

// quietWith names the carriers of which somebody has been told that they do not
// answer such questions either.
func (e *ear) quietWith(at place) (names []string) {
	for i, name := range e.names {
		if i == at.carrier || e.quiet[place{i, at.kind}].said {
			names = append(names, name)
		}
	}
	return names
}

// answered says whether somebody answered the try, whatever was said.
func answered(op *drive.Op) bool {
	return op.Outcome == drive.OK || op.Outcome == drive.Refused || op.Outcome == drive.Rejected || op.Call.Status > 0
}

func about(k drive.Kind) string {
	if k == drive.Tube {
		return "tubes"
	}
	return "people"
}
