package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// Levels of a receipt, as the API writes them.
const (
	levelCommitted  = "committed"
	levelReplicated = "replicated"
)

// Carrier is one site and the nodes of the subsystem that takes the file.
type Carrier struct {
	Name string
	URLs []string
	// First says that this carrier is preferred; without one, batches are
	// shared out evenly.
	First bool
}

// batch is what travels: the rows of the file that could be read.
type batch struct {
	number  int
	key     string
	rows    []int // number in the file of each row in body
	body    []byte
	rejects []Reject // rows of the batch that could not even be sent
}

func (b *batch) size() int { return len(b.rows) + len(b.rejects) }

// answer is the write answer of the API.
type answer struct {
	Receipt   *receipt  `json:"receipt"`
	Receipts  []receipt `json:"receipts"`
	Accepted  int       `json:"accepted"`
	Duplicate int       `json:"duplicate"`
	Conflict  int       `json:"conflict"`
	Rejected  int       `json:"rejected"`
	Rows      []struct {
		Row     int    `json:"row"`
		Status  string `json:"status"`
		Code    string `json:"code"`
		Message string `json:"message"`
		Fix     string `json:"fix"`
	} `json:"rows"`
}

type receipt struct {
	Level string `json:"level"`
}

// level is the lowest level among the receipts.
func (a *answer) level() string {
	all := a.Receipts
	if a.Receipt != nil {
		all = append(all, *a.Receipt)
	}
	for _, r := range all {
		if r.Level != levelReplicated {
			return levelCommitted
		}
	}
	return levelReplicated
}

// trouble is an error answer, or no answer at all. A final one is about the
// batch itself: sending it again, anywhere, would change nothing.
type trouble struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
	AfterMS int64  `json:"retry_after_ms"`
	final   bool
	where   string
}

func (t *trouble) Error() string { return t.where + ": " + t.Message + " (" + t.Code + ")" }

// sender sends batches to one node at a time, the preferred carrier first.
type sender struct {
	client   *http.Client
	kind     Kind
	carriers []Carrier

	mu    sync.Mutex
	turn  map[string]int // carrier -> node to try next
	short time.Time      // when an answer last came back short of `replicated`
	// patient: everything is committed, only `replicated` is being waited for.
	patient bool
}

// wait is how long one request asks the carrier to wait for `replicated`;
// after an answer that fell short, requests ask for `committed` alone for a
// while, so that a cut line between the carriers does not slow the rows.
const (
	wait     = 2 * time.Second
	hurryFor = 10 * time.Second
)

// requestLimit bounds one request, so that a paused node holds a batch little
// longer than a living one that waits for `replicated` may.
const requestLimit = wait + 2*time.Second

// send tries every node of the carriers in order, each once, and returns the
// first answer with the carrier it came from.
func (s *sender) send(ctx context.Context, b *batch, prefer int) (*answer, string, *trouble) {
	var last *trouble
	if len(s.carriers) > 0 && s.carriers[0].First {
		prefer = 0
	}
	for i := range s.carriers {
		c := s.carriers[(prefer+i)%len(s.carriers)]
		for range c.URLs {
			a, t := s.post(ctx, c, b)
			if t == nil {
				return a, c.Name, nil
			}
			if t.final || ctx.Err() != nil {
				return nil, c.Name, t
			}
			last = t
			s.skip(c)
		}
	}
	if last == nil {
		last = &trouble{Code: "unavailable", Message: "no endpoint of " + s.kind.Subsystem + " is known", Fix: "start the province or name its endpoints"}
	}
	return nil, "", last
}

func (s *sender) post(ctx context.Context, c Carrier, b *batch) (*answer, *trouble) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	base := s.node(c)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+s.kind.Path+"?"+s.asked(), bytes.NewReader(b.body))
	if err != nil {
		return nil, &trouble{Code: "invalid", Message: "the endpoint is not a URL", Fix: "mend the endpoints", final: true}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", b.key)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, &trouble{Code: "unavailable", Message: "no answer", where: c.Name, Fix: "it is being tried again"}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	if err != nil {
		return nil, &trouble{Code: "unknown_outcome", Message: "the answer broke off", where: c.Name, Fix: "it is being sent again under the same key"}
	}
	a, t := read(res, raw, c.Name)
	if a != nil && a.level() != levelReplicated {
		s.mu.Lock()
		s.short = time.Now()
		s.mu.Unlock()
	}
	return a, t
}

// wants sets what the pass is for.
func (s *sender) wants(level string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patient = level == levelReplicated
}

// asked is the query of a write: the level and the longest wait for it.
func (s *sender) asked() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.patient && time.Since(s.short) < hurryFor {
		return url.Values{"ack": {levelCommitted}}.Encode()
	}
	return url.Values{"ack": {levelReplicated}, "wait": {wait.String()}}.Encode()
}

func read(res *http.Response, raw []byte, where string) (*answer, *trouble) {
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusCreated {
		a := new(answer)
		if json.Unmarshal(raw, a) == nil && (a.Receipt != nil || a.Receipts != nil) {
			return a, nil
		}
		return nil, &trouble{Code: "unknown_outcome", Message: "the answer is not a receipt", where: where}
	}
	t := &trouble{Code: "http_" + strconv.Itoa(res.StatusCode), Message: "the node answered with status " + strconv.Itoa(res.StatusCode)}
	if json.Unmarshal(raw, t) != nil {
		t.Message = "the answer is not one of this system"
	}
	t.where = where
	t.final = res.StatusCode >= 400 && res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests
	return nil, t
}

// node is the carrier's node in turn; skip moves on after a failure.
func (s *sender) node(c Carrier) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.URLs[s.turn[c.Name]%len(c.URLs)]
}

func (s *sender) skip(c Carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn[c.Name]++
}

// key is the batch's idempotency key: the file's content and the batch's
// place in it, so that every repetition carries the same one.
func key(id string, number int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", id, number))
	return "up-" + hex.EncodeToString(sum[:16])
}
