package code

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"qianma/cluster/problem"
	"qianma/display/token"
	"qianma/services/qianma/internal/province"
)

type verifyCommand struct {
	province.Flags
	Token []string `arg:"" help:"The text of the code, in quotation marks, because it may hold spaces: 'QM1:…'. - reads it from standard input."`
	Keys  string   `help:"File of published keys, as GET /v1/keys serves it; default: those in the data directory, or of the endpoints that are named." type:"path" placeholder:"FILE"`
}

// maxToken bounds what is read from standard input.
const maxToken = 4 << 10

// text is the token as it was given. A shell that split it at its spaces is
// forgiven, as far as single spaces go.
func (c *verifyCommand) text() (string, error) {
	if len(c.Token) == 1 && c.Token[0] == "-" {
		raw, err := io.ReadAll(io.LimitReader(os.Stdin, maxToken))
		return strings.Trim(string(raw), "\r\n\t"), err
	}
	return strings.Join(c.Token, " "), nil
}

// keys are the published ones. Only where endpoints are named in place of
// files does it take a network to get them.
func (c *verifyCommand) keys(ctx context.Context) (*token.KeySet, error) {
	path := c.Keys
	switch {
	case path != "":
	case c.Endpoints == "" && len(c.Endpoint) == 0:
		path = filepath.Join(c.Data, "secrets", "keys.json")
	default:
		return c.fetch(ctx)
	}
	set, err := token.LoadKeySet(path)
	if err != nil {
		return nil, fmt.Errorf("the published keys cannot be read; fetch them from /v1/keys of any display node: %w", err)
	}
	return set, nil
}

func (c *verifyCommand) fetch(ctx context.Context) (*token.KeySet, error) {
	p, err := c.Find(ctx)
	if err != nil {
		return nil, err
	}
	err = problem.New(problem.NotFound, "no display node is known", "name one with --endpoint, or a file with --keys")
	for _, base := range p.URLs("", "display") {
		var raw json.RawMessage
		if raw, err = do(ctx, http.MethodGet, base+"/v1/keys", nil); err == nil {
			return token.ParseKeySet(raw)
		}
	}
	return nil, err
}

// Run says what the token states, or why it is refused.
func (c *verifyCommand) Run(ctx context.Context) error {
	set, err := c.keys(ctx)
	if err != nil {
		return err
	}
	text, err := c.text()
	if err != nil {
		return err
	}
	claims, err := token.Verify(set, text, time.Now())
	var refused *token.Refusal
	if errors.As(err, &refused) {
		if len(c.Token) > 1 {
			return fmt.Errorf("refused (%s): %s; the shell cut it at its spaces: put it in quotation marks, or pipe it to -", refused.Reason, refused.Message)
		}
		return fmt.Errorf("refused (%s): %s", refused.Reason, refused.Message)
	}
	if err != nil {
		return err
	}
	at := func(unix int64) string { return time.Unix(unix, 0).Format(time.DateTime) }
	fmt.Printf("valid: %s, an %s code of %s, issued %s, counts until %s\n",
		strings.ToUpper(claims.Colour.String()), claims.Kind, claims.Issuer, at(claims.Issued), at(claims.Expires))
	if claims.Flags&token.Stale != 0 {
		fmt.Printf("the data behind it was stale: it reached %s\n", at(claims.AsOf))
	}
	return nil
}
