package colour

import (
	"strconv"
	"strings"
	"time"
)

// Code names a reason for programs. Codes are stable.
type Code string

// The reasons. A restriction's reason is its cause.
const (
	Confirmed        Code = "confirmed"
	Asymptomatic     Code = "asymptomatic"
	InitialPositive  Code = "initial_positive"
	CloseContact     Code = "close_contact"
	SecondaryContact Code = "secondary_contact"
	Entrant          Code = "entrant"
	Spacetime        Code = "spacetime"
	SealedZone       Code = "sealed_zone"
	ControlZone      Code = "control_zone"
	RiskArea         Code = "risk_area"
	Symptomatic      Code = "symptomatic"
	Recovered        Code = "recovered"
	MissedTest       Code = "missed_test"
	Restricted       Code = "restricted" // for a cause only a newer build knows

	Positive         Code = "positive"
	PoolPositive     Code = "pool_positive_retest"
	ResultsConflict  Code = "results_conflict"
	Inconclusive     Code = "inconclusive_retest"
	InvalidSample    Code = "invalid_sample"
	ResultPending    Code = "result_pending"
	NegativeValid    Code = "negative_valid"
	NegativeExpired  Code = "negative_expired"
	NeverTested      Code = "never_tested"
	NoResult         Code = "no_valid_result"
	DeclaredSymptoms Code = "declared_symptoms"
	DeclaredContact  Code = "declared_contact"

	DataMissing       Code = "data_missing"
	DataTooOld        Code = "data_too_old"
	DataStale         Code = "data_stale"
	DataLastKnown     Code = "data_last_known"
	RestrictionsStale Code = "restrictions_stale"
	OlderThanSeen     Code = "older_than_seen"
)

// codes gives every reason a number, so that an evaluation compares no text.
var codes = [...]Code{Confirmed, Asymptomatic, InitialPositive, CloseContact, SecondaryContact, Entrant, Spacetime, SealedZone,
	ControlZone, RiskArea, Symptomatic, Recovered, MissedTest, Restricted,
	Positive, PoolPositive, ResultsConflict, Inconclusive, InvalidSample, ResultPending, NegativeValid, NegativeExpired, NeverTested, NoResult,
	DeclaredSymptoms, DeclaredContact,
	DataMissing, DataTooOld, DataStale, DataLastKnown, RestrictionsStale, OlderThanSeen}

const codeCount = len(codes)

var codeNumber = func() map[Code]int {
	m := make(map[Code]int, len(codes))
	for i, c := range codes {
		m[c] = i
	}
	return m
}()

// Codes returns every reason.
func Codes() []Code { return append([]Code(nil), codes[:]...) }

