package api

import (
	"qianma/cluster/problem"
	"qianma/nucleic/rules"
)

// Codes of rows that the door refuses before the rules see them.
const (
	whoIsMissing    = "person_missing"
	whoStandsTwice  = "person_twice"
	invalidDocument = "invalid_document"
	wrongKind       = "wrong_kind"
	unknownList     = "unknown_worklist"
	invalidHours    = "invalid_hours"
	invalidLimit    = "invalid_limit"
	invalidAfter    = "invalid_after"
)

// words is what happened, and what to do about it.
type words struct{ message, fix string }

// table has the words of every code of this subsystem. Codes are stable; the
// words may be improved at any time.
var table = map[string]words{
	rules.Malformed:        {"the row is not one of this system's facts", "build it from nucleic.proto, or send JSON"},
	rules.InvalidTube:      {"the tube's code is missing or not 4 to 32 letters, digits or hyphens", "scan the barcode on the tube again"},
	rules.InvalidPerson:    {"the person is not a pseudonym of this system", "send the person as answers of this system give it, or send the document instead"},
	rules.InvalidPool:      {"the pool is not one of 1, 5, 10, 20 or household", "send the number of swabs the tube is made for; larger pools do not exist, because a pool is never pooled again"},
	rules.InvalidSite:      {"the site is missing, longer than 64 bytes or not printable", "send the site's id as it was opened"},
	rules.InvalidName:      {"the site's name is longer than 128 bytes or not printable", "shorten it"},
	rules.InvalidDivision:  {"the division is not a code of 6 to 12 digits", "send the GB/T 2260 code, such as 520115, or leave it out"},
	rules.InvalidChannel:   {"the channel is not one of code, id_card, manual or offline", "send how the person was read, or leave it out"},
	rules.InvalidOperator:  {"the operator is missing, longer than 64 bytes or not printable", "send the operator's number, never a name"},
	rules.InvalidDevice:    {"the device is longer than 64 bytes or not printable", "send the device's number, or leave it out"},
	rules.InvalidLab:       {"the lab is missing, longer than 64 bytes or not printable", "send the lab's id"},
	rules.InvalidBox:       {"the box's code is missing, longer than 64 bytes or not printable", "scan the barcode on the box again"},
	rules.InvalidRevision:  {"the revision is not between 1 and 1000", "send 1 for a first report and one more for each later one"},
	rules.InvalidOutcome:   {"the outcome is not one of negative, positive, inconclusive or invalid", "send one of these words"},
	rules.InvalidMethod:    {"the method is longer than 64 bytes or not printable", "shorten it, or leave it out"},
	rules.InvalidReason:    {"the reason is missing, longer than 500 bytes or not printable", "say in one sentence why this is corrected, without any name"},
	rules.InvalidCount:     {"the count is more than one tube can hold", "count the swabs again, or leave the count out"},
	rules.TimeMissing:      {"a time is missing", "send every time that is not optional, such as 2022-01-19T08:30:00+08:00"},
	rules.TimeTooOld:       {"a time lies before December 2019", "check the date that was typed"},
	rules.TimeInFuture:     {"a time lies more than 10 minutes in the future", "check the date that was typed and the clock of the device"},
	rules.SampledInFuture:  {"the sampling time lies more than 10 minutes in the future", "check the clock of the booth's device"},
	rules.SampledTooOld:    {"the sampling time lies before December 2019", "check the date that was typed"},
	rules.TimesOutOfOrder:  {"the times contradict one another: a tube is received, then tested, then reported", "check the three times with the lab"},
	rules.PoolOfPools:      {"a tube cannot be filled from other tubes: a pool is never pooled again", "open one tube for each group of people, and test it by itself"},
	rules.ReceptionOfWhat:  {"a reception is of tubes or of one box, never of both or of neither", "send either tubes or box"},
	rules.CorrectionOfWhat: {"it is not clear what the correction voids", "send a person (or document) to void a registration, or a revision to void a result, not both"},

	rules.SampledAfterTest: {"the swab was taken after the tube was tested", "check that this tube was not used twice; void the registration or the result that is wrong"},
	rules.TestedBeforeSwab: {"the tube was tested before a swab in it was taken", "check that this tube was not used twice, and the clocks of booth and lab; void what is wrong"},
	rules.ResultConflict:   {"another result of this tube and revision has a different outcome", "ask the lab which is right, then void the wrong one with a correction or report a higher revision"},

	rules.TubeUnknown:       {"nobody has registered into this tube or opened it here", "scan the tube again; if it was registered at the other carrier a moment ago, try again in a minute"},
	rules.TubeFull:          {"the tube already holds as many people as its pool allows", "take the next tube for this person"},
	rules.TubeSealed:        {"the tube is sealed", "take the next tube; a swab taken before the seal and kept without network is sent with channel offline"},
	rules.TubeCrowded:       {"more has been recorded of this tube than of any real one", "take another tube, and tell operations its code"},
	rules.PoolMismatch:      {"the tube is in use for another pool", "send the pool the tube was opened for, or take another tube"},
	rules.CountMismatch:     {"the number of swabs counted is not the number of people registered", "find the registration that is missing or too many, then seal; or seal without a count"},
	rules.BoxFull:           {"the box already holds 1000 tubes", "take the next box"},
	rules.RegistrationVoid:  {"this registration was voided by a correction", "if the person's swab is in the tube after all, send the row again with revision one higher"},
	rules.RegistrationNone:  {"this person is not registered in this tube here", "check tube and person; if it was registered at the other carrier a moment ago, try again in a minute"},
	rules.ResultVoid:        {"this result was voided by a correction", "report again with a higher revision"},
	rules.ResultNone:        {"this tube has no such result here", "check tube, revision, lab and outcome"},
	rules.ResultAmbiguous:   {"the tube has several results of this revision", "name the lab and the outcome of the one to void"},
	rules.AlreadyCorrected:  {"this registration was corrected before, in another way", "look at the tube, and correct the person who is bound now"},
	rules.RebindWithoutBind: {"a result cannot be given to another person", "leave rebind out; to move a swab, correct the registration"},

	whoIsMissing:    {"the row says neither person nor document", "send one of them"},
	whoStandsTwice:  {"the row says both person and document", "send one of them"},
	invalidDocument: {"the document cannot be read", "check kind and number"},
	wrongKind:       {"the fact is not of the kind this endpoint takes", "send registrations and results to their own endpoints"},
	unknownList:     {"there is no such worklist", "ask for results-without-registration, registrations-without-result, conflicts or packed-not-received"},
	invalidHours:    {"hours is not a whole number from 0 to 8760", "send how long an entry must have waited, such as hours=24"},
	invalidLimit:    {"limit is not a whole number from 1 to 1000", "send how many entries a page has, such as limit=100"},
	invalidAfter:    {"after is not a place in this worklist", "send the value of next from the page before"},
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
