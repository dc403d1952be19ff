// Package certificate is `qianma certificate`: a server that is not ours, such
// as a NATS or etcd cluster, takes part in the province's mutual TLS with a
// certificate of the province's own authority.
package certificate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"qianma/cluster/pki"
	"qianma/cluster/problem"
	"qianma/services/qianma/internal/province"
)

// Command is `qianma certificate`.
type Command struct {
	province.Flags
	Name string   `arg:"" help:"What the certificate is for, such as nats-1."`
	Host []string `help:"Host name or address it is reached under. Repeatable." default:"127.0.0.1" placeholder:"HOST"`
	Out  string   `help:"Directory to write to." type:"path" required:"" placeholder:"DIR"`
}

// Run issues one. The authority is made where there is none yet, because such
// servers have to run before the province that uses them.
func (c *Command) Run() error {
	if filepath.Base(c.Name) != c.Name {
		return problem.New(problem.Invalid, "a certificate cannot be called "+c.Name, "give it a plain name, such as nats-1")
	}
	dir := province.Layout(c.Data).CA()
	authority, err := pki.LoadAuthority(dir)
	if errors.Is(err, os.ErrNotExist) {
		authority, err = pki.NewAuthority(dir)
	}
	if err != nil {
		return err
	}
	f, err := authority.Issue(c.Out, c.Name, c.Host...)
	if err != nil {
		return err
	}
	fmt.Printf("certificate  %s\nkey          %s\nauthority    %s\n", f.Cert, f.Key, f.CA)
	return nil
}
