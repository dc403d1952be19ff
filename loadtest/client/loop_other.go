//go:build !linux

package client

import (
	"errors"
	"time"
)

// Loop needs epoll; elsewhere Open says so.
type Loop struct{}

type node struct{}

// Group is never made here.
type Group struct{}

// Open reports that the generator runs on Linux alone.
func Open(Config) (*Loop, error) {
	return nil, errors.New("client: the load generator needs Linux (epoll, /proc); run it there against any endpoints")
}

func (*Loop) Now() time.Duration                    { return 0 }
func (*Loop) Since(time.Time) time.Duration         { return 0 }
func (*Loop) Group([]string) (*Group, error)        { return nil, ErrClosed }
func (*Loop) InFlight() int                         { return 0 }
func (*Loop) Start(*Group, *Call)                   {}
func (*Loop) Poll(time.Duration, func(*Call)) error { return ErrClosed }
func (*Loop) Close() error                          { return nil }
func (*Group) Nodes() int                           { return 0 }
func (*Group) Up() bool                             { return false }
func (*Group) Waiting() int                         { return 0 }
