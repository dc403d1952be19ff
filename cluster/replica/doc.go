// Package replica keeps the groups of one subsystem replicated inside one
// carrier: hashicorp/raft for agreement, Pebble for the log and the state.
//
// Promises. A receipt means that the facts are fsynced by a majority, applied
// here, and at the address the receipt names, for ever. Facts of one origin
// have gapless sequence numbers and a running digest; every replica of a group
// holds the same. The same idempotency key with the same body gets the same
// receipt for a day at least. A linearizable view sees every write that was
// acknowledged before it was asked for. An address is given once: a group that
// lost its disks, or that others remember more of than it does itself, goes on
// as a new incarnation. Any node takes any request.
//
// Order. Proposals of one caller that wait for each other commit in order;
// others in any. Changed closes after what it tells of can be seen.
//
// Trouble. A disk that fails once, data that contradicts the leader's and an
// entry that this build does not understand stop the node, through
// Config.Fatal: the cluster goes on without it. An outcome that is not known
// is reported as unknown, never as failed.
//
// It refuses to know what a fact means, how the other carrier is reached, and
// who may call. See DESIGN.md for the flow, the guards around the raft library
// and what each costs.
package replica
