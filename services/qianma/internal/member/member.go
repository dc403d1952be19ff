// Package member is the command that changes, while everything runs, who votes
// in the raft groups of a province.
package member

import (
	"context"
	"time"

	"qianma/chaos/world"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/term"
)

// Command is `qianma member`.
type Command struct {
	Add    Add    `cmd:"" help:"Give a process a vote in the groups of its cluster, once it has been filled."`
	Remove Remove `cmd:"" help:"Take a process's vote in the groups of its cluster away; it goes on running."`
}

// Who is the process it is about.
type Who struct {
	province.Flags
	Name string        `arg:"" help:"Name of the process, such as unicom-nucleic-1."`
	Wait time.Duration `help:"Longest wait for the change to be committed." default:"2m"`
}

// Add is `qianma member add`.
type Add struct{ Who }

// Run adds it.
func (c *Add) Run(ctx context.Context, out *term.Output) error { return c.change(ctx, out, true) }

// Remove is `qianma member remove`.
type Remove struct{ Who }

// Run removes it.
func (c *Remove) Run(ctx context.Context, out *term.Output) error { return c.change(ctx, out, false) }

func (c *Who) change(ctx context.Context, out *term.Output, add bool) error {
	w, err := world.Open(c.Data)
	if err != nil {
		return err
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	if err := w.ChangeMember(ctx, c.Name, add); err != nil {
		return err
	}
	if add {
		out.Println(c.Name + " votes")
	} else {
		out.Println(c.Name + " has no vote any more")
	}
	return nil
}
