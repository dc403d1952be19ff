// Package fake is a province in memory that speaks the public HTTP contract
// and can be told to lie: to stall, to lose what it acknowledged, to write a
// thing twice, to drop its replies, to refuse. The generator's own tests hold
// it against what it reports. It is for tests alone.
package fake

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"qianma/cluster/identity"
	"qianma/loadtest/province"
	"qianma/nucleic/nucleicpb"
)

// Lies is how the province misbehaves; the zero value is honest.
type Lies struct {
	LoseEvery      int64         // every n-th registration is acknowledged and not kept
	RepeatEvery    int64         // every n-th registration is kept twice
	DoubleEvery    int64         // of every n-th result two facts are committed, which no tube shows
	DropReplyEvery int64         // every n-th write is done and its connection cut
	RefuseEvery    int64         // every n-th write gets 429
	RejectEvery    int64         // every n-th registration row is rejected
	NoTubes        bool          // it cannot be asked what is in a tube
	Hint           bool          // refusals carry Retry-After
	Lag            time.Duration // until the other carrier shows what this one took
	Owe            time.Duration // until one replica says that it holds what was committed
	Others         bool          // somebody else writes all the time
	Stale          bool          // displays say that what they show is old
}

// Province is the fake. All fields are set before the first request.
type Province struct {
	Lies
	Dir       string
	Endpoints *province.Endpoints
	Hasher    *identity.Hasher

	mu      sync.Mutex
	tubes   map[string]*tube
	persons map[identity.Person]*swab // newest
	keys    map[string][]byte         // answers by carrier and key
	asked   map[identity.Person]int   // displays, by who was asked about
	lost    []Swab                    // acknowledged and not kept
	stall   time.Time
	writes  atomic.Int64
	rows    atomic.Int64
	results atomic.Int64
	seq     atomic.Uint64
	wrote   atomic.Int64 // Unix ns of the last fact
	Shows   atomic.Int64 // displays answered
	nodes   map[string][]*httptest.Server
}

// Swab is one person's part of one tube.
type Swab struct {
	Tube   string
	Person identity.Person
}

type tube struct {
	swabs    []swab
	outcome  nucleicpb.Outcome
	carrier  string
	resulted time.Time
}

type swab struct {
	tube    string
	sampled time.Time
	pool    string
	carrier string
	kept    time.Time
}

// New starts a province with two nodes of each subsystem at each carrier.
func New(t *testing.T, lies Lies) *Province {
	t.Helper()
	p := &Province{Lies: lies, Dir: t.TempDir(), tubes: map[string]*tube{}, persons: map[identity.Person]*swab{}, keys: map[string][]byte{}, asked: map[identity.Person]int{}, nodes: map[string][]*httptest.Server{}}
	if err := os.MkdirAll(filepath.Join(p.Dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(p.Dir, "secrets", "person.key")
	if err := identity.NewKey(key); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.Hasher, err = identity.LoadHasher(key); err != nil {
		t.Fatal(err)
	}
	p.Endpoints = &province.Endpoints{Province: "fake", Data: p.Dir, Carriers: map[string]map[string][]string{}}
	for _, c := range []string{"unicom", "mobile"} {
		p.Endpoints.Carriers[c] = map[string][]string{}
		for _, sub := range []string{"nucleic", "display"} {
			for range 2 {
				srv := httptest.NewServer(p.handler(c))
				t.Cleanup(srv.Close)
				p.nodes[c] = append(p.nodes[c], srv)
				p.Endpoints.Carriers[c][sub] = append(p.Endpoints.Carriers[c][sub], srv.URL)
			}
		}
	}
	raw, _ := json.Marshal(p.Endpoints)
	if err := os.WriteFile(filepath.Join(p.Dir, "endpoints.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// Stall makes every request that comes in the next d wait until it is over.
func (p *Province) Stall(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stall = time.Now().Add(d)
}

// Stop ends every node of a carrier: nobody listens there any more.
func (p *Province) Stop(carrier string) {
	for _, n := range p.nodes[carrier] {
		n.CloseClientConnections()
		n.Close()
	}
}

// Lost are the acknowledged registrations that were not kept.
func (p *Province) Lost() []Swab {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lost)
}

// Asked is how often each person's code was asked for.
func (p *Province) Asked() map[identity.Person]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.asked)
}

// Swabs is how many swabs all tubes hold.
func (p *Province) Swabs() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, t := range p.tubes {
		n += len(t.swabs)
	}
	return n
}

func (p *Province) handler(carrier string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/registrations", p.write(carrier, p.register))
	mux.HandleFunc("POST /v1/registrations/batch", p.write(carrier, p.register))
	mux.HandleFunc("POST /v1/results", p.write(carrier, p.result))
	mux.HandleFunc("POST /v1/results/batch", p.write(carrier, p.result))
	mux.HandleFunc("GET /v1/tubes/{tube}", p.tube)
	mux.HandleFunc("GET /v1/code", p.code(carrier))
	mux.HandleFunc("POST /v1/verify", p.verify)
	mux.HandleFunc("POST /v1/persons/resolve", p.resolve)
	mux.HandleFunc("GET /v1/marks", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"process":"x","origins":{"unicom/nucleic/0/1":{"seq":%d,"digest":"00"},"unicom/vaccine/0/1":{"seq":7,"digest":"00"}}}`, p.mark(carrier))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		until := p.stall
		p.mu.Unlock()
		if wait := time.Until(until); wait > 0 {
			time.Sleep(wait)
		}
		mux.ServeHTTP(w, r)
	})
}

// mark is how many facts a carrier says it holds.
func (p *Province) mark(carrier string) uint64 {
	if p.Others {
		p.commit()
	}
	n := p.seq.Load()
	if carrier == "mobile" && n > 0 && time.Since(time.Unix(0, p.wrote.Load())) < p.Owe {
		n--
	}
	return n
}

func (p *Province) commit() {
	p.seq.Add(1)
	p.wrote.Store(time.Now().UnixNano())
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"code":%q,"message":"no","fix":"none"}`, code)
}

