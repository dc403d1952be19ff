// Package province is a province as files and addresses: where it keeps what,
// which port belongs to whom, which secrets and certificates there are, and
// how a command finds it.
//
//	data/
//	  province.json   how it was made: shards, backbones, links
//	  topology.json   every process and its addresses
//	  endpoints.json  the public HTTP APIs, for commands and scripts
//	  ca/ secrets/    the authority; person.key, contact.key, token keys
//	  logs/           one log for each process, and the supervisor's
//	  control.sock    the supervisor, while it runs
//	  unicom/unicom-nucleic-1/   one directory for each process: config.json, tls/, its state
//
// A carrier's directory can be deleted and is made again without touching the
// rest: everything that must outlive it stands beside it.
//
// It promises that two provinces on one machine never share a port, that a
// file is written whole or not at all, and that making what is there already
// changes nothing. It starts no process and knows no health words.
package province
