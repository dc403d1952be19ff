// Package rpc calls handlers on other processes: named methods over bytes,
// on gRPC, through the shared port of package mux.
//
// Promises: a *problem.Problem that a handler returns reaches the caller with
// its code, sentence, fix and retry time (never its cause); a call that surely
// did not reach the peer fails as problem.Unavailable, and one that may have
// as problem.Unknown; the caller's deadline reaches the handler, and a call
// without one gets a default; a peer that is dead, cut off or frozen is
// noticed in about two seconds while calls to it are waiting; a peer that
// comes back is used within a second.
//
// It never repeats a call: whether that is safe only the caller knows. It
// refuses to know what the bytes mean. Server and Pool are safe for concurrent
// use.
package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc/mem"

	"qianma/cluster/problem"
)

// Bounds.
const (
	// MaxMessage bounds a request and an answer.
	MaxMessage = 16 << 20
	// CallTimeout is the deadline of a call whose caller set none.
	CallTimeout = 10 * time.Second
	// HandleTimeout bounds a handler whatever the caller's deadline says.
	HandleTimeout = 60 * time.Second
	// MaxInFlight is how many calls a pool makes to one peer at a time, and
	// maxHandling how many a server works on.
	MaxInFlight = 2048
	maxHandling = 8192
)

// service is the gRPC service every method belongs to.
const service = "qianma.rpc"

// Handler answers one call. The request belongs to the handler; the answer,
// once returned, to the server: it must not be changed any more.
type Handler func(ctx context.Context, req []byte) ([]byte, error)

// An answer opens with one byte that says what follows.
const (
	kindAnswer  = 0
	kindProblem = 1
)

var (
	headAnswer  = mem.SliceBuffer{kindAnswer}
	headProblem = mem.SliceBuffer{kindProblem}
)

// message is what the codec moves. It stands for a request (kind < 0) or an
// answer. The bytes are never copied on the way out, and once on the way in.
type message struct {
	head mem.SliceBuffer // nil for a request
	body []byte
	// sent becomes true when gRPC has a stream to the peer and asks for the
	// bytes: from here on the peer may have seen the call.
	sent bool
}

// codec moves messages without a schema: contracts are the business of the
// `…pb` packages of whoever calls.
type codec struct{}

func (codec) Name() string { return "qianma" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("rpc: cannot send a %T", v)
	}
	m.sent = true
	if m.head == nil {
		return mem.BufferSlice{mem.SliceBuffer(m.body)}, nil
	}
	return mem.BufferSlice{m.head, mem.SliceBuffer(m.body)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("rpc: cannot receive a %T", v)
	}
	m.body = data.Materialize()
	return nil
}

// wire is a problem between two processes. The cause stays at home.
type wire struct {
	Code    problem.Code `json:"code"`
	Message string       `json:"message,omitempty"`
	Fix     string       `json:"fix,omitempty"`
	Op      string       `json:"op,omitempty"`
	RetryMS int64        `json:"retry_after_ms,omitempty"`
}

func encodeProblem(p *problem.Problem) []byte {
	raw, err := json.Marshal(wire{p.Code, p.Message, p.Fix, p.Op, p.RetryAfter.Milliseconds()})
	if err != nil { // strings and a number cannot fail
		panic(err)
	}
	return raw
}

// open splits an answer into its bytes or its problem.
func open(answer []byte) ([]byte, error) {
	if len(answer) == 0 {
		return nil, malformed("an answer without a first byte")
	}
	switch answer[0] {
	case kindAnswer:
		return answer[1:], nil
	case kindProblem:
		var w wire
		if err := json.Unmarshal(answer[1:], &w); err != nil || w.Code == "" {
			return nil, malformed("a problem that cannot be read")
		}
		return nil, &problem.Problem{
			Code: w.Code, Message: w.Message, Fix: w.Fix, Op: w.Op,
			RetryAfter: time.Duration(w.RetryMS) * time.Millisecond,
		}
	}
	return nil, malformed("an answer of an unknown kind")
}

// malformed is an answer this build cannot read: the call was made, so what
// came of it is unknown.
func malformed(what string) error {
	return problem.New(problem.Unknown, "a peer sent "+what, "check that both run versions that belong together, then repeat with the same key")
}
