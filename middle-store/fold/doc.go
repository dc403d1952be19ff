// Package fold says what the middle store's keys mean: which keys a fact adds
// (Folder), and what the keys of a person and of that person's tubes come to
// (Reader).
//
// The state is a set of keys that only grows, and a fact adds keys that are
// made of the fact alone, without a look at what is held. So the same facts
// in any order, with any repetition and any split, leave the same bytes, and
// folding reads nothing. All that has to be decided (which result counts,
// which registration is void) is decided when somebody asks, by the functions
// of the contracts.
//
// It refuses to know where the keys are kept, who asks, and what the time is.
// A Folder and a Reader are each for one goroutine at a time.
package fold
