// Package rules is the nucleic subsystem's machine: what a door may let in
// (Decide), and what a fact changes (Fold).
//
// It promises that folding the same set of facts in any order, with any
// repetition and any grouping leaves the same keys and values. The shape that
// makes this easy to see: what is held of a tube only ever grows by a union of
// facts (of two with one identity a fixed one stands), and every index key is
// a pure function of what is held. A fold merges, works the index out again and
// writes the difference.
//
// It knows no clock, no network, no names. Nothing here reads a list that
// grows with the number of people: a registration costs one key, and one or
// two more when it is the tube's first.
package rules
