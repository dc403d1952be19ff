// Package supervise keeps the processes of a province running on one machine.
//
// It promises that a process that dies is started again (after a growing,
// jittered wait, unless a hold or a stop keeps it down), that a process whose
// data directory was deleted is started again with an empty one, that Close
// stops everything in the order of the stages, highest first, and that logs
// stay within a bound.
//
// The supervisor is not a single point of failure. Its children are sessions
// of their own, log straight into files, and do not die with it. A supervisor
// that was killed is followed by another that adopts them: a process says
// whose it is on its own command line (`nucleicd --config
// /data/unicom/unicom-nucleic-1/config.json`), so there are no pid files that
// could lie, and no moment between fork and record in which a child is lost.
// Signals go through a handle on the process, never to a bare number, so a
// reused pid is never hit.
//
// It refuses to know what the processes do: ready is what their /readyz says.
package supervise
