package code

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qianma/cluster/problem"
	"qianma/display/token"
	"qianma/services/qianma/internal/province"
)

const person = "p_bgoefkg2s3gd5xzqqxl7am3ux4"

// display answers as a node that knows one document, under both names.
func display(t *testing.T, keys []byte) string {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/persons/resolve", func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(raw), `"number":"520103199003074514"`) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, `{"code":"invalid_document","message":"the number cannot be","fix":"check it"}`)
			return
		}
		_, _ = io.WriteString(w, `{"person":"`+person+`","doubtful":false}`)
	})
	mux.HandleFunc("GET /v1/code", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"person":"`+r.FormValue("person")+`","colour":"green","level":"green","word":"绿码"}`)
	})
	mux.HandleFunc("GET /v1/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func at(urls ...string) province.Flags {
	var f province.Flags
	for i, u := range urls {
		f.Endpoint = append(f.Endpoint, province.Carriers[i]+"/display="+u)
	}
	return f
}

// output is what do prints.
func output(t *testing.T, do func() error) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	old := os.Stdout
	os.Stdout = w
	said := make(chan string)
	go func() { raw, _ := io.ReadAll(r); said <- string(raw) }()
	err = do()
	os.Stdout = old
	w.Close()
	return <-said, err
}

// TestShowTakesEitherName: a pseudonym and a document's number, as they come.
func TestShowTakesEitherName(t *testing.T) {
	url := display(t, nil)
	for _, c := range []showCommand{{Who: person}, {Who: "520103199003074514"}, {Person: person}, {Number: "520103199003074514"}} {
		c.Flags = at(url, url)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		out, err := output(t, func() error { return c.Run(t.Context()) })
		if err != nil || !strings.Contains(out, "unicom: GREEN  绿码 (level green)  "+person) || !strings.Contains(out, "mobile: GREEN") {
			t.Errorf("%+v: %q, %v", c, out, err)
		}
	}
	for _, c := range []showCommand{{}, {Who: person, Number: "520103199003074514"}} {
		if c.Validate() == nil {
			t.Errorf("%+v names nobody, or two", c)
		}
	}
}

// TestShowSaysWhoIsAtFault: a document that cannot be is not a node that does
// not answer.
func TestShowSaysWhoIsAtFault(t *testing.T) {
	url := display(t, nil)
	wrong := showCommand{Flags: at(url, url), Who: "1234"}
	if _, err := output(t, func() error { return wrong.Run(t.Context()) }); problem.From(err).Code != "invalid_document" {
		t.Errorf("a wrong number: %v", err)
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	nobody := showCommand{Flags: at(gone.URL, gone.URL), Who: person}
	if _, err := output(t, func() error { return nobody.Run(t.Context()) }); problem.From(err).Code != problem.Unavailable {
		t.Errorf("nobody answers: %v", err)
	}
	half := showCommand{Flags: at(gone.URL, url), Who: person}
	if out, err := output(t, func() error { return half.Run(t.Context()) }); err != nil || !strings.Contains(out, "unicom: unavailable") || !strings.Contains(out, "mobile: GREEN") {
		t.Errorf("one carrier answers: %q, %v", out, err)
	}
}

// TestVerify: keys from a file or from a node, the token as a shell may cut it.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	if err := token.GenerateKey(dir, "unicom", now.Add(-time.Hour), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	set := filepath.Join(dir, "keys.json")
	raw, err := os.ReadFile(set)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := token.LoadSigner(filepath.Join(dir, token.PrivateFile("unicom")))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := token.Sign(signer, token.Claims{Kind: token.Online, Issuer: "unicom", Colour: token.Green, Level: 1, Issued: now.Unix(), Expires: now.Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	url := display(t, raw)
	for name, c := range map[string]verifyCommand{
		"a file of keys": {Keys: set, Token: []string{signed}},
		"keys of a node": {Flags: at(url), Token: []string{signed}},
		"cut at spaces":  {Keys: set, Token: strings.Split(signed, " ")},
	} {
		if out, err := output(t, func() error { return c.Run(t.Context()) }); err != nil || !strings.HasPrefix(out, "valid: GREEN, an online code of unicom") {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	cut := verifyCommand{Keys: set, Token: []string{signed, "MORE"}}
	if err := cut.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "quotation marks") {
		t.Errorf("a token that the shell broke: %v", err)
	}
	none := verifyCommand{Flags: province.Flags{Data: t.TempDir()}, Token: []string{signed}}
	if err := none.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "/v1/keys") {
		t.Errorf("no keys: %v", err)
	}
}
