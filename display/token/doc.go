// Package token is the signed statement a phone shows and a gate checks:
// COSE_Sign1 (RFC 9052) over nine short claims, written as text that a QR
// code packs densely.
//
//	"QM1:" + base45( COSE_Sign1( protected{alg, kid}, payload, signature ) )
//	payload = [kind, issuer, subject, colour, level, issued, expires, as_of, flags]
//
// It promises that whoever holds the published key set can tell, with no
// network, who signed, what colour was stated, how old the data behind it was,
// and until when the statement counts. An online token counts for a minute, so
// a screenshot is worth little; an offline token counts for a day and says so
// in its kind, so a gate may refuse it.
//
// It refuses to know people. The subject is blinded with the second of issue
// (Subject): two tokens of one person look unrelated, so a gate that keeps
// what it scans cannot follow anyone; whoever already holds the person's
// pseudonym can still ask a token whether it is theirs (Claims.Belongs).
//
// It refuses to know one algorithm: Signer and Verifier stand between the
// format and the keys, so a hardware module or SM2 joins without a new format.
//
// The package is a leaf: standard library only, so a command-line verifier
// links nothing of a province. All functions and types are safe for concurrent
// use once built. The encoder and decoder are written by hand for the hot path;
// tests hold them to go-cose and a general CBOR library, both ways.
package token
