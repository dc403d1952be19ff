package api

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"qianma/display/colour"
	"qianma/display/source"
	pb "qianma/middle-store/middlestorepb"
)

// Answer is what GET /v1/code says. The handler writes it by hand, because it
// is written for every code that is shown; a test holds what it writes to this
// structure.
type Answer struct {
	Person           string         `json:"person"`
	Colour           string         `json:"colour"`
	Level            string         `json:"level"`
	Word             string         `json:"word"`
	UnderManagement  bool           `json:"under_management"`
	Reasons          []AnswerReason `json:"reasons"`
	Nucleic          *AnswerNucleic `json:"nucleic"`
	Doses            *AnswerDoses   `json:"doses"`
	Data             AnswerData     `json:"data"`
	RuleSet          string         `json:"rule_set"`
	Token            string         `json:"token"`
	TokenExpiresAt   *string        `json:"token_expires_at"`
	OfflineToken     string         `json:"offline_token,omitempty"`
	OfflineExpiresAt string         `json:"offline_expires_at,omitempty"`
	QR               string         `json:"qr,omitempty"`
	Seen             string         `json:"seen"`
	ServedBy         string         `json:"served_by"`
}

// AnswerReason is one ground for the colour.
type AnswerReason struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	Level  string `json:"level,omitempty"`
	Since  string `json:"since,omitempty"`
	Until  string `json:"until,omitempty"`
	Source string `json:"source,omitempty"`
	Rule   string `json:"rule,omitempty"`
}

// AnswerNucleic is where the person's tests leave them.
type AnswerNucleic struct {
	Status     string  `json:"status"`
	SampledAt  *string `json:"sampled_at"`
	ReceivedAt *string `json:"received_at"`
	ReportedAt *string `json:"reported_at"`
	Hours      *int64  `json:"hours_since_sampling"`
	TubePool   *string `json:"tube_pool"`
}

// AnswerDoses is the vaccination summary.
type AnswerDoses struct {
	Count   uint32  `json:"count"`
	LastDay *string `json:"last_day"`
}

// AnswerData says where the answer comes from and how old it is.
type AnswerData struct {
	AsOf             *string                  `json:"as_of"`
	Carriers         map[string]AnswerCarrier `json:"carriers"`
	RestrictionsAsOf *string                  `json:"restrictions_as_of"`
	Source           string                   `json:"source"`
	Stale            bool                     `json:"stale"`
	OlderThanSeen    bool                     `json:"older_than_seen"`
}

// AnswerCarrier is how old the data of one carrier is.
type AnswerCarrier struct {
	AsOf *string  `json:"as_of"`
	Age  *float64 `json:"age_s"`
}

func (a *API) appendAnswer(b []byte, c *code, q *asked, now int64) []byte {
	v := &c.verdict
	b = q.person.Append(append(b, `{"person":"`...))
	b = append(append(b, `","colour":"`...), v.Colour.String()...)
	b = append(append(b, `","level":"`...), v.Level.String()...)
	b = append(b, `","word":`...)
	b = appendQuoted(b, func(b []byte) []byte { return c.rules.AppendWord(b, v, q.lang) })
	b = strconv.AppendBool(append(b, `,"under_management":`...), v.Managed)
	b = c.appendReasons(append(b, `,"reasons":[`...), q.lang)
	b = c.appendNucleic(append(b, `],"nucleic":`...), now)
	b = appendDoses(append(b, `,"doses":`...), c.source.Person)
	b = c.appendData(append(b, `,"data":`...), now)
	b = appendString(append(b, `,"rule_set":`...), c.rules.Ref())
	b = append(append(append(b, `,"token":"`...), c.online.text...), '"')
	b = appendTime(append(b, `,"token_expires_at":`...), 1000*c.online.expires)
	if c.offline.text != "" {
		b = append(append(append(b, `,"offline_token":"`...), c.offline.text...), '"')
		b = appendTime(append(b, `,"offline_expires_at":`...), 1000*c.offline.expires)
	}
	if c.picture != "" {
		b = append(append(append(b, `,"qr":"`...), c.picture...), '"')
	}
	b = append(append(append(b, `,"seen":"`...), c.seen...), '"')
	b = appendString(append(b, `,"served_by":`...), a.Name)
	return append(b, '}', '\n')
}

