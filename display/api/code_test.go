package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/display/colour"
	"qianma/display/rules"
	"qianma/display/token"
	pb "qianma/middle-store/middlestorepb"
)

func TestCodeOfANegativePerson(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomeNegative, 20, 13*time.Hour)}, HasDoses: true, Doses: pb.Doses{Count: 2, LastDay: 18997}})
	a := h.show(p, "&include=offline&lang=en")
	if a.Person != p.String() || a.Colour != "green" || a.Level != "green" || a.Word != "Green" || a.codes() != "negative_valid" || a.Data.Stale {
		t.Fatalf("%+v", a)
	}
	if n := a.Nucleic; n == nil || n.Status != "negative" || *n.Hours != 13 || *n.TubePool != "20" || *n.SampledAt != "2022-02-28T23:00:00Z" {
		t.Fatalf("%+v", a.Nucleic)
	}
	if a.Doses.Count != 2 || *a.Doses.LastDay != "2022-01-05" || a.Data.Source != "middle_store" || *a.Data.Carriers["mobile"].Age != 1 {
		t.Fatalf("%+v %+v", a.Doses, a.Data)
	}
	v := h.verify(a.Token)
	if !v.Valid || v.Claims.Colour != "green" || v.Claims.Kind != "online" || v.Claims.ExpiresAt != "2022-03-01T12:01:00Z" || *a.TokenExpiresAt != v.Claims.ExpiresAt {
		t.Fatalf("%+v %+v", v, v.Claims)
	}
	if v := h.verify(a.OfflineToken); !v.Valid || v.Claims.Kind != "offline" || v.Claims.ExpiresAt != "2022-03-02T12:00:00Z" {
		t.Fatalf("%+v", v)
	}
}

func TestCodeOfAStranger(t *testing.T) {
	h := newHouse(t, 1)
	a := h.show(somebody(1), "")
	if a.Colour != "green" || a.codes() != "never_tested" || a.Nucleic.Status != "none" || a.Nucleic.SampledAt != nil || a.Doses.Count != 0 || a.Doses.LastDay != nil {
		t.Fatalf("%+v", a)
	}
}

// TestStatusesOfTests walks the words of the tests that phones tell apart.
func TestStatusesOfTests(t *testing.T) {
	h := newHouse(t, 1)
	late := tested(pb.OutcomeNegative, 1, 20*time.Hour)
	late.TestedAt = late.SampledAt - 2*3600_000
	conflict := tested(pb.OutcomeNegative, 1, 20*time.Hour)
	conflict.Conflict = true
	for i, c := range []struct {
		tube                  pb.Tube
		status, colour, codes string
	}{
		{tested(pb.OutcomePending, 10, time.Hour), "pending", "green", "result_pending"},
		{tested(pb.OutcomePositive, 10, 20*time.Hour), "pool_positive_retest", "orange", "pool_positive_retest"},
		{tested(pb.OutcomePositive, household, 20*time.Hour), "pool_positive_retest", "orange", "pool_positive_retest"},
		{tested(pb.OutcomePositive, 1, 20*time.Hour), "positive", "red", "positive"},
		{conflict, "conflict", "orange", "results_conflict"},
		{late, "conflict", "orange", "results_conflict"},
		{tested(pb.OutcomeInvalid, 1, 20*time.Hour), "inconclusive", "green", "invalid_sample"},
		{tested(9, 1, 20*time.Hour), "inconclusive", "green", "inconclusive_retest"},
	} {
		p := somebody(i + 1)
		h.stores.know(p, pb.Person{Tubes: []pb.Tube{c.tube}})
		if a := h.show(p, ""); a.Nucleic.Status != c.status || a.Colour != c.colour || a.codes() != c.codes {
			t.Errorf("%d: %s %s %s, want %s %s %s", i, a.Nucleic.Status, a.Colour, a.codes(), c.status, c.colour, c.codes)
		}
	}
}

