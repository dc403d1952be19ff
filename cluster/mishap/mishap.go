// Package mishap is the harm that a drill may do to a process from inside: a
// panic at a named point, a disk that is full, slow, failing or lying, a power
// cut that takes what was never synced, a clock that is wrong, work that is left
// out in silence.
//
// An order is a file in the process's own directory. It comes into force when
// the process starts on it or is asked for its orders, and it ends when the
// file is gone and the process is asked again, or at its own end, which every
// order has. So an order outlives the process that it ends (a full disk is
// still full for the next one), can be taken back while no process runs, and
// whether it is in force is what the process itself says.
//
// Promises: a process that has no Kit cannot be reached by an order, whatever
// lies in its directory, and only one that was started for drills has one.
// Without an order in force a point and a job cost one load, and nothing else is
// changed. Whoever may write into the directory may give orders: it is the
// one that holds the data itself.
//
// It refuses to know why somebody would want that.
package mishap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what goes wrong. The names are stable.
type Kind string

// The kinds.
const (
	Panic      Kind = "panic"       // at Point
	DiskFull   Kind = "disk-full"   // every write: no space left
	DiskSlow   Kind = "disk-slow"   // every write and sync waits for Delay
	SyncError  Kind = "fsync-error" // every sync fails
	SyncLie    Kind = "fsync-lie"   // every sync says that it was done, and nothing is
	PowerCut   Kind = "power-cut"   // at At: what was never synced is gone, and so is the process
	ClockJump  Kind = "clock-jump"  // the wall clock is Jump ahead
	ClockDrift Kind = "clock-drift" // it gains Rate seconds each second
	Omit       Kind = "omit"        // of Job, every Nth piece is left out in silence
)

// Order is one mishap, as it is written into a file.
type Order struct {
	ID    string    `json:"id"`
	Kind  Kind      `json:"kind"`
	Point Point     `json:"point,omitempty"`
	Job   Job       `json:"job,omitempty"`
	Nth   uint64    `json:"nth,omitempty"`
	Delay Span      `json:"delay,omitempty"`
	Jump  Span      `json:"jump,omitempty"` // behind if negative
	Rate  float64   `json:"rate,omitempty"` // loses if negative
	At    time.Time `json:"at"`             // in force from then on
	Until time.Time `json:"until"`          // over by itself
	// Once: the process that it befalls takes the order with it, and the next
	// one starts sound. A power cut always does.
	Once bool `json:"once,omitempty"`
}

// Span is a duration that is written 1.5s.
type Span time.Duration

// MarshalText writes 1.5s.
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText reads 1.5s.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = Span(d)
	return err
}

// Bounds of orders.
const (
	LongestOrder = 2 * time.Hour
	ordersMax    = 64
	orderBytes   = 4 << 10
	ext          = ".json"
)

// Validate reports every fault of an order at once.
func (o *Order) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("order: "+format, args...))
		}
	}
	need(o.ID != "" && filepath.IsLocal(o.ID) && filepath.Base(o.ID) == o.ID && !strings.HasPrefix(o.ID, "."), "%q is no name", o.ID)
	need(!o.At.IsZero() && o.Until.After(o.At) && o.Until.Sub(o.At) <= LongestOrder, "it must end after it begins, and within %s", LongestOrder)
	switch o.Kind {
	case Panic:
		_, ok := Points[o.Point]
		need(ok, "there is no point %q", o.Point)
	case DiskSlow:
		need(o.Delay > 0 && o.Delay <= Span(time.Minute), "a delay of %s", time.Duration(o.Delay))
	case ClockJump:
		need(o.Jump != 0, "a clock that does not jump")
	case ClockDrift:
		need(o.Rate != 0 && o.Rate > -1, "a clock that gains %g seconds a second", o.Rate)
	case Omit:
		_, ok := Jobs[o.Job]
		need(ok, "there is no job %q", o.Job)
		need(o.Nth > 0, "every 0th piece")
	case DiskFull, SyncError, SyncLie, PowerCut:
	default:
		need(false, "there is no kind %q", o.Kind)
	}
	return errors.Join(faults...)
}

// Dir is where the orders to a process lie, in its own directory.
func Dir(process string) string { return filepath.Join(process, "mishaps") }

// Write gives an order, in a file that is there whole or not at all.
func Write(dir string, o Order) error {
	raw, err := json.Marshal(o)
	if err = errors.Join(err, o.Validate()); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(raw)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file(dir, o.ID))
}

