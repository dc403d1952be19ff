// Package links is the command that carries the links of a province brought up
// with `qianma up --links proxied`. The supervisor starts it; people do not.
package links

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"qianma/chaos/link"
)

// Command is `qianma links`.
type Command struct {
	Config string `required:"" type:"existingfile" help:"links.json, as up writes it."`
}

// Run carries the links until ctx ends. The control API closes first, so that no
// rule comes to links that are going.
func (c *Command) Run(ctx context.Context) error {
	cfg, err := link.Load(c.Config)
	if err != nil {
		return err
	}
	p, err := link.Open(cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := net.Listen("tcp", cfg.HTTP)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: p.Handler(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