func TestRestrictionShowsAndOnlyItsReleaseEndsIt(t *testing.T) {
	for _, shards := range []int{1, 4} {
		h := newHouse(t, shards)
		p := somebody(1)
		h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomeNegative, 1, time.Hour)}})
		if a := h.show(p, ""); a.Colour != "green" {
			t.Fatalf("%+v", a)
		}
		mine := restrictionID(h.accept("/v1/restrictions", restrictionJSON(p, "")))
		theirs := restrictionID(h.accept("/v1/restrictions", restrictionJSON(p, `,"level":"orange","reference":"410100-7"`)))
		// The facts reach the caches before the clock has moved at all.
		a := h.show(p, "&lang=en")
		if a.Colour != "red" || a.Level != "red" || a.codes() != "close_contact close_contact negative_valid" || a.Reasons[0].Source != "520103" {
			t.Fatalf("%+v", a)
		}
		if v := h.verify(a.Token); v.Claims.Colour != "red" {
			t.Fatal("the token of before was given again")
		}
		h.accept("/v1/releases", releaseJSON(p, mine))
		if a := h.show(p, ""); a.Colour != "orange" {
			t.Fatalf("%+v", a)
		}
		h.accept("/v1/releases", releaseJSON(p, theirs))
		if a := h.show(p, ""); a.Colour != "green" || a.codes() != "negative_valid" {
			t.Fatalf("%+v", a)
		}
		r := h.get("/v1/restrictions?person=" + p.String())
		if strings.Count(string(r.raw), `"state":"released"`) != 2 {
			t.Fatalf("%s", r.raw)
		}
	}
}

func TestPlainAnswersAreCachedAndDropped(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.show(p, "")
	calls := h.stores.called()
	h.show(p, "")
	if h.stores.called() != calls {
		t.Fatal("an answer of this moment was asked for again")
	}
	h.show(p, "&lang=en")
	if h.stores.called() != calls+1 {
		t.Fatal("an answer in another language came from the cache")
	}
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomePositive, 1, time.Hour)}})
	h.wait()
	if a := h.show(p, ""); a.Colour != "red" {
		t.Fatalf("a new result does not show: %+v", a)
	}
}

// TestTokenIsSignedOncePerPeriodAndContent follows one person's tokens.
func TestTokenIsSignedOncePerPeriodAndContent(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	first := h.show(p, "")
	h.clock.Advance(40 * time.Second)
	if again := h.show(p, ""); again.Token != first.Token || *again.TokenExpiresAt != *first.TokenExpiresAt {
		t.Fatal("a token with 20 s left was signed again")
	}
	h.clock.Advance(time.Second)
	second := h.show(p, "")
	if second.Token == first.Token || *second.TokenExpiresAt != "2022-03-01T12:01:41Z" {
		t.Fatal("a token with less than 20 s left was given again")
	}
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomePositive, 1, time.Hour)}})
	h.wait()
	if third := h.show(p, ""); third.Token == second.Token {
		t.Fatal("a token of another colour was given again")
	}
}

func TestVerifySaysWhyNot(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	a := h.show(p, "")
	other := newHouse(t, 1).show(p, "")
	forged := []byte(a.Token)
	forged[len(forged)-5] = "01"[len(forged)%2]
	if forged[len(forged)-5] == a.Token[len(forged)-5] {
		forged[len(forged)-5] = '7'
	}
	for reason, text := range map[string]string{"malformed": "hello", "unknown_key": other.Token, "bad_signature": string(forged)} {
		if v := h.verify(text); v.Valid || v.Reason != reason && reason != "bad_signature" || v.Claims != nil || v.Message == "" {
			t.Errorf("%s: %+v", reason, v)
		}
	}
	h.clock.Advance(time.Minute)
	if v := h.verify(a.Token); v.Valid || v.Reason != "expired" || v.Claims.Colour != "green" {
		t.Errorf("%+v", v)
	}
	for who, want := range map[string]bool{p.String(): true, somebody(2).String(): false} {
		body, _ := json.Marshal(map[string]string{"token": a.Token, "person": who})
		var v verdict
		if err := json.Unmarshal(h.post("/v1/verify", "", string(body)).raw, &v); err != nil || v.Belongs == nil || *v.Belongs != want {
			t.Errorf("%s: %+v", who, v)
		}
	}
}

func TestPublishedKeysVerifyWithNoNetwork(t *testing.T) {
	h := newHouse(t, 1)
	set, err := token.ParseKeySet(h.get("/v1/keys").raw)
	if err != nil {
		t.Fatal(err)
	}
	a := h.show(somebody(1), "")
	if c, err := token.Verify(set, a.Token, now); err != nil || !c.Belongs(somebody(1)) {
		t.Fatal(err)
	}
}