func (c *code) appendReasons(b []byte, l colour.Lang) []byte {
	for i := range c.verdict.Reasons {
		r := &c.verdict.Reasons[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, `{"code":"`...), r.Code...)
		b = append(b, `","text":`...)
		b = appendQuoted(b, func(b []byte) []byte { return c.rules.AppendText(b, r, l) })
		if r.Level != 0 {
			b = append(append(append(b, `,"level":"`...), r.Level.String()...), '"')
		}
		if r.Since != 0 {
			b = appendTime(append(b, `,"since":`...), r.Since)
		}
		if r.Until != 0 {
			b = appendTime(append(b, `,"until":`...), r.Until)
		}
		if r.Source != "" {
			b = appendString(append(b, `,"source":`...), r.Source)
		}
		if r.Rule != "" {
			b = appendString(append(b, `,"rule":`...), r.Rule)
		}
		b = append(b, '}')
	}
	return b
}

func (c *code) appendNucleic(b []byte, now int64) []byte {
	if !c.in.Known {
		return append(b, "null"...)
	}
	b = append(append(append(b, `{"status":"`...), c.verdict.Status.String()...), '"')
	t := c.verdict.Decided
	if t == nil {
		return append(b, `,"sampled_at":null,"received_at":null,"reported_at":null,"hours_since_sampling":null,"tube_pool":null}`...)
	}
	b = appendTime(append(b, `,"sampled_at":`...), t.Sampled)
	b = appendTime(append(b, `,"received_at":`...), t.Received)
	b = appendTime(append(b, `,"reported_at":`...), t.Reported)
	b = strconv.AppendInt(append(b, `,"hours_since_sampling":`...), max(0, (now-t.Sampled)/3600_000), 10)
	b = append(append(append(b, `,"tube_pool":"`...), poolName(t.Pool)...), '"')
	return append(b, '}')
}

// household is the pool of people who live together.
const household = 99

func poolName(pool uint32) string {
	if pool == household {
		return "household"
	}
	return strconv.FormatUint(uint64(pool), 10)
}

func appendDoses(b []byte, p *pb.Person) []byte {
	if p == nil {
		return append(b, "null"...)
	}
	b = strconv.AppendUint(append(b, `{"count":`...), uint64(p.Doses.Count), 10)
	b = append(b, `,"last_day":`...)
	if p.Doses.Count == 0 {
		return append(b, `null}`...)
	}
	return append(append(append(b, '"'), day(p.Doses.LastDay)...), '"', '}')
}

// day is a calendar day counted from 1970-01-01.
func day(n int32) string { return time.Unix(int64(n)*86400, 0).UTC().Format(time.DateOnly) }

func (c *code) appendData(b []byte, now int64) []byte {
	b = appendTime(append(b, `{"as_of":`...), c.verdict.AsOf)
	b = appendCarriers(append(b, `,"carriers":{`...), c.in.Carriers, now)
	b = appendTime(append(b, `},"restrictions_as_of":`...), c.in.Reach())
	b = appendOrigin(b, c.source.Kind, c.verdict.Stale)
	return append(strconv.AppendBool(append(b, `,"older_than_seen":`...), c.in.Behind), '}')
}

func appendOrigin(b []byte, k source.Kind, stale bool) []byte {
	b = append(append(append(b, `,"source":"`...), k.String()...), '"')
	return strconv.AppendBool(append(b, `,"stale":`...), stale)
}

func appendCarriers(b []byte, carriers []colour.Carrier, now int64) []byte {
	for i, c := range carriers {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTime(append(appendString(b, c.Name), `:{"as_of":`...), c.AsOf)
		b = append(b, `,"age_s":`...)
		if c.AsOf == 0 {
			b = append(b, `null}`...)
			continue
		}
		b = append(strconv.AppendFloat(b, float64(now-c.AsOf)/1000, 'f', -1, 64), '}')
	}
	return b
}

// appendString quotes s as JSON.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // what is not UTF-8 becomes the replacement character
	return b
}

// appendQuoted quotes what fn appends, in place when nothing in it needs to be
// escaped, as in nearly every sentence.
func appendQuoted(b []byte, fn func([]byte) []byte) []byte {
	b = append(b, '"')
	start := len(b)
	b = fn(b)
	for _, x := range b[start:] {
		if x < ' ' || x == '"' || x == '\\' {
			text := string(b[start:])
			return appendString(b[:start-1], text)
		}
	}
	return append(b, '"')
}