// Remove takes an order back. One that is not there is fine.
func Remove(dir, id string) error {
	if err := os.Remove(file(dir, id)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func file(dir, id string) string { return filepath.Join(dir, id+ext) }

// Read returns the orders that lie in a directory, in force or not.
func Read(dir string) (out []Order, err error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, d := range names {
		id, ok := strings.CutSuffix(d.Name(), ext)
		if !ok || strings.HasPrefix(id, ".") || len(out) == ordersMax {
			continue
		}
		o, e := read(file(dir, id))
		switch {
		case errors.Is(e, fs.ErrNotExist): // taken back while we looked
		case e == nil && o.ID != id:
			err = errors.Join(err, fmt.Errorf("the order in %s calls itself %s", d.Name(), o.ID))
		case e == nil:
			out = append(out, o)
		default:
			err = errors.Join(err, fmt.Errorf("%s: %w", d.Name(), e))
		}
	}
	return out, err
}

func read(path string) (o Order, err error) {
	f, err := os.Open(path)
	if err != nil {
		return o, err
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, orderBytes)).Decode(&o); err != nil {
		return o, err
	}
	return o, o.Validate()
}

// Kit is what a process that was started for drills carries. A nil Kit is that
// of every other process: it changes nothing and obeys nobody.
type Kit struct {
	dir  string
	log  *slog.Logger
	disk *disk
	end  func(why string) // the process, at once

	looking sync.Mutex
	timer   *time.Timer
	closed  bool
	force   atomic.Pointer[force] // nil: nothing is wrong
}

// force is what is wrong now.
type force struct {
	orders          []Order
	points          map[Point]Order
	jobs            map[Job]*omission
	delay           time.Duration
	full, fail, lie bool
}

// Open reads the orders to a process whose directory is given. A process has
// one Kit.
func Open(process string, log *slog.Logger) (*Kit, error) {
	k := &Kit{dir: Dir(process), log: log, end: end}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, err
	}
	k.disk = newDisk(k)
	log.Warn("this process was started for drills: orders in its directory are obeyed", "dir", k.dir)
	if _, err := k.Look(); err != nil {
		k.log.Error("an order cannot be read", "error", err)
	}
	return k, nil
}

// Close ends the orders' hold on this process.
func (k *Kit) Close() {
	if k == nil {
		return
	}
	k.looking.Lock()
	defer k.looking.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
	k.enforce(nil)
}

// Look reads the orders anew and returns those that are in force or will be.
func (k *Kit) Look() ([]Order, error) {
	k.looking.Lock()
	defer k.looking.Unlock()
	orders, err := Read(k.dir)
	if k.closed {
		return nil, err
	}
	now := time.Now()
	orders = slices.DeleteFunc(orders, func(o Order) bool { return !now.Before(o.Until) })
	due := slices.DeleteFunc(slices.Clone(orders), func(o Order) bool { return now.Before(o.At) })
	k.enforce(due)
	k.wake(now, orders)
	return orders, err
}

// wake looks again when the next order begins or ends.
func (k *Kit) wake(now time.Time, orders []Order) {
	if k.timer != nil {
		k.timer.Stop()
	}
	next := time.Time{}
	for _, o := range orders {
		for _, at := range []time.Time{o.At, o.Until} {
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	if !next.IsZero() {
		k.timer = time.AfterFunc(next.Sub(now), func() { _, _ = k.Look() })
	}
}

func (k *Kit) enforce(orders []Order) {
	if len(orders) == 0 {
		k.force.Store(nil)
		armed.CompareAndSwap(k, nil)
		return
	}
	f := &force{orders: orders, points: map[Point]Order{}, jobs: map[Job]*omission{}}
	for _, o := range orders {
		switch o.Kind {
		case Panic:
			f.points[o.Point] = o
		case Omit:
			f.jobs[o.Job] = &omission{every: o.Nth}
		case DiskFull:
			f.full = true
		case DiskSlow:
			f.delay = max(f.delay, time.Duration(o.Delay))
		case SyncError:
			f.fail = true
		case SyncLie:
			f.lie = true
		case PowerCut:
			k.cut(o)
		}
	}
	k.force.Store(f)
	if len(f.points)+len(f.jobs) > 0 {
		armed.Store(k)
	} else {
		armed.CompareAndSwap(k, nil)
	}
}

// claim takes an order that is for one process alone; false: somebody has
// taken it, or taken it back.
func (k *Kit) claim(o Order) bool { return os.Remove(file(k.dir, o.ID)) == nil }

// cut is the power that fails.
func (k *Kit) cut(o Order) {
	if !k.claim(o) {
		return
	}
	k.end("power cut: " + k.disk.cut().String())
}

// exitCut is what a process leaves with whose power was cut.
const exitCut = 9

func end(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(exitCut)
}
