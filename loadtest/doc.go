// Package loadtest offers a system a stated load in the open and says what
// became of it: how late each answer was, what was shed, what it cost, and
// whether everything that was acknowledged can be read back.
//
// Load is offered on a schedule, so a server that stalls cannot slow the clock
// that judges it. The package knows the system only by what it can be asked
// over the network.
package loadtest
