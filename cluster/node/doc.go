// Package node assembles the floor into a daemon.
//
// A Base is what every daemon has: a log, the topology with the registry laid
// over it, one port for raft and RPC, a pool of calls to the other processes,
// breakers, the public HTTP server and a road to the broker. A Node is a Base
// that holds replicated groups: it publishes what its shards commit, takes in
// what the other carriers committed, and tells them how far it has got.
//
// Its Clock is the time that the process and its peers agree on (clock.Common).
//
// Nothing here knows what a fact means. Open starts; Run waits until the
// process must end; Close shuts the door before the cellar.
package node
