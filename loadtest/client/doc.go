// Package client sends HTTP/1.1 requests for next to nothing.
//
// The generator shares its processors with the system it measures, so what a
// request costs here is taken from the system's budget. A Loop is one
// goroutine over epoll: one write and one read per request, no goroutine
// switch, no allocation once warm. BenchmarkClients measures it against
// net/http and against a goroutine for each connection.
//
// Promises. A Call started is a Call reported, exactly once, from Poll. A Call
// says whether any of it may have reached the server (Sent), because only
// then is its outcome unknown. One request is in flight on a connection, never
// more. Waiting calls, connections, buffers and times are bounded. Who waits for a
// connection goes in turn, and once the first has waited for most of the timeout
// the newest goes first.
//
// Refusals. It does not retry, does not follow redirects, does not speak TLS
// and knows no meaning of a status: those belong to the caller. A Loop is not
// safe for concurrent use.
package client

import (
	"errors"
	"time"
)

// Errors of a Call. All but ErrTimeout and ErrLost mean that nothing was sent.
var (
	ErrTimeout   = errors.New("client: no answer in time")
	ErrLost      = errors.New("client: the connection was lost before the answer")
	ErrConnect   = errors.New("client: the node could not be reached")
	ErrQueueFull = errors.New("client: every connection is busy and the queue is full")
	ErrExpired   = errors.New("client: waited too long for a free connection")
	ErrBadAnswer = errors.New("client: the answer is not HTTP/1.1")
	ErrClosed    = errors.New("client: the loop is closed")
)

// UsualPerNode is how many connections a node gets where nothing is said.
const UsualPerNode = 1024

// UsualTimeout is how long an answer may take where nothing is said.
const UsualTimeout = 5 * time.Second

// Config bounds a Loop. The zero value has good defaults.
type Config struct {
	PerNode   int           // connections to each node at most; 0: 1024
	Queue     int           // calls of one group that may wait for a connection; 0: 65536
	Timeout   time.Duration // for an answer, and separately for a free connection; 0: 5 s
	Down      time.Duration // how long a node that refused a connection is left alone; 0: 200 ms
	Gather    time.Duration // answers this close together are taken up together; 0: each when it comes
	MaxAnswer int           // bytes of an answer, headers included; 0: 8 MiB
	Spread    bool          // nodes take turns, whatever an answer says of who leads
}

func (c Config) withDefaults() Config {
	if c.PerNode == 0 {
		c.PerNode = UsualPerNode
	}
	if c.Queue == 0 {
		c.Queue = 1 << 16
	}
	if c.Timeout == 0 {
		c.Timeout = UsualTimeout
	}
	if c.Down == 0 {
		c.Down = 200 * time.Millisecond
	}
	if c.MaxAnswer == 0 {
		c.MaxAnswer = 8 << 20
	}
	return c
}

// Call is one request and then its answer. The caller owns it before Start and
// after it came out of Poll; between the two it must not be touched.
type Call struct {
	Post bool   // POST; else GET
	Path []byte // with the query
	Key  []byte // Idempotency-Key; empty: none
	Type string // Content-Type of the body
	Body []byte
	Home uint32 // above 0: the node that this stands for, modulo their number, comes first; 0: they take turns
	Tag  any    // the caller's own

	Err        error
	Status     int
	RetryAfter time.Duration // as the answer says; -1: it does not say
	Answer     []byte        // the body; valid until the caller's function returns
	Sent       bool          // some of it may have reached the server
	SentAt     time.Duration // when the first byte was handed over, on the Loop's clock
	EndedAt    time.Duration // when the answer was whole, or given up

	group     *Group
	node      *node // last one tried
	deadline  time.Duration
	prev, nxt *Call
}
