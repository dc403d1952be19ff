// Package problem is the one kind of error that crosses a wall of the house.
//
// A Problem has a stable code (for programs), the side it is on, a plain
// sentence and what to do (for people), and a cause (for our log only: it
// never crosses the wire). It never carries a name or a document number.
package problem

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Code names a problem for programs. Codes are stable: they are never renamed,
// and their meaning never changes. Subsystems declare their own.
type Code string

// Codes of the floor.
const (
	Malformed       Code = "malformed"       // the body is not what the endpoint reads
	UnknownField    Code = "unknown_field"   // the body names a field the endpoint does not have
	TooLarge        Code = "too_large"       // over a stated bound
	Invalid         Code = "invalid"         // well-formed, but a value breaks a rule
	NotFound        Code = "not_found"       // no such thing here
	KeyReused       Code = "key_reused"      // idempotency key seen before with another body
	Conflict        Code = "conflict"        // contradicts a fact already held
	Overloaded      Code = "overloaded"      // a bound was met; nothing was done; retry later
	Unavailable     Code = "unavailable"     // cannot be done now; nothing was done; retry
	Unknown         Code = "unknown_outcome" // may or may not have been done; repeat with the same key
	Unauthenticated Code = "unauthenticated" // the caller did not prove who it is
	Unsupported     Code = "unsupported"     // this build does not understand the request
	Internal        Code = "internal"        // our fault
)

// Side says whose fault a problem is.
type Side string

// The two sides.
const (
	Client Side = "client"
	Server Side = "server"
)

// Problem is an error as strangers see it.
type Problem struct {
	Code       Code          // stable, for programs
	Message    string        // one plain sentence: what happened
	Fix        string        // what the reader can do about it
	Op         string        // where, for our log: "nucleic.Register"
	RetryAfter time.Duration // 0: not worth waiting
	Cause      error         // for our log only
}

// New makes a problem from its code, its sentence and the way out.
func New(code Code, message, fix string) *Problem {
	return &Problem{Code: code, Message: message, Fix: fix}
}

// Wrap is New with the cause kept for the log.
func Wrap(cause error, code Code, message, fix string) *Problem {
	return &Problem{Code: code, Message: message, Fix: fix, Cause: cause}
}

// After returns a copy that asks the caller to wait d before it tries again.
func (p *Problem) After(d time.Duration) *Problem {
	q := *p
	q.RetryAfter = d
	return &q
}

// Error is the whole chain, for logs.
func (p *Problem) Error() string {
	s := string(p.Code)
	if p.Op != "" {
		s = p.Op + ": " + s
	}
	if p.Message != "" {
		s += ": " + p.Message
	}
	if p.Cause != nil {
		s += fmt.Sprintf(" (%v)", p.Cause)
	}
	return s
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Cause }

// Is makes errors.Is(err, &Problem{Code: c}) compare codes alone.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code == p.Code
}

// Side says whose fault it is.
func (p *Problem) Side() Side {
	if s := p.Status(); s >= 500 || s == http.StatusTooManyRequests {
		return Server
	}
	return Client
}

// statuses maps the floor's codes; a code that is not here is a rule of some
// subsystem that the request broke: 422.
var statuses = map[Code]int{
	Malformed:       http.StatusBadRequest,
	UnknownField:    http.StatusBadRequest,
	TooLarge:        http.StatusRequestEntityTooLarge,
	Invalid:         http.StatusUnprocessableEntity,
	NotFound:        http.StatusNotFound,
	KeyReused:       http.StatusConflict,
	Conflict:        http.StatusConflict,
	Overloaded:      http.StatusTooManyRequests,
	Unavailable:     http.StatusServiceUnavailable,
	Unknown:         http.StatusGatewayTimeout,
	Unauthenticated: http.StatusUnauthorized,
	Unsupported:     http.StatusNotImplemented,
	Internal:        http.StatusInternalServerError,
}

// Status is the HTTP status of the problem.
func (p *Problem) Status() int {
	if s, ok := statuses[p.Code]; ok {
		return s
	}
	return http.StatusUnprocessableEntity
}

// From finds the Problem in err's chain; an error without one is Internal.
func From(err error) *Problem {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return Wrap(err, Internal, "something went wrong on our side", "try again; if it stays, tell operations the time and this code")
}

// Is reports whether err carries the code.
func Is(err error, code Code) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}
