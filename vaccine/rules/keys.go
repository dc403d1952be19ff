package rules

import "qianma/vaccine/vaccinepb"

// One key per fact, all of a person's under one prefix:
//
//	'p' person(16) id(16)  ->  the fact's bytes
//
// A key holds all that decides where a fact goes, and the fact is the value:
// so folding is one blind write, and a union of sets by construction.

const tagPerson = 'p'

func personPrefix(p vaccinepb.Person) []byte {
	return append(append(make([]byte, 0, 33), tagPerson), p[:]...)
}

func factKey(p vaccinepb.Person, id vaccinepb.ID) []byte {
	return append(personPrefix(p), id[:]...)
}

// after is the first key behind every key with the prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
