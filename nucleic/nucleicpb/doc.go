// Package nucleicpb is the contract of the nucleic subsystem: the facts it
// commits (nucleic.proto is their definition, this package codes the same
// bytes by hand) and the meaning that every reader must share: what makes two
// facts the same, which result of a tube counts, and where a list of tests
// leaves a person.
//
// It promises that decoding does not allocate and does not copy: the byte
// slices of a decoded message alias the bytes it was decoded from. It knows no
// store, no transport and nothing else of this house. Values are plain data,
// not safe for concurrent mutation.
package nucleicpb
