package province

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"qianma/cluster/fact"
	"qianma/cluster/identity"
	"qianma/cluster/leaktest"
	"qianma/loadtest/client"
	"qianma/loadtest/drive"
	"qianma/loadtest/population"
	"qianma/nucleic/nucleicpb"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func target(t *testing.T, format Format) *Target {
	t.Helper()
	h, err := identity.NewHasher(make([]byte, identity.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return &Target{cfg: Config{People: population.New(3, 1000), Hasher: h, Format: format}}
}

// Goal: what we hash here is what the province hashes from what we send: the
// documents we invent are in their normal form, and nothing about them is odd.
func TestInventedDocumentsAreNormalAndUnremarkable(t *testing.T) {
	tg := target(t, Binary)
	for i := range uint32(1000) {
		d := tg.document(i)
		n, flags, err := d.Normalize()
		if err != nil || flags != 0 || n != d {
			t.Fatalf("person %d: %v, flags %v, changed %v", i, err, flags.Strings(), n != d)
		}
	}
}

// Goal: no two requests of a run, and none of two runs, share an idempotency key,
// and each is the UUID of its time.
func TestIdempotencyKeysAreUUIDsOfTheirTime(t *testing.T) {
	seen := map[string]bool{}
	for run := range uint64(2) {
		tg := target(t, Binary)
		tg.run, tg.start = population.Mix(1, run), time.UnixMilli(1_790_000_000_000)
		for n := range uint64(1000) {
			op := &drive.Op{Kind: drive.Register, Key: n, Samples: make([]drive.Sample, 1), Intended: time.Duration(n) * time.Millisecond}
			tg.write(op)
			key := string(op.Call.Key)
			u, err := uuid.Parse(key)
			if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 || seen[key] {
				t.Fatalf("run %d, request %d: %s: %v, version %d, variant %v, seen before: %v", run, n, key, err, u.Version(), u.Variant(), seen[key])
			}
			if sec, nsec := u.Time().UnixTime(); time.Unix(sec, nsec).UnixMilli() != 1_790_000_000_000+int64(n) {
				t.Fatalf("%s is of %v", key, time.Unix(sec, nsec))
			}
			seen[key] = true
		}
	}
}

// Goal: a phone has one home, phones have several between them, and who is no
// phone has none.
func TestOnlyAPhoneHasAHome(t *testing.T) {
	tg, homes := target(t, Binary), map[uint32]bool{}
	home := func(person uint32, phone bool) uint32 {
		op := &drive.Op{Kind: drive.Display, Person: person, Phone: phone}
		tg.write(op)
		return op.Call.Home
	}
	for person := range uint32(100) {
		if h := home(person, true); h == 0 || h != home(person, true) || home(person, false) != 0 {
			t.Fatalf("person %d: home %d, then %d; as no phone %d", person, h, home(person, true), home(person, false))
		}
		homes[home(person, true)%3] = true
	}
	if len(homes) != 3 {
		t.Errorf("100 phones have %d of 3 nodes for a home", len(homes))
	}
}

// Goal: the two forms of a batch say the same.
func TestBothFormatsSayTheSame(t *testing.T) {
	op := &drive.Op{Kind: drive.RegisterBatch, Samples: []drive.Sample{{Person: 7, Tube: 123, Pool: 20, Sampled: 1_663_300_000_123}}}
	text, facts := target(t, NDJSON), target(t, Binary)
	text.write(op)
	var row struct {
		Tube, Pool, Site, Channel, Operator string
		Document                            identity.Document
		Sampled                             time.Time `json:"sampled_at"`
	}
	if err := json.Unmarshal(op.Body, &row); err != nil {
		t.Fatalf("%v: %s", err, op.Body)
	}
	if op.Call.Type != "application/x-ndjson" || string(op.Call.Path) != "/v1/registrations/batch" {
		t.Errorf("%s %s", op.Call.Type, op.Call.Path)
	}
	facts.write(op)
	var f nucleicpb.Fact
	b := fact.Block{First: 1, Count: 1, Body: op.Body}
	if err := b.Facts(func(_ uint64, raw []byte) bool { _, err := f.Decode(raw); return err == nil }); err != nil {
		t.Fatal(err)
	}
	m := f.Registered
	if string(m.Tube) != row.Tube || m.Pool.String() != row.Pool || string(m.Site) != row.Site || m.Channel.String() != row.Channel ||
		m.SampledAt != row.Sampled.UnixMilli() || identity.Person(m.Person) != facts.cfg.Hasher.Person(row.Document) {
		t.Errorf("facts %+v, text %+v", m, row)
	}

	res := &drive.Op{Kind: drive.ReportBatch, Results: []drive.Result{{Tube: 123, Outcome: 2, At: 1_663_300_000_456}}}
	text.write(res)
	var out struct {
		Tube, Lab, Outcome string
		Revision           uint32
		Reported           time.Time `json:"reported_at"`
	}
	if err := json.Unmarshal(res.Body, &out); err != nil {
		t.Fatalf("%v: %s", err, res.Body)
	}
	facts.write(res)
	b = fact.Block{First: 1, Count: 1, Body: res.Body}
	if err := b.Facts(func(_ uint64, raw []byte) bool { _, err := f.Decode(raw); return err == nil }); err != nil {
		t.Fatal(err)
	}
	r := f.Resulted
	if string(r.Tube) != out.Tube || string(r.Lab) != out.Lab || r.Outcome.String() != out.Outcome || r.Revision != out.Revision || r.ReportedAt != out.Reported.UnixMilli() {
		t.Errorf("facts %+v, text %+v", r, out)
	}
}

func TestFieldFindsValuesAsTheyStand(t *testing.T) {
	a := []byte(`{ "no": "\"status\": 1", "nucleic" : {"status":"negative", "list":[1,"}"],"sampled_at":"2022-01-01T00:00:00Z"},"stale":true,"n":12}`)
	for name, want := range map[string]string{
		"status": `"negative"`, "stale": "true", "n": "12", "list": `[1,"}"]`, "missing": "", "negative": "",
		"nucleic": `{"status":"negative", "list":[1,"}"],"sampled_at":"2022-01-01T00:00:00Z"}`,
	} {
		if got := string(field(a, name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func FuzzField(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,2,"x\""]},"code":"y"}`))
	f.Add([]byte(`"code"`))
	f.Add([]byte(`"code":"`))
	f.Fuzz(func(t *testing.T, p []byte) {
		field(p, "code")
		readCode(p)
		readTube(p)
		unquote(field(p, "a"))
	})
}

// Goal: only what surely was not done is called so. Method: every way in which
// a try can end.
func TestOutcomesOfATry(t *testing.T) {
	problem := func(code string) []byte { return []byte(`{"code":"` + code + `","message":"m"}`) }
	ok := func(accepted, duplicate string) []byte {
		return []byte(`{"receipt":{"level":"committed","replayed":true},"accepted":` + accepted + `,"duplicate":` + duplicate + `}`)
	}
	for name, c := range map[string]struct {
		call client.Call
		ack  string
		want drive.Outcome
		code string
	}{
		"accepted":         {client.Call{Status: 200, Answer: ok("1", "0")}, "", drive.OK, ""},
		"duplicate":        {client.Call{Status: 200, Answer: ok("0", "1")}, "", drive.OK, ""},
		"level":            {client.Call{Status: 200, Answer: ok("1", "0")}, "replicated", drive.Unknown, "not_yet_replicated"},
		"kept":             {client.Call{Status: 200, Answer: []byte(`{"accepted":0,"duplicate":0,"conflict":1,"rejected":0}`)}, "", drive.Rejected, drive.KeptConflict},
		"not taken":        {client.Call{Status: 200, Answer: ok("0", "0")}, "", drive.Rejected, "row_not_taken"},
		"overloaded":       {client.Call{Status: 429, Answer: problem("overloaded")}, "", drive.Refused, "overloaded"},
		"unavailable":      {client.Call{Status: 503, Answer: problem("unavailable")}, "", drive.Refused, "unavailable"},
		"unknown":          {client.Call{Status: 504, Answer: problem("unknown_outcome")}, "", drive.Unknown, "unknown_outcome"},
		"internal":         {client.Call{Status: 500, Answer: problem("internal")}, "", drive.Unknown, "internal"},
		"full":             {client.Call{Status: 422, Answer: problem("tube_full")}, "", drive.Rejected, "tube_full"},
		"bare":             {client.Call{Status: 404, Answer: []byte("404 page not found")}, "", drive.Rejected, "http_404"},
		"connect":          {client.Call{Err: client.ErrConnect}, "", drive.NotSent, "connect"},
		"timeout":          {client.Call{Err: client.ErrTimeout, Sent: true}, "", drive.Unknown, "timeout"},
		"lost":             {client.Call{Err: client.ErrLost, Sent: true}, "", drive.Unknown, "connection_lost"},
		"nonsense":         {client.Call{Err: client.ErrBadAnswer, Sent: true}, "", drive.Unknown, "connection_lost"},
		"closed":           {client.Call{Err: client.ErrClosed}, "", drive.NotSent, "not_sent"},
		"closed in flight": {client.Call{Err: client.ErrClosed, Sent: true}, "", drive.Unknown, "connection_lost"},
		"queue":            {client.Call{Err: client.ErrQueueFull}, "", drive.Dropped, "generator_queue_full"},
		"expired":          {client.Call{Err: client.ErrExpired}, "", drive.NotSent, "no_free_connection"},
	} {
		tg := &Target{cfg: Config{Ack: c.ack}}
		op := &drive.Op{Kind: drive.Register, Samples: make([]drive.Sample, 1), Call: c.call}
		tg.judge(op)
		if op.Outcome != c.want || op.Code != c.code {
			t.Errorf("%s: %v %q, want %v %q", name, op.Outcome, op.Code, c.want, c.code)
		}
	}
}

func TestRowsOfABatchMustAddUp(t *testing.T) {
	judge := func(answer string) *drive.Op {
		op := &drive.Op{Kind: drive.RegisterBatch, Samples: make([]drive.Sample, 3), Call: client.Call{Status: 200, Answer: []byte(answer)}}
		(&Target{}).judge(op)
		return op
	}
	op := judge(`{"accepted":2,"duplicate":0,"rejected":1,"rows":[{"row":1,"status":"rejected","code":"tube_full"}]}`)
	if op.Outcome != drive.OK || len(op.Row) != 1 || op.Row[0] != (drive.RowFault{Row: 1, Code: "tube_full"}) {
		t.Errorf("%v %+v", op.Outcome, op.Row)
	}
	op = judge(`{"accepted":2,"duplicate":0,"conflict":1,"rejected":0,"rows":[{"row":1,"status":"conflict","code":"result_conflict"}]}`)
	if len(op.Row) != 1 || !op.Row[0].Kept {
		t.Errorf("a conflict is kept, and not taken: %+v", op.Row)
	}
	for _, lie := range []string{`{"accepted":2,"duplicate":0,"rows":[]}`, `{"accepted":1,"duplicate":0,"rows":[{"row":1,"status":"rejected"}]}`,
		`{"accepted":2,"duplicate":0,"rows":[{"row":7,"status":"rejected"}]}`} {
		if op := judge(lie); op.Outcome != drive.Unknown {
			t.Errorf("%s: %v", lie, op.Outcome)
		}
	}
}
