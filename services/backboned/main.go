// Command backboned is one backbone of a carrier: NATS JetStream and etcd in
// one small process, for carriers that do not run clusters of their own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"qianma/cluster/backbone"
	"qianma/cluster/footprint"
)

var version = "dev" // stamped by the build

func main() {
	backbone.Version = version
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes, as of the other daemons.
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
)

const usage = `backboned: NATS JetStream and etcd for one carrier, in one process

usage: backboned --config FILE

FILE is JSON, as qianma up writes it:

  name, carrier   this process in the topology: "unicom-backbone-1", "unicom"
  topology        file that lists every process of the province; this one's
                  listeners (nats, leaf, cluster, etcd, etcd_peer), the other
                  backbones of the carrier (1 or 3 in all) and the leaf
                  listeners of the other carrier are read from it
  dir             data directory; nothing in it is missed when it is lost
  http            host:port of /livez, /readyz, /metrics and /v1/status
  ca, cert, key   PEM files for mutual TLS on every other port
  insecure        true: plain text instead, never outside a test
  via             addresses to use for the leaf links instead of the topology's
  store_mib       most MiB of each JetStream stream (512)
  memory_mib      soft limit of the heap in MiB (128)
  procs           processors used at once (all)
  log_level       debug, info, warn or error (info)

On SIGTERM it stops in this order: the HTTP door, what keeps the parts alive,
NATS, etcd. A carrier that runs its own NATS and etcd needs no backboned.

`

func run(ctx context.Context, args []string, out io.Writer) int {
	flags := flag.NewFlagSet("backboned", flag.ContinueOnError)
	flags.SetOutput(out)
	path := flags.String("config", "", "the process's configuration: a JSON `file`")
	which := flags.Bool("version", false, "print the version and leave")
	flags.Usage = func() {
		fmt.Fprint(out, usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case *which:
		fmt.Fprintln(out, version)
		return exitOK
	case *path == "":
		flags.Usage()
		return exitUsage
	}
	cfg, err := backbone.Load(*path)
	if err != nil {
		fmt.Fprintf(out, "backboned: %v\n", err)
		return exitUsage
	}
	if err := serve(ctx, cfg, out); err != nil {
		fmt.Fprintf(out, "%s: %v\n", cfg.Name, err)
		return exitFault
	}
	return exitOK
}

func serve(ctx context.Context, cfg backbone.Config, out io.Writer) error {
	level := slog.LevelInfo
	if cfg.LogLevel != "" {
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return fmt.Errorf("log_level: %w", err)
		}
	}
	cfg.Logger = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})).With("process", cfg.Name)
	heap := cfg.MemoryMiB
	if heap == 0 {
		heap = 128
	}
	footprint.Settle(footprint.Config{Procs: cfg.Procs, HeapMiB: heap})
	b, err := backbone.Open(cfg)
	if err != nil {
		return err
	}
	cfg.Logger.Info("backbone is up")
	<-ctx.Done()
	cfg.Logger.Info("backbone is stopping")
	return b.Close()
}