func every(n *atomic.Int64, nth int64) bool { return nth > 0 && n.Load()%nth == 0 }

// write is what all writes share: keys, refusals, lost replies, the receipt.
func (p *Province) write(carrier string, do func(carrier string, row []byte, binary bool) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		p.writes.Add(1)
		if every(&p.writes, p.RefuseEvery) {
			if p.Hint {
				w.Header().Set("Retry-After", "1")
			}
			refuse(w, 429, "overloaded")
			return
		}
		key := carrier + " " + r.Header.Get("Idempotency-Key")
		p.mu.Lock()
		answer, known := p.keys[key]
		if !known {
			answer = p.answer(carrier, r, body, do)
			p.keys[key] = answer
		} else {
			answer = bytes.Replace(answer, []byte(`"replayed":false`), []byte(`"replayed":true`), 1)
		}
		p.mu.Unlock()
		if !known && every(&p.writes, p.DropReplyEvery) {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		if bytes.HasPrefix(answer, []byte(`{"code"`)) {
			w.WriteHeader(422)
		}
		_, _ = w.Write(answer)
	}
}

func (p *Province) answer(carrier string, r *http.Request, body []byte, do func(string, []byte, bool) string) []byte {
	var rows [][]byte
	isBinary := r.Header.Get("Content-Type") == "application/x-qianma-facts"
	switch r.Header.Get("Content-Type") {
	case "application/x-qianma-facts":
		for rest := body; len(rest) > 0; {
			n, w := binary.Uvarint(rest)
			rows, rest = append(rows, rest[w:w+int(n)]), rest[w+int(n):]
		}
	case "application/x-ndjson":
		sc := bufio.NewScanner(bytes.NewReader(body))
		for sc.Scan() {
			rows = append(rows, bytes.Clone(sc.Bytes()))
		}
	default:
		rows = [][]byte{body}
	}
	var faults []string
	accepted := 0
	for i, row := range rows {
		if code := do(carrier, row, isBinary); code != "" {
			faults = append(faults, fmt.Sprintf(`{"row":%d,"status":"rejected","code":%q}`, i, code))
			continue
		}
		accepted++
		p.commit()
	}
	if len(rows) == 1 && accepted == 0 {
		return []byte(`{"code":"tube_full","message":"no","fix":"none"}`)
	}
	return fmt.Appendf(nil, `{"receipt":{"level":"committed","origin":"unicom/nucleic/0/1","first":1,"last":2,"replayed":false},"accepted":%d,"duplicate":0,"conflict":0,"rejected":%d,"rows":[%s]}`,
		accepted, len(faults), strings.Join(faults, ","))
}

// register keeps one swab. The lock is held.
func (p *Province) register(carrier string, row []byte, isBinary bool) string {
	s, person, err := p.readSwab(row, isBinary)
	if err != nil {
		return "malformed"
	}
	s.carrier, s.kept = carrier, time.Now()
	p.rows.Add(1)
	if every(&p.rows, p.RejectEvery) {
		return "tube_full"
	}
	if every(&p.rows, p.LoseEvery) {
		p.lost = append(p.lost, Swab{s.tube, person})
		return ""
	}
	t := p.tubes[s.tube]
	if t == nil {
		t = &tube{}
		p.tubes[s.tube] = t
	}
	t.swabs = append(t.swabs, s)
	if every(&p.rows, p.RepeatEvery) {
		t.swabs = append(t.swabs, s)
		p.commit()
	}
	if old := p.persons[person]; old == nil || old.sampled.Before(s.sampled) {
		p.persons[person] = &s
	}
	return ""
}

