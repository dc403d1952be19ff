// Package code is `qianma code`: what a person's phone would show, asked at
// every carrier, and the check a gate makes, with no network.
package code

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/services/qianma/internal/province"
)

// Command is `qianma code`.
type Command struct {
	Show   showCommand   `cmd:"" help:"Show a person's code as each carrier sees it."`
	Verify verifyCommand `cmd:"" help:"Check a token with no network, from the published keys."`
}

type showCommand struct {
	province.Flags
	Who     string `arg:"" optional:"" help:"A person's pseudonym (p_…), or the number of a document."`
	Person  string `help:"The pseudonym, in place of WHO." xor:"who" placeholder:"P"`
	Number  string `help:"The document's number, in place of WHO." xor:"who" placeholder:"N"`
	Kind    string `help:"Kind of the document: ${enum}." enum:"resident,hk_macau_permit,taiwan_permit,residence_permit,foreign_permanent,passport,birth_certificate,guardian_child" default:"resident"`
	Country string `help:"Three letters of the country that issued a passport." placeholder:"ABC"`
	Carrier string `help:"Ask only this carrier." placeholder:"NAME"`
	Output  string `short:"o" help:"text or json." enum:"text,json" default:"text"`
}

// Validate wants to know whose code, once.
func (c *showCommand) Validate() error {
	given := 0
	for _, s := range []string{c.Who, c.Person, c.Number} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return errors.New("say whose code: a pseudonym (p_…) or the number of a document")
	}
	return nil
}

// who is either a pseudonym or a document's number, which never looks like one.
func (c *showCommand) who() (person, number string) {
	if _, err := identity.ParsePerson(c.Who); err == nil {
		return c.Who, ""
	}
	if c.Who != "" {
		return "", c.Who
	}
	return c.Person, c.Number
}

// shown is the part of GET /v1/code that people compare.
type shown struct {
	Person  string `json:"person"`
	Colour  string `json:"colour"`
	Level   string `json:"level"`
	Word    string `json:"word"`
	Reasons []struct {
		Code string `json:"code"`
		Text string `json:"text"`
	} `json:"reasons"`
	Nucleic *struct {
		Status    string `json:"status"`
		SampledAt string `json:"sampled_at"`
		Hours     *int   `json:"hours_since_sampling"`
	} `json:"nucleic"`
	Doses *struct {
		Count int `json:"count"`
	} `json:"doses"`
	Data struct {
		Source   string `json:"source"`
		Stale    bool   `json:"stale"`
		Carriers map[string]struct {
			Age *float64 `json:"age_s"`
		} `json:"carriers"`
	} `json:"data"`
	Token string `json:"token"`
}

// Run asks one display node of each carrier, the next when one does not answer.
func (c *showCommand) Run(ctx context.Context) error {
	p, err := c.Find(ctx)
	if err != nil {
		return err
	}
	answers := map[string]json.RawMessage{}
	failed := map[string]string{}
	var refused error
	for _, carrier := range p.Names() {
		if c.Carrier != "" && c.Carrier != carrier {
			continue
		}
		raw, err := c.ask(ctx, p.URLs(carrier, "display"))
		if err != nil {
			failed[carrier] = err.Error()
			if problem.From(err).Side() == problem.Client {
				refused = err
			}
			continue
		}
		answers[carrier] = raw
	}
	if c.Output == "json" {
		return printJSON(answers, failed)
	}
	if refused != nil && len(answers) == 0 {
		return refused // the question is at fault: no carrier answers it
	}
	for _, carrier := range p.Names() {
		if raw, ok := answers[carrier]; ok {
			err = errors.Join(err, printCode(carrier, raw))
		} else if why := failed[carrier]; why != "" {
			fmt.Printf("%s: %s\n", carrier, why)
		}
	}
	if len(answers) == 0 {
		return errors.Join(err, problem.New(problem.Unavailable, "no display node answered", "look for what is down with: qianma status"))
	}
	return err
}

// ask resolves the person and reads the code at the first node that answers.
func (c *showCommand) ask(ctx context.Context, urls []string) (json.RawMessage, error) {
	err := error(problem.New(problem.NotFound, "no display node is known", "name another carrier, or look at: qianma status"))
	for _, base := range urls {
		var raw json.RawMessage
		if raw, err = c.askOne(ctx, base); err == nil {
			return raw, nil
		}
		if p := problem.From(err); p.Side() == problem.Client {
			return nil, err
		}
	}
	return nil, err
}

func (c *showCommand) askOne(ctx context.Context, base string) (json.RawMessage, error) {
	person, number := c.who()
	if person == "" {
		body, err := json.Marshal(map[string]any{"document": map[string]string{"kind": c.Kind, "number": number, "country": c.Country}})
		if err != nil {
			return nil, err
		}
		raw, err := do(ctx, http.MethodPost, base+"/v1/persons/resolve", body)
		if err != nil {
			return nil, err
		}
		var who struct {
			Person string `json:"person"`
		}
		if err := json.Unmarshal(raw, &who); err != nil {
			return nil, err
		}
		person = who.Person
	}
	return do(ctx, http.MethodGet, base+"/v1/code?"+url.Values{"person": {person}}.Encode(), nil)
}

// askLimit bounds one request, and answerMax its answer.
const (
	askLimit  = 5 * time.Second
	answerMax = 1 << 20
)

func do(ctx context.Context, method, target string, body []byte) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, problem.New(problem.Unavailable, "the node does not answer", "try another node")
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return nil, problem.New(problem.Unavailable, "the answer broke off", "try again")
	}
	if res.StatusCode == http.StatusOK {
		return raw, nil
	}
	p := &problem.Problem{Code: problem.Internal}
	var told struct {
		Code    problem.Code `json:"code"`
		Message string       `json:"message"`
		Fix     string       `json:"fix"`
	}
	if json.Unmarshal(raw, &told) == nil && told.Code != "" {
		p.Code, p.Message, p.Fix = told.Code, told.Message, told.Fix
	}
	return nil, p
}

func printJSON(answers map[string]json.RawMessage, failed map[string]string) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{"carriers": answers, "failed": failed})
}

func printCode(carrier string, raw json.RawMessage) error {
	var s shown
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("%s: the answer cannot be read", carrier)
	}
	fmt.Printf("%s: %s  %s (level %s)  %s\n", carrier, strings.ToUpper(s.Colour), s.Word, s.Level, s.Person)
	for _, r := range s.Reasons {
		fmt.Printf("  because   %s (%s)\n", r.Text, r.Code)
	}
	if s.Nucleic != nil {
		fmt.Printf("  nucleic   %s", s.Nucleic.Status)
		if s.Nucleic.Hours != nil {
			fmt.Printf(", sampled %s, %d h ago", s.Nucleic.SampledAt, *s.Nucleic.Hours)
		}
		fmt.Println()
	}
	if s.Doses != nil {
		fmt.Printf("  doses     %d\n", s.Doses.Count)
	}
	fmt.Printf("  data      from %s%s", strings.ReplaceAll(s.Data.Source, "_", " "), map[bool]string{true: ", STALE"}[s.Data.Stale])
	for _, name := range province.Carriers {
		if d, ok := s.Data.Carriers[name]; ok && d.Age != nil {
			fmt.Printf(", %s %.1f s old", name, *d.Age)
		}
	}
	fmt.Printf("\n  token     %s\n", s.Token)
	return nil
}
