// Package daemon is what the mains of all daemons share: read the
// configuration a flag names, run until a signal or a fault, stop in order.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"qianma/cluster/footprint"
	"qianma/cluster/node"
	"qianma/cluster/web"
)

// Service is a daemon that has been opened. Wait returns nil when ctx ends,
// and otherwise why the process must stop; Close is safe after either.
type Service interface {
	Wait(ctx context.Context) error
	Close() error
}

// Exit codes of a daemon.
const (
	exitOK    = 0
	exitFault = 1 // it could not start, or had to stop: the log says why
	exitUsage = 2
)

// Main runs a daemon and never returns.
func Main[S Service](name, what string, open func(node.Config) (S, error)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, name, what, os.Args[1:], os.Stderr, func(c node.Config) (Service, error) { return open(c) })
	stop()
	os.Exit(code)
}

func run(ctx context.Context, name, what string, args []string, out io.Writer, open func(node.Config) (Service, error)) int {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(out)
	path := flags.String("config", "", "the process's configuration: a JSON `file`, as qianma up writes it")
	version := flags.Bool("version", false, "print the version and leave")
	flags.Usage = func() {
		fmt.Fprintf(out, "%s: %s\n\nusage: %s --config FILE\n\n", name, what, name)
		flags.PrintDefaults()
		fmt.Fprintf(out, "\nIt stops in order on SIGTERM. It leaves with status 1 when it cannot go on\n(its disk failed, its data is damaged) and says why on standard error.\n")
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case *version:
		fmt.Fprintln(out, node.Version)
		return exitOK
	case *path == "":
		flags.Usage()
		return exitUsage
	}
	cfg, err := node.Load(*path)
	if err != nil {
		fmt.Fprintf(out, "%s: %v\n", name, err)
		return exitUsage
	}
	if err := serve(ctx, cfg, open); err != nil {
		fmt.Fprintf(out, "%s: %v\n", cfg.Name, err)
		return exitFault
	}
	return exitOK
}

func serve(ctx context.Context, cfg node.Config, open func(node.Config) (Service, error)) error {
	footprint.Settle(footprint.Config{Procs: cfg.Procs, HeapMiB: max(cfg.MemoryMiB, 256) + web.CrowdMiB})
	s, err := open(cfg)
	if err != nil {
		return err
	}
	why := s.Wait(ctx)
	return errors.Join(why, s.Close())
}
