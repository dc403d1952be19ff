// Package upload sends a file of rows to a province and does not let go of a
// row until both carriers have it.
//
// The file is first copied into a spool directory and fsynced, then cut into
// batches. A batch's idempotency key follows from the file's content and the
// batch's place in it, so sending a batch again, after a lost reply, a kill -9
// or a move to the other carrier, changes nothing. What became of each batch
// is written to a journal, fsynced, before it counts. So whatever kills the
// program, the same command (or Resume) ends with the same totals, and
//
//	accepted + duplicate + conflict + rejected = rows read.
//
// A batch is finished when its receipt says `replicated`: until then the spool
// keeps its rows, and a carrier that burns down after it acknowledged a batch
// loses nothing, because the batch is sent to the other one.
package upload
