// Package wire is the command that carries the line between the carriers of a
// province brought up with `qianma up --links namespaces`, where the kernel has
// no netem. The supervisor starts it; people do not.
package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"qianma/chaos/wire"
)

// Command is `qianma wire`.
type Command struct {
	Config string `required:"" type:"existingfile" help:"wire.json, as up writes it."`
}

// Run carries the line until ctx ends. The control API closes first, so that no
// rule comes to a line that is going.
func (c *Command) Run(ctx context.Context) error {
	cfg, err := wire.Load(c.Config)
	if err != nil {
		return err
	}
	a, b, err := cfg.Devices(ctx)
	if err != nil {
		return err
	}
	line := wire.Carry(cfg, a, b)
	defer line.Close()
	l, err := net.Listen("tcp", cfg.HTTP)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: line.Handler(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
