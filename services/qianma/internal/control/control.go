// Package control is the wire between a province's supervisor and the
// commands that talk to it: JSON over HTTP over the unix socket
// data/control.sock. Who may open the socket file may command the province.
//
// It promises stable field names and that every call ends within its context.
// It knows nothing of how processes are kept; package supervise does.
package control

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// State is where a process stands with its supervisor.
type State string

// The states of a process.
const (
	Pending  State = "pending"  // will be started when its turn comes
	Starting State = "starting" // runs, has not been ready yet
	Ready    State = "ready"    // runs, and its /readyz says yes
	Unready  State = "unready"  // runs, was ready, and is not now
	Paused   State = "paused"   // stopped by a signal (SIGSTOP), not by us
	Backoff  State = "backoff"  // died; will be started again
	Held     State = "held"     // died; a hold keeps it down
	Stopping State = "stopping" // asked to leave
	Stopped  State = "stopped"  // down because somebody asked for it
)

// Running reports whether there is a process behind the state.
func (s State) Running() bool {
	return s == Starting || s == Ready || s == Unready || s == Paused || s == Stopping
}

// Process is one process as its supervisor sees it.
type Process struct {
	Name      string    `json:"name"`
	Carrier   string    `json:"carrier"`
	Subsystem string    `json:"subsystem"`
	PID       int       `json:"pid"` // 0: not running
	State     State     `json:"state"`
	Since     time.Time `json:"since"`    // when it came into this state
	Started   time.Time `json:"started"`  // when the running process was started
	Restarts  int       `json:"restarts"` // by the supervisor, because it died
	Reason    string    `json:"reason"`   // why it last went down, or is not ready
	RSS       int64     `json:"rss"`      // resident bytes
	CPU       float64   `json:"cpu"`      // cores used over the last few seconds
	CPUTime   float64   `json:"cpu_s"`    // CPU seconds of the running process
	HTTP      string    `json:"http"`     // host:port of its HTTP API
	Log       string    `json:"log"`      // file
	Dir       string    `json:"dir"`      // its data directory
}

// Selector picks processes; an empty field matches all.
type Selector struct {
	Name      string `json:"name,omitempty"`
	Carrier   string `json:"carrier,omitempty"`
	Subsystem string `json:"subsystem,omitempty"`
}

// Match reports whether the process is picked.
func (s Selector) Match(name, carrier, subsystem string) bool {
	return (s.Name == "" || s.Name == name) &&
		(s.Carrier == "" || s.Carrier == carrier) &&
		(s.Subsystem == "" || s.Subsystem == subsystem)
}

// String is the selector in words.
func (s Selector) String() string {
	switch {
	case s.Name != "":
		return s.Name
	case s == Selector{}:
		return "everything"
	case s.Subsystem == "":
		return s.Carrier
	case s.Carrier == "":
		return s.Subsystem
	}
	return s.Subsystem + "@" + s.Carrier
}

// Hold keeps the processes it picks from being started after they die.
type Hold struct {
	Selector
	// Until is when the hold lets go by itself, so that a drill that dies
	// leaves no hold behind; zero: never.
	Until time.Time `json:"until,omitzero"`
}

// Report is the answer to GET /processes.
type Report struct {
	Province  string    `json:"province"`
	PID       int       `json:"pid"` // of the supervisor
	Since     time.Time `json:"since"`
	Closing   bool      `json:"closing"` // it is taking the province down
	Holds     []Hold    `json:"holds"`
	Processes []Process `json:"processes"`
}

// Verb is what can be done to a process.
type Verb string

// The verbs.
const (
	Kill    Verb = "kill"    // SIGKILL; it is started again unless held
	Stop    Verb = "stop"    // asked to leave; stays down until started
	Start   Verb = "start"   // start what is stopped, held or waiting, now
	Restart Verb = "restart" // stop, then start
	Pause   Verb = "pause"   // SIGSTOP
	Resume  Verb = "resume"  // SIGCONT
)

// Verbs lists them all.
var Verbs = []Verb{Kill, Stop, Start, Restart, Pause, Resume}

// Sort puts processes in the order people read them: by carrier as given,
// then subsystem, then name.
func Sort(ps []Process) {
	slices.SortFunc(ps, func(a, b Process) int {
		return cmp.Or(strings.Compare(a.Carrier, b.Carrier), strings.Compare(a.Subsystem, b.Subsystem), strings.Compare(a.Name, b.Name))
	})
}
