package api

import (
	"errors"
	"net/http"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/web"
	"qianma/display/colour"
	"qianma/display/token"
)

// verifyRequest is POST /v1/verify.
type verifyRequest struct {
	Token string `json:"token"`
	// Person asks as well whether the token belongs to a person known by
	// other means, such as the document in the verifier's hand.
	Person string `json:"person"`
}

// verdict is what a gate is told. Claims are shown where they could be read,
// even of a token that is refused.
type verdict struct {
	Valid   bool    `json:"valid"`
	Reason  string  `json:"reason,omitempty"`
	Message string  `json:"message,omitempty"`
	Belongs *bool   `json:"belongs,omitempty"`
	Claims  *claims `json:"claims,omitempty"`
}

type claims struct {
	Kind            string  `json:"kind"`
	Issuer          string  `json:"issuer"`
	Colour          string  `json:"colour"`
	Level           string  `json:"level"`
	Stale           bool    `json:"stale"`
	UnderManagement bool    `json:"under_management"`
	IssuedAt        string  `json:"issued_at"`
	ExpiresAt       string  `json:"expires_at"`
	AsOf            *string `json:"as_of"`
}

// verify is POST /v1/verify. It keeps nothing of what it is shown.
func (a *API) verify(w http.ResponseWriter, r *http.Request) error {
	var in verifyRequest
	if err := web.ReadJSON(r, &in); err != nil {
		return err
	}
	now := a.Clock.Now()
	c, err := token.Verify(a.Keys.now(now.Unix()).set, in.Token, now)
	out := verdict{Valid: err == nil}
	var refusal *token.Refusal
	if errors.As(err, &refusal) {
		out.Reason, out.Message = string(refusal.Reason), "the token is refused: "+refusal.Message
	}
	// A forged token says whatever its forger liked: that is not repeated.
	if err == nil || refusal.Reason == token.Expired || refusal.Reason == token.NotYetValid {
		out.Claims = claimsOf(&c)
	}
	if in.Person != "" {
		p, err := identity.ParsePerson(in.Person)
		if err != nil {
			return err
		}
		belongs := out.Claims != nil && c.Belongs(p)
		out.Belongs = &belongs
	}
	return web.WriteJSON(w, http.StatusOK, &out)
}

func claimsOf(c *token.Claims) *claims {
	return &claims{
		Kind: c.Kind.String(), Issuer: c.Issuer, Colour: c.Colour.String(), Level: colour.Level(c.Level).String(),
		Stale: c.Flags&token.Stale != 0, UnderManagement: c.Flags&token.Managed != 0,
		IssuedAt: moment(1000 * c.Issued), ExpiresAt: moment(1000 * c.Expires), AsOf: optional(1000 * c.AsOf),
	}
}

// moment is a time as answers write it.
func moment(ms int64) string { return time.UnixMilli(ms).UTC().Format(timeForm) }

// showKeys is GET /v1/keys: what a gate needs to check tokens with no network.
func (a *API) showKeys(w http.ResponseWriter, _ *http.Request) error {
	web.WriteRaw(w, http.StatusOK, a.Keys.now(a.Clock.Now().Unix()).published)
	return nil
}