func TestRotatedKeySignsWithoutARestart(t *testing.T) {
	h := newHouse(t, 1)
	old := h.show(somebody(1), "")
	if err := token.GenerateKey(h.secrets, "unicom", now.Add(-time.Minute), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	h.clock.Advance(keyPace * time.Second)
	set, err := token.ParseKeySet(h.get("/v1/keys").raw)
	if err != nil || len(set.Keys()) != 2 {
		t.Fatalf("%d keys, %v", len(set.Keys()), err)
	}
	fresh := h.show(somebody(2), "")
	for _, text := range []string{old.Token, fresh.Token} {
		if v := h.verify(text); !v.Valid {
			t.Fatalf("%+v", v)
		}
	}
	h.clock.Advance(25 * time.Hour)
	if r := h.send("GET", "/v1/keys", "", "", "", false); r.status != http.StatusOK {
		t.Fatal(r.status)
	}
	resp, err := h.client.Get(h.base + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Fatal("a node whose token key has ended calls itself ready")
	}
}

// TestFailureTable takes away what display reads, one after another.
func TestFailureTable(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomeNegative, 1, time.Hour)}})
	if a := h.show(p, ""); a.Data.Source != "middle_store" {
		t.Fatalf("%+v", a.Data)
	}
	h.wait()
	h.stores.kill("own")
	if a := h.show(p, ""); a.Data.Source != "other_carrier" || a.Colour != "green" {
		t.Fatalf("%+v", a.Data)
	}
	h.stores.kill("other")
	var a Answer
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // the copy is written lazily
		h.wait()
		if a = h.show(p, ""); a.Data.Source == "last_known" || time.Now().After(end) {
			break
		}
	}
	if a.Data.Source != "last_known" || a.Colour != "green" || a.codes() != "negative_valid data_last_known" {
		t.Fatalf("%+v", a)
	}
	if a := h.show(somebody(2), ""); a.Data.Source != "none" || a.Colour != "yellow" || a.codes() != "data_missing" || !a.Data.Stale || a.Nucleic != nil || a.Doses != nil {
		t.Fatalf("a stranger of whom nothing can be known: %+v", a)
	}
	// An hour later the copy says that it is old; a day later it is no ground.
	h.clock.Advance(time.Hour)
	if a = h.show(p, "&lang=en"); !a.Data.Stale || a.Word != "Green (not the newest data)" || *a.Data.Carriers["unicom"].Age < 3600 {
		t.Fatalf("%+v", a)
	}
	if v := h.verify(a.Token); !v.Claims.Stale {
		t.Fatalf("the token hides that the data is old: %+v", v.Claims)
	}
	h.clock.Advance(24 * time.Hour)
	if a = h.show(p, ""); a.Colour != "yellow" || !strings.HasPrefix(a.codes(), "data_too_old") {
		t.Fatalf("%+v", a)
	}
	// Restrictions are of this replica, so they show all the same.
	h.accept("/v1/restrictions", restrictionJSON(p, ""))
	if a = h.show(p, ""); a.Colour != "red" {
		t.Fatalf("%+v", a)
	}
}

// TestWithoutAQuorum: the replica has not heard from a majority for an hour,
// and then cannot be read at all.
func TestWithoutAQuorum(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomeNegative, 1, time.Hour)}})
	h.accept("/v1/restrictions", restrictionJSON(p, ""))
	*h.heard = now
	h.clock.Advance(time.Hour)
	h.stores.fresh = freshAsOf(h.clock.Now())
	a := h.show(p, "")
	if a.Colour != "red" || !a.Data.Stale || *a.Data.RestrictionsAsOf != "2022-03-01T12:00:00Z" || !strings.Contains(a.codes(), "restrictions_stale") {
		t.Fatalf("%+v", a)
	}
	h.wait()
	h.proposer.Refuse(1000, problem.New(problem.Unavailable, "closing", "try another node"))
	a = h.show(p, "")
	if a.Colour != "yellow" || a.Data.RestrictionsAsOf != nil || !a.Data.Stale {
		t.Fatalf("nothing is known of restrictions, and it is green: %+v", a)
	}
}

// ending is a replica that is closed while it is asked: it can be read once.
type ending struct {
	machine.Proposer
	peeks int
}

func (e *ending) Peek(int, []byte) ([]byte, bool, error) {
	if e.peeks++; e.peeks > 1 {
		return nil, false, errors.New("closed")
	}
	return nil, false, nil
}

func (e *ending) View(context.Context, int, bool) (machine.View, error) {
	return nil, errors.New("closed")
}

// Goal: restrictions that could not be read are not taken for none. Method: the
// replica ends between a reader's question and the second look for the newest.
func TestWhatCannotBeReadIsNotTakenForNothing(t *testing.T) {
	h := newHouse(t, 1)
	a := &API{Config: Config{Proposer: &ending{Proposer: h.proposer}, Heard: func(int) time.Time { return now }}}
	var s rules.State
	heard, behind := a.readState(t.Context(), &s, &asked{person: somebody(1), seen: seen{facts: 1}})
	if heard != 0 || !behind {
		t.Errorf("as of %d, behind %v: what was not read is vouched for", heard, behind)
	}
}

