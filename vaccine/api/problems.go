package api

import (
	"qianma/cluster/problem"
	"qianma/vaccine/rules"
)

// codeCheckDigit marks a row that was accepted though the check digit of its
// document is wrong.
const codeCheckDigit = "check_digit"

// words are what each code of the rules means, and what to do.
var words = map[string][2]string{
	codeCheckDigit:        {"the row was accepted, but the document's check digit does not fit its number", "compare the number with the document; if it was typed wrong, correct this dose and send it again"},
	rules.CodeMalformed:   {"the row is not a fact of the contract", "send what /openapi.yaml describes"},
	rules.CodeUnsupported: {"this kind of fact is not known here yet", "send it again when the upgrade is over"},
	rules.CodeInvalid:     {"a field is empty, too long or out of range", "product, batch and site have 1 to 64 bytes, operator at most 64, dose is 1 to 20; a correction needs operator and a reason of at most 300 bytes"},
	rules.CodeFutureDay:   {"the day or time has not come yet", "check the calendar and the clock of the machine that sends"},
	rules.CodeTooEarly:    {"the day is before any vaccine was given", "check the year"},
	rules.CodeTooMany:     {"this person has as many records as one may have", "look at the person's doses: somebody else's may have been sent under this document"},
	rules.CodeUnknownFact: {"the fact to correct is not held here for this person", "read the person's doses and name one of the ids shown; if it went through the other carrier a moment ago, try again"},
	rules.CodeOtherDose:   {"another record of this dose number says otherwise", "compare both with the paper, and correct the wrong one"},
}

func explain(code string) *problem.Problem {
	w, ok := words[code]
	if !ok {
		return nil
	}
	return problem.New(problem.Code(code), w[0], w[1])
}