// defaultWords are the sentences where a rule set does not state its own.
//
// {hours}: whole hours since the time that counts; {since}, {until}: moments;
// {carrier}; {age}: how old; {source}: the division that imposed it.
var defaultWords = map[Code]Text{
	Confirmed:        {"确诊病例，自{since}起管控，至{until}", "Confirmed case, since {since}, until {until}"},
	Asymptomatic:     {"无症状感染者，自{since}起管控，至{until}", "Infected without symptoms, since {since}, until {until}"},
	InitialPositive:  {"初筛阳性待复核，自{since}起，至{until}", "Initial screening positive, since {since}, until {until}"},
	CloseContact:     {"密切接触者，自{since}起，至{until}", "Close contact, since {since}, until {until}"},
	SecondaryContact: {"次密接，自{since}起，至{until}", "Contact of a close contact, since {since}, until {until}"},
	Entrant:          {"境外入境人员，自{since}起，至{until}", "Arrived from abroad, since {since}, until {until}"},
	Spacetime:        {"时空伴随，自{since}起，至{until}", "Was at the same place and time as a case, since {since}, until {until}"},
	SealedZone:       {"居住在封控区，自{since}起，至{until}", "Lives in a sealed zone, since {since}, until {until}"},
	ControlZone:      {"居住在管控区，自{since}起，至{until}", "Lives in a control zone, since {since}, until {until}"},
	RiskArea:         {"有风险地区旅居史，自{since}起，至{until}", "Has been in a risk area, since {since}, until {until}"},
	Symptomatic:      {"有发热等症状，自{since}起，至{until}", "Fever or other symptoms, since {since}, until {until}"},
	Recovered:        {"出院后健康观察，自{since}起，至{until}", "Under observation after discharge, since {since}, until {until}"},
	MissedTest:       {"未按要求参加核酸检测，自{since}起，至{until}", "A required test was not taken, since {since}, until {until}"},
	Restricted:       {"管控措施，自{since}起，至{until}", "Restricted, since {since}, until {until}"},

	Positive:         {"核酸检测阳性，采样时间{since}", "Your test was positive, sampled {since}"},
	PoolPositive:     {"混管阳性，需单人复核，采样时间{since}", "Your pooled tube was positive: a single retest is needed, sampled {since}"},
	ResultsConflict:  {"检测结果互相矛盾，需单人复核，采样时间{since}", "Results contradict one another: a single retest is needed, sampled {since}"},
	Inconclusive:     {"检测结果不确定，需重新采样，采样时间{since}", "The result was inconclusive: test again, sampled {since}"},
	InvalidSample:    {"样本无效，需重新采样，采样时间{since}", "The sample could not be tested: test again, sampled {since}"},
	ResultPending:    {"已采样，等待结果，采样时间{since}", "Sampled {since}, waiting for the result"},
	NegativeValid:    {"核酸检测阴性，{hours}小时", "Negative test, {hours} h ago"},
	NegativeExpired:  {"核酸检测阴性已过期，{hours}小时", "Your negative test of {hours} h ago no longer counts"},
	NeverTested:      {"暂无核酸检测记录", "No test is on record"},
	NoResult:         {"没有仍然有效的检测结果", "No test on record still counts"},
	DeclaredSymptoms: {"本人申报有症状，申报时间{since}", "You declared symptoms, {since}"},
	DeclaredContact:  {"本人申报有接触史，申报时间{since}", "You declared contact with a case, {since}"},

	DataMissing:       {"暂时查不到检测数据，不能作为绿码依据", "Test data cannot be reached now: this is no ground for green"},
	DataTooOld:        {"检测数据截至{since}，时间过久，不能作为绿码依据", "Test data ends at {since}, too old to be a ground for green"},
	DataStale:         {"{carrier}检测数据截至{since}，可能不是最新", "Test data of {carrier} ends at {since} and may not be the newest"},
	DataLastKnown:     {"显示的是本机最后一次查到的数据，截至{since}", "Showing what was last known here, as of {since}"},
	RestrictionsStale: {"管控信息截至{since}，可能不是最新", "Restrictions are known as of {since} and may not be the newest"},
	OlderThanSeen:     {"您之前看到过更新的数据，请稍后刷新", "You have seen newer data than this; please refresh in a moment"},
}

// Reason is one ground for a verdict.
type Reason struct {
	Code   Code
	Level  Level  // what it asks for; 0: it only informs
	Since  int64  // Unix milliseconds; 0: not stated
	Until  int64  // Unix milliseconds; 0: not stated
	Hours  int64  // whole hours since the time that counts
	Source string // division or carrier it comes from
	Rule   string // rule set, with version, it follows
}

// template is a sentence cut at its placeholders: text, name, text, name, text.
type template []string

func parseTemplate(s string) template {
	var t template
	for {
		before, rest, found := strings.Cut(s, "{")
		name, after, closed := strings.Cut(rest, "}")
		if !found || !closed {
			return append(t, s)
		}
		t, s = append(t, before, name), after
	}
}

// beijing is the one civil time of the whole country.
var beijing = time.FixedZone("CST", 8*3600)

// AppendText writes the reason's sentence.
func (rs *RuleSet) AppendText(dst []byte, r *Reason, l Lang) []byte {
	for i, part := range rs.ready.words[codeNumber[r.Code]][l] {
		if i%2 == 0 {
			dst = append(dst, part...)
			continue
		}
		dst = r.appendValue(dst, part)
	}
	return dst
}

func (r *Reason) appendValue(dst []byte, name string) []byte {
	switch name {
	case "hours":
		return strconv.AppendInt(dst, r.Hours, 10)
	case "since":
		return appendMoment(dst, r.Since)
	case "until":
		return appendMoment(dst, r.Until)
	case "carrier", "source":
		return append(dst, r.Source...)
	}
	return append(append(append(dst, '{'), name...), '}')
}

func appendMoment(dst []byte, ms int64) []byte {
	if ms == 0 {
		return append(dst, "?"...)
	}
	return time.UnixMilli(ms).In(beijing).AppendFormat(dst, "2006-01-02 15:04")
}