func TestReaderIsNotShownThePastUnawares(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.stores.know(p, pb.Person{Tubes: []pb.Tube{tested(pb.OutcomePositive, 1, time.Hour)}})
	h.accept("/v1/restrictions", restrictionJSON(p, ""))
	a := h.show(p, "")
	if b := h.show(p, "&seen="+a.Seen); b.Data.OlderThanSeen || b.Seen != a.Seen {
		t.Fatalf("%+v", b)
	}
	// A reader who has seen more of the tests, and one who has seen more of
	// the restrictions, at some other node.
	for _, more := range []string{string(appendSeen(nil, pb.Marks{{Origin: 7, Seq: 99}}, 1)), string(appendSeen(nil, pb.Marks{{Origin: 7, Seq: 1}}, 5))} {
		b := h.show(p, "&seen="+more)
		if !b.Data.OlderThanSeen || !b.Data.Stale || !strings.Contains(b.codes(), "older_than_seen") {
			t.Fatalf("%+v", b)
		}
		// The answer does not make the reader forget: one that sends back what
		// it was given is told again.
		if c := h.show(p, "&seen="+b.Seen); !c.Data.OlderThanSeen {
			t.Fatalf("a reader was made to forget what it had seen: %+v", c)
		}
		if c := h.show(p, ""); c.Data.OlderThanSeen {
			t.Fatalf("another reader got the answer of one who had seen more: %+v", c)
		}
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1).String()
	for query, status := range map[string]int{
		"": 422, "person=": 422, "person=p_x": 422, "person=" + p + "&include=all": 422, "person=" + p + "&lang=fr": 422,
		"person=" + p + "&seen=x": 422, "person=" + p + "&seen=AAAA.zz": 422, "person=" + p + "&seen=" + strings.Repeat("A", 5000): 422,
		"person=%zz": 422, "person=" + p + "&colour=green": 400, "person=" + p + "&seen=.-1": 422,
	} {
		if r := h.send("GET", "/v1/code?"+query, "", "", "", true); r.status != status || r.body.Code == "" || r.body.Fix == "" {
			t.Errorf("%s: %d %s", query, r.status, r.raw)
		}
	}
	if r := h.send("GET", "/v1/code?&person="+strings.Replace(p, "_", "%5F", 1)+"&seen=&", "", "", "", true); r.status != http.StatusOK {
		t.Errorf("an escaped query: %d", r.status)
	}
}

// TestPictureIsReadByAScanner decodes both pictures as a gate would.
func TestPictureIsReadByAScanner(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	a := h.show(p, "&include=qr,offline")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(a.QR, "data:image/png;base64,"))
	if err != nil {
		t.Fatal(err)
	}
	if got := scan(t, raw); got != a.Token {
		t.Fatalf("the picture says %q, the answer %q", got, a.Token)
	}
	r := h.get("/v1/code.png?person=" + p.String() + "&include=offline")
	if r.status != http.StatusOK || r.header.Get("X-Token-Kind") != "offline" || r.header.Get("X-Token-Expires-At") != "2022-03-02T12:00:00Z" {
		t.Fatal(r.status, r.header)
	}
	if v := h.verify(scan(t, r.raw)); !v.Valid || v.Claims.Kind != "offline" {
		t.Fatalf("%+v", v)
	}
	if r := h.get("/v1/code.png?person=" + p.String()); r.header.Get("X-Token-Kind") != "online" || !h.verify(scan(t, r.raw)).Valid {
		t.Fatal(r.header)
	}
}

// TestCodeDoesNotWaitForItsPicture: every place for drawing is taken.
func TestCodeDoesNotWaitForItsPicture(t *testing.T) {
	a := &API{qr: make(chan struct{}, 1)}
	a.qr <- struct{}{}
	if got := a.picture(t.Context(), "QM1:00"); got != "" {
		t.Fatal(got)
	}
	if _, err := a.drawn(t.Context(), "QM1:00"); !problem.Is(err, problem.Overloaded) || problem.From(err).RetryAfter == 0 {
		t.Fatal(err)
	}
	<-a.qr
	if got := a.picture(t.Context(), "QM1:00"); got == "" {
		t.Fatal("no picture")
	}
}

