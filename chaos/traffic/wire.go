package traffic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"qianma/chaos/model"
	"qianma/cluster/identity"
	"qianma/cluster/topology"
)

// request is what one operation sends, to any node of a subsystem.
type request struct {
	subsystem, method, path string
	body                    []byte
}

// errTry is a try that did not succeed; sure when nothing can have been done.
type errTry struct {
	code string
	sure bool
	last bool // trying again is no use
}

func (e *errTry) Error() string { return e.code }

// do makes an operation: it tries node after node with the same key until one
// answers, and remembers the whole as one operation, from the first byte to
// the answer. read, when given, reads the answer.
func (c *probe) do(op *model.Op, r request, read func([]byte) error) {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	op.Start = c.h.Now()
	op.Outcome = model.Refused
	for {
		node := c.node(op.Carrier, r.subsystem)
		raw, err := c.ask(ctx, node, r.method, r.path, r.body, op.Key)
		op.Node = node.Name
		if err == nil {
			err = c.take(op, r, raw, read)
		}
		if c.settle(op, err) || ctx.Err() != nil {
			break
		}
		c.rest(pace / 3)
	}
	op.End = c.h.Now()
	if op.Kind != model.Restrict {
		c.h.Add(*op)
	}
}

// take reads an answer into the operation.
func (c *probe) take(op *model.Op, r request, raw []byte, read func([]byte) error) error {
	if read != nil {
		return read(raw)
	}
	var a struct {
		Receipt model.Receipt `json:"receipt"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	op.Receipt = &a.Receipt
	return nil
}

// settle notes the end of one try; true when the operation is over.
func (c *probe) settle(op *model.Op, err error) bool {
	if err == nil {
		op.Outcome, op.Code = model.OK, ""
		return true
	}
	var e *errTry
	if !errors.As(err, &e) {
		e = &errTry{code: "unreadable"}
	}
	op.Code = e.code
	if !e.sure {
		op.Outcome = model.Unknown // whatever later tries say: this one may have been done
	}
	return e.last
}

const answerMax = 1 << 20

// ask makes one request of one node.
func (p *Probes) ask(ctx context.Context, node topology.Process, method, path string, body []byte, key string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+node.HTTP+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := p.http.Do(req)
	if err != nil {
		var op *net.OpError
		return nil, &errTry{code: "connection", sure: errors.As(err, &op) && op.Op == "dial"}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return nil, &errTry{code: "connection"}
	}
	if res.StatusCode != http.StatusOK {
		return nil, refusal(res.StatusCode, raw)
	}
	return raw, nil
}

// refusal is what an answer other than 200 means.
func refusal(status int, raw []byte) error {
	var f struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(raw, &f) != nil || f.Code == "" {
		f.Code = fmt.Sprintf("http_%d", status)
	}
	switch {
	case f.Code == "unknown_outcome":
		return &errTry{code: f.Code}
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return &errTry{code: f.Code, sure: true}
	case status >= 500:
		return &errTry{code: f.Code}
	case status == http.StatusNotFound:
		return &errTry{code: f.Code, sure: true} // it may be on its way
	}
	return &errTry{code: f.Code, sure: true, last: true}
}

func registration(tube, pool string, person identity.Person, at time.Time) []byte {
	return fmt.Appendf(nil, `{"tube":%q,"pool":%q,"site":"520100-drill","person":%q,"sampled_at":%q,"channel":"manual","operator":"qianma-drill"}`,
		tube, pool, person, at.UTC().Format("2006-01-02T15:04:05.000Z"))
}

func result(tube string, at time.Time) []byte {
	t := at.UTC().Format("2006-01-02T15:04:05.000Z")
	return fmt.Appendf(nil, `{"tube":%q,"lab":"lab-drill","revision":1,"outcome":"negative","tested_at":%q,"reported_at":%q,"method":"pcr","operator":"qianma-drill"}`, tube, t, t)
}

func restriction(person identity.Person) []byte {
	return fmt.Appendf(nil, `{"person":%q,"level":"red","reason":"confirmed","evidence":"a drill","operator":"qianma-drill","approver":"qianma-drill-2","source":"520100","until":%q}`,
		person, time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339))
}

func codePath(person identity.Person, seen string) string {
	path := "/v1/code?person=" + person.String()
	if seen != "" {
		path += "&seen=" + url.QueryEscape(seen)
	}
	return path
}

// members reads which of a tube's members an answer shows.
func (c *probe) members(op *model.Op, raw []byte) error {
	var a struct {
		Stale   bool `json:"stale"`
		Members []struct {
			Person string `json:"person"`
			Live   bool   `json:"live"`
		} `json:"members"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	if a.Stale && op.Final {
		return &errTry{code: "stale", sure: true}
	}
	whose := map[string]int{}
	for n := range tubeSize {
		whose[c.memberOf(op.Tube, n).String()] = n
	}
	op.Stale, op.Members, op.Strange = a.Stale, 0, 0
	for _, m := range a.Members {
		n, ok := whose[m.Person]
		switch {
		case !ok:
			op.Strange++
		case m.Live:
			op.Members |= 1 << n
		}
	}
	return nil
}

// view reads a code.
func view(raw []byte) (*model.View, string, error) {
	var a struct {
		Colour  string `json:"colour"`
		Nucleic *struct {
			Status    string     `json:"status"`
			SampledAt *time.Time `json:"sampled_at"`
		} `json:"nucleic"`
		Data struct {
			Carriers map[string]struct {
				AsOf *time.Time `json:"as_of"`
			} `json:"carriers"`
			Source string `json:"source"`
			Stale  bool   `json:"stale"`
			Behind bool   `json:"older_than_seen"`
		} `json:"data"`
		Seen string `json:"seen"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, "", err
	}
	v := &model.View{Colour: a.Colour, Stale: a.Data.Stale, Behind: a.Data.Behind, Source: a.Data.Source, AsOf: map[string]int64{}}
	if n := a.Nucleic; n != nil {
		v.Status = n.Status
		if n.SampledAt != nil {
			v.Sampled = n.SampledAt.UnixMilli()
		}
	}
	for carrier, c := range a.Data.Carriers {
		if c.AsOf != nil {
			v.AsOf[carrier] = c.AsOf.UnixMilli()
		}
	}
	return v, a.Seen, nil
}
