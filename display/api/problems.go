package api

import (
	"qianma/cluster/problem"
	"qianma/display/rules"
)

// Codes of rows that the door refuses before the rules see them.
const (
	codeWhoMissing      = "person_missing"
	codeWhoTwice        = "person_twice"
	codeInvalidPerson   = "invalid_person"
	codeInvalidDocument = "invalid_document"
	codeInvalidFact     = "invalid_fact"
	codeNameOrPhone     = "invalid_name"
	codeSymptoms        = rules.CodeSymptoms
)

// words is what happened, and what to do about it.
type words struct{ message, fix string }

// table has the words of every code of this subsystem. Codes are stable; the
// words may be improved at any time.
var table = map[string]words{
	codeWhoMissing:      {"nobody is named", "send person (p_…) or document"},
	codeWhoTwice:        {"both a person and a document are sent", "send one of them"},
	codeInvalidPerson:   {"the person is not a pseudonym of this system", "send the person as answers of this system give it, or send the document instead"},
	codeInvalidDocument: {"the document cannot be read", "check kind and number"},
	codeInvalidFact:     {"that is not the id of a fact", "send it as answers of this system give it: f_ and 26 characters"},
	codeNameOrPhone:     {"the name is missing or too long, or the telephone number is", "send a name of at most 150 bytes and a number of at most 32"},

	rules.CodeMalformed:    {"the row is not one of this system's facts", "send JSON as /openapi.yaml describes it"},
	rules.CodeUnsupported:  {"this build does not know this kind of fact", "send it to a newer one, or update this one"},
	rules.CodeText:         {"a text is empty or too long", "send operators and references of 1 to 64 bytes, reasons and evidence of 1 to 300"},
	rules.CodeDivision:     {"the division is missing, or not a code of GB/T 2260", "send its 6, 9 or 12 digits, such as 520103"},
	rules.CodeTime:         {"a time is in the future or before the epidemic", "check the date and the clock of the device"},
	rules.CodePeriod:       {"the restriction ends before it begins, lasts over a year, or its end is not known", "send an end after the beginning and within 366 days"},
	rules.CodeLevel:        {"the level is not one that can be imposed", "send yellow, orange, red or purple"},
	rules.CodeCause:        {"the reason is not one of those for which a person may be restricted", "send one of the reasons in /openapi.yaml; there is none for anything but the epidemic"},
	rules.CodeScope:        {"the scope is not one", "send national, province or the code of a division"},
	rules.CodeRule:         {"the rule set that is named is not known here", "send the name and version of one that GET /v1/rule-sets shows, or leave both out and have a second person approve"},
	rules.CodeTwoPeople:    {"what is done by hand needs a second person", "send an approver who is not the operator"},
	rules.CodeNoNames:      {"a release names the restrictions it lifts, each once, 64 at most", "send their ids; GET /v1/restrictions shows them"},
	rules.CodeNotHereYet:   {"a restriction that is named is not known here yet", "nothing needs to be done: the release holds as soon as the restriction arrives; check the id if it never does"},
	rules.CodeTooMany:      {"this person has as many restrictions as one may have", "release those that no longer hold"},
	rules.CodeGuardian:     {"the guardian is nobody, or the child itself", "send the guardian's own document or pseudonym"},
	rules.CodeSealed:       {"the sealed record is not what this system makes", "send the application through POST /v1/citizens"},
	rules.CodeSymptoms:     {"a symptom is not known, or the temperature cannot be", "send symptoms from /openapi.yaml and a temperature from 30 to 45 degrees Celsius"},
	rules.CodeUnknownFact:  {"the fact to correct is not known here", "check its id and person; if it was made at the other carrier a moment ago, try again in a minute"},
	rules.CodeNeedsRelease: {"a restriction is not corrected", "end it with POST /v1/releases, approved by a second person"},
	rules.CodeDocument:     {"the rule set has faults", "correct them; GET /v1/rule-sets shows one that is in force"},
	rules.CodeVersionTaken: {"this version is already published with other rules", "publish under the next version"},
}

// problems are made once: a refusal under load must cost nothing.
var problems = func() map[string]*problem.Problem {
	out := make(map[string]*problem.Problem, len(table))
	for code, w := range table {
		out[code] = problem.New(problem.Code(code), w.message, w.fix)
	}
	return out
}()

// explain finds the words of a code.
func explain(code string) *problem.Problem { return problems[code] }