// TestWhoHasGoneCostsNothing: a caller that leaves before its turn is neither
// judged nor signed for (there is nothing here to do that with).
func TestWhoHasGoneCostsNothing(t *testing.T) {
	a := &API{turns: make(chan struct{}, 1)}
	a.turns <- struct{}{}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := a.conclude(gone, nil, nil, 0, 0, false); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if len(a.turns) != 1 {
		t.Fatal("it gave back a turn that it never had")
	}
}

// scan reads a picture. It is told that there is nothing but the code in it: the
// library's search for one in a photograph misses one in fifty.
func scan(t *testing.T, raw []byte) string {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	bitmap, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	alone := map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_PURE_BARCODE: true}
	got, err := qrcode.NewQRCodeReader().Decode(bitmap, alone)
	if err != nil {
		t.Fatal(err)
	}
	return got.GetText()
}

func TestVaccinationsComeFromTheMiddleStoreWithTheirAge(t *testing.T) {
	h := newHouse(t, 1)
	p := somebody(1)
	h.stores.know(p, pb.Person{HasDoses: true, Doses: pb.Doses{Count: 1, LastDay: 18997, Doses: []pb.Dose{{Dose: 1, Day: 18997, Product: "BBIBP-CorV", Batch: "B", Site: "S"}}}})
	read := func() (v vaccinations) {
		t.Helper()
		r := h.get("/v1/vaccinations?person=" + p.String())
		if err := json.Unmarshal(r.raw, &v); err != nil || r.status != http.StatusOK {
			t.Fatalf("%d: %s", r.status, r.raw)
		}
		return v
	}
	if v := read(); v.Count != 1 || *v.LastDay != "2022-01-05" || len(v.Doses) != 1 || v.Data.Stale || v.Data.Source != "middle_store" {
		t.Fatalf("%+v", v)
	}
	h.clock.Advance(time.Hour)
	if v := read(); !v.Data.Stale || *v.Data.Carriers["mobile"].Age != 3601 {
		t.Fatalf("%+v", v)
	}
	h.stores.kill("own", "other")
	p = somebody(2)
	if r := h.get("/v1/vaccinations?person=" + p.String()); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Fatalf("%d: %s", r.status, r.raw)
	}
}

// TestCachesStayWithinTheirBytes shows far more people than fit.
func TestCachesStayWithinTheirBytes(t *testing.T) {
	c := NewCache(64<<10, 64<<10)
	for i := range 10000 {
		p := somebody(i)
		p[3], p[14], p[15] = byte(i>>8), byte(i>>16), byte(i)
		c.answers.Put(p, cachedAnswer{body: make([]byte, 500), until: int64(i)}, 500)
		c.tokens.Put(p, cachedToken{text: "x"}, 1)
		if got, ok := c.answers.Get(p); !ok || got.until != int64(i) {
			t.Fatalf("what was put last is gone: %d", i)
		}
	}
	if a, b := c.answers.Bytes(), c.tokens.Bytes(); a > 64<<10 || b > 64<<10 || a == 0 || b == 0 {
		t.Fatalf("%d and %d bytes", a, b)
	}
	c.Replaced()
	if c.answers.Bytes() != 0 {
		t.Fatal("something is left")
	}
}

func TestSeenReadsBack(t *testing.T) {
	for _, want := range []seen{{}, {facts: 3}, {marks: pb.Marks{{Origin: 1, Seq: 2}, {Origin: 9, Seq: 1 << 40}}, facts: 1 << 20}} {
		got, ok := parseSeen(string(appendSeen(nil, want.marks, want.facts)))
		if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v reads back as %v", want, got)
		}
	}
}

// TestAnswerEscapes: words of a rule set can be anything.
func TestAnswerEscapes(t *testing.T) {
	odd := "a\"b\\c\n\t\u2028</script>绿"
	got := appendQuoted([]byte("x"), func(b []byte) []byte { return append(b, odd...) })
	var back string
	if err := json.Unmarshal(got[1:], &back); err != nil || back != odd || got[0] != 'x' {
		t.Fatalf("%s: %v", got, err)
	}
}

func FuzzQuery(f *testing.F) {
	p := somebody(1).String()
	f.Add("person=" + p + "&include=offline,qr&lang=en&seen=" + string(appendSeen(nil, pb.Marks{{Origin: 7, Seq: 9}}, 3)))
	f.Add("person=%70")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseQuery(raw)
		if err == nil && q.lang != colour.ZH && q.lang != colour.EN {
			t.Fatal(q)
		}
	})
}