func (p *Province) readSwab(row []byte, isBinary bool) (swab, identity.Person, error) {
	if isBinary {
		var f nucleicpb.Fact
		if kind, err := f.Decode(row); err != nil || kind != nucleicpb.KindRegistered {
			return swab{}, identity.Person{}, fmt.Errorf("not a registration: %w", err)
		}
		m := f.Registered
		return swab{tube: string(m.Tube), sampled: time.UnixMilli(m.SampledAt), pool: m.Pool.String()}, identity.Person(m.Person), nil
	}
	var in struct {
		Tube, Pool, Site, Channel, Operator string
		Sampled                             time.Time `json:"sampled_at"`
		Document                            identity.Document
	}
	d := json.NewDecoder(bytes.NewReader(row))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return swab{}, identity.Person{}, err
	}
	doc, flags, err := in.Document.Normalize()
	if err != nil || flags != 0 || len(in.Tube) != 14 {
		return swab{}, identity.Person{}, fmt.Errorf("document or tube: %v %v", flags, err)
	}
	return swab{tube: in.Tube, sampled: in.Sampled, pool: in.Pool}, p.Hasher.Person(doc), nil
}

// result keeps a tube's result. The lock is held.
func (p *Province) result(carrier string, row []byte, isBinary bool) string {
	number, outcome := "", nucleicpb.OutcomeUnknown
	if isBinary {
		var f nucleicpb.Fact
		if kind, err := f.Decode(row); err != nil || kind != nucleicpb.KindResulted {
			return "malformed"
		}
		number, outcome = string(f.Resulted.Tube), f.Resulted.Outcome
	} else {
		var in struct {
			Tube, Lab, Outcome, Method, Operator string
			Revision                             int
			Tested                               time.Time `json:"tested_at"`
			Reported                             time.Time `json:"reported_at"`
		}
		d := json.NewDecoder(bytes.NewReader(row))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			return "malformed"
		}
		number = in.Tube
		outcome, _ = nucleicpb.ParseOutcome(in.Outcome)
	}
	t := p.tubes[number]
	if t == nil {
		t = &tube{}
		p.tubes[number] = t
	}
	t.outcome, t.carrier, t.resulted = outcome, carrier, time.Now()
	p.results.Add(1)
	if every(&p.results, p.DoubleEvery) {
		p.commit()
	}
	return ""
}

func (p *Province) tube(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.NoTubes {
		refuse(w, 422, "unsupported")
		return
	}
	t := p.tubes[r.PathValue("tube")]
	if t == nil {
		refuse(w, 404, "not_found")
		return
	}
	fmt.Fprintf(w, `{"tube":%q,"members":[%s]}`, r.PathValue("tube"), strings.TrimSuffix(strings.Repeat(`{"person":"p_x","live":true},`, len(t.swabs)), ","))
}

func (p *Province) code(carrier string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p.Shows.Add(1)
		person, err := identity.ParsePerson(r.URL.Query().Get("person"))
		if err != nil {
			refuse(w, 422, "invalid")
			return
		}
		p.mu.Lock()
		p.asked[person]++
		nucleic := p.nucleic(carrier, person)
		p.mu.Unlock()
		fmt.Fprintf(w, `{"person":%q,"colour":"green","reasons":[{"code":"nucleic","text":"ok"}],"nucleic":%s,"data":{"stale":%v},"token":"QM1:ABC %s"}`, person, nucleic, p.Stale, r.URL.Query().Get("person")[2:6])
	}
}

func (p *Province) nucleic(carrier string, person identity.Person) string {
	s := p.persons[person]
	if s == nil || s.carrier != carrier && time.Since(s.kept) < p.Lag {
		return "null"
	}
	status := "pending"
	if t := p.tubes[s.tube]; t != nil && t.outcome != 0 && (t.carrier == carrier || time.Since(t.resulted) >= p.Lag) {
		status = t.outcome.String()
		if status == "positive" && s.pool != "1" {
			status = "pool_positive_retest"
		}
	}
	return fmt.Sprintf(`{"status":%q,"sampled_at":%q,"hours_since_sampling":1}`, status, s.sampled.UTC().Format("2006-01-02T15:04:05.000Z"))
}

func (p *Province) verify(w http.ResponseWriter, r *http.Request) {
	var in struct{ Token string }
	if json.NewDecoder(r.Body).Decode(&in) != nil || !strings.HasPrefix(in.Token, "QM1:") {
		refuse(w, 422, "invalid")
		return
	}
	_, _ = io.WriteString(w, `{"valid":true}`)
}

func (p *Province) resolve(w http.ResponseWriter, r *http.Request) {
	var in struct{ Document identity.Document }
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		refuse(w, 400, "malformed")
		return
	}
	doc, _, err := in.Document.Normalize()
	if err != nil {
		refuse(w, 422, "invalid")
		return
	}
	fmt.Fprintf(w, `{"person":%q}`, p.Hasher.Person(doc))
}
