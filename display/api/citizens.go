package api

import (
	"net/http"
	"strings"
	"time"

	"qianma/cluster/identity"
	"qianma/cluster/problem"
	"qianma/cluster/web"
	"qianma/display/displaypb"
	"qianma/display/rules"
	"qianma/display/vault"
)

// resolve is POST /v1/persons/resolve: the pseudonym of a document.
func (a *API) resolve(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Document *identity.Document `json:"document"`
	}
	if err := web.ReadJSON(r, &in); err != nil {
		return err
	}
	p, flags, bad := a.known(&who{Document: in.Document})
	if bad != nil {
		return bad
	}
	return web.WriteJSON(w, http.StatusOK, struct {
		Person   string `json:"person"`
		Doubtful bool   `json:"doubtful"`
	}{p.String(), flags&identity.CheckDigit != 0})
}

// application is POST /v1/citizens: a person applies for a code.
type application struct {
	Document *identity.Document `json:"document"`
	Name     string             `json:"name"`
	Phone    string             `json:"phone"`
	Division string             `json:"division"`
	Guardian *who               `json:"guardian"`
	At       time.Time          `json:"at"`
}

// Bounds of what is sealed.
const (
	maxName  = 150 // bytes: 50 characters, as certificates allow
	maxPhone = 32
)

func (a *API) apply(w http.ResponseWriter, r *http.Request) error {
	var in application
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	return a.submitOne(w, r, o, a.application(&in))
}

func (a *API) application(in *application) row {
	person, flags, bad := a.known(&who{Document: in.Document})
	if bad != nil {
		return refused(bad)
	}
	name, phone := strings.TrimSpace(in.Name), strings.TrimSpace(in.Phone)
	if name == "" || len(name) > maxName || len(phone) > maxPhone {
		return refused(explain(codeNameOrPhone))
	}
	f := &displaypb.CitizenApplied{
		Person: displaypb.Person(person), At: or(in.At, a.now()), DocumentKind: string(in.Document.Kind), Division: in.Division,
		Doubtful: flags&identity.CheckDigit != 0, KeyID: a.Vault.KeyID(),
	}
	if in.Guardian != nil {
		guardian, _, bad := a.known(in.Guardian)
		if bad != nil {
			return refused(bad)
		}
		f.Guardian = displaypb.Person(guardian)
	}
	var err error
	if f.Sealed, err = a.Vault.Seal(person, vault.Citizen{Name: name, Number: in.Document.Number, Phone: phone}); err != nil {
		return refused(problem.From(err))
	}
	out := a.rowOf(f)
	out.place = "/v1/citizens/" + person.String()
	return out
}

// citizen is what may be shown of one: enough for a gate to compare with the
// person before it, not enough to learn who that is.
type citizen struct {
	Person       string `json:"person"`
	Name         string `json:"name"` // first character, then stars
	DocumentKind string `json:"document_kind"`
	Doubtful     bool   `json:"doubtful"`
	Division     string `json:"division"`
	Guardian     string `json:"guardian,omitempty"`
	AppliedAt    string `json:"applied_at"`
	Stale        bool   `json:"stale"`
}

// showCitizen is GET /v1/citizens/{person}.
func (a *API) showCitizen(w http.ResponseWriter, r *http.Request) error {
	person, err := identity.ParsePerson(r.PathValue("person"))
	if err != nil {
		return err
	}
	v, stale, err := a.view(r.Context(), a.shardOf(person))
	if err != nil {
		return err
	}
	f, _, ok := rules.Citizen(v, displaypb.Person(person))
	var s rules.State
	s.Read(v, displaypb.Person(person))
	if err := v.Close(); err != nil {
		return err
	}
	if !ok {
		return problem.New(problem.NotFound, "this person has not applied for a code here", "POST /v1/citizens applies for one; the code is shown without it too")
	}
	out := citizen{Person: person.String(), DocumentKind: f.DocumentKind, Doubtful: f.Doubtful, Division: f.Division, AppliedAt: moment(f.At), Stale: stale}
	if sealed, err := a.Vault.Open(person, f.KeyID, f.Sealed); err == nil {
		out.Name = sealed.Masked()
	}
	if s.Guardian != (displaypb.Person{}) {
		out.Guardian = identity.Person(s.Guardian).String()
	}
	return web.WriteJSON(w, http.StatusOK, &out)
}

// bind is POST /v1/guardians: a guardian may show the child's code.
func (a *API) bind(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		who
		Guardian who       `json:"guardian"`
		Operator string    `json:"operator"`
		At       time.Time `json:"at"`
	}
	o, err := read(r, &in)
	if err != nil {
		return err
	}
	child, _, bad := a.known(&in.who)
	if bad != nil {
		return bad
	}
	guardian, _, bad := a.known(&in.Guardian)
	if bad != nil {
		return bad
	}
	return a.submitOne(w, r, o, a.rowOf(&displaypb.GuardianBound{
		Person: displaypb.Person(child), Guardian: displaypb.Person(guardian), At: or(in.At, a.now()), Operator: in.Operator,
	}))
}
