// Command qianma runs a province, looks at it, and feeds it: the one command
// that people type. Each verb is a package under internal/ with a Command; a
// new verb is one line in the list below.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"qianma/chaos"
	"qianma/cluster/problem"
	"qianma/loadtest"
	"qianma/services/qianma/internal/certificate"
	"qianma/services/qianma/internal/code"
	"qianma/services/qianma/internal/equal"
	"qianma/services/qianma/internal/links"
	"qianma/services/qianma/internal/member"
	"qianma/services/qianma/internal/ops"
	"qianma/services/qianma/internal/sampleday"
	"qianma/services/qianma/internal/status"
	"qianma/services/qianma/internal/term"
	"qianma/services/qianma/internal/up"
	"qianma/services/qianma/internal/upload"
	"qianma/services/qianma/internal/wire"
)

// version is set by the build.
var version = "development"

type commands struct {
	Up     up.Command     `cmd:"" group:"run" help:"Bring a province up on this machine and keep it up."`
	Down   ops.Down       `cmd:"" group:"run" help:"Stop a province in order."`
	Status status.Command `cmd:"" group:"run" help:"Show every process: role, leader, lag, breakers, watermarks."`

	Certificate certificate.Command `cmd:"" group:"run" help:"Issue a certificate to a server of your own: NATS, etcd."`

	Processes ops.Processes `cmd:"" group:"processes" help:"List what the supervisor keeps."`
	Start     ops.Start     `cmd:"" group:"processes" help:"Start what is down, now."`
	Stop      ops.Stop      `cmd:"" group:"processes" help:"Ask processes to leave; they stay down."`
	Restart   ops.Restart   `cmd:"" group:"processes" help:"Stop and start."`
	Kill      ops.Kill      `cmd:"" group:"processes" help:"End processes as a crash would (kill -9)."`
	Pause     ops.Pause     `cmd:"" group:"processes" help:"Freeze processes (SIGSTOP)."`
	Resume    ops.Resume    `cmd:"" group:"processes" help:"Thaw what was paused."`
	Hold      ops.Hold      `cmd:"" group:"processes" help:"Keep what dies from being started again."`
	Release   ops.Release   `cmd:"" group:"processes" help:"End holds; what died meanwhile is started."`

	Member member.Command `cmd:"" group:"processes" help:"Change who votes in the raft groups, while all runs."`

	SampleDay sampleday.Command `cmd:"" group:"work" help:"Invent a believable testing day as CSV files."`
	Upload    upload.Command    `cmd:"" group:"work" help:"Upload files without losing or repeating a row."`
	Code      code.Command      `cmd:"" group:"work" help:"Show a person's code, or verify one with no network."`
	Verify    equal.Command     `cmd:"" group:"work" help:"Compare what every replica of both carriers holds."`

	Load loadtest.Command `cmd:"" group:"prove" help:"Load a province, or a peer in its place, and audit what it acknowledged."`

	Drill chaos.Command `cmd:"" group:"prove" help:"Rehearse a loss on a running province, and say what held."`

	Links links.Command `cmd:"" hidden:"" help:"Carry the links of a province that are proxied."`
	Wire  wire.Command  `cmd:"" hidden:"" help:"Carry the line between carriers that are each in a network namespace."`

	Version kong.VersionFlag `help:"Print the version."`
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program; its result is the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A command that takes its time after the first signal meets the second one
	// as any program does.
	context.AfterFunc(ctx, stop)
	defer stop()
	out := term.New(stdout, stderr)
	left := -1
	parser, err := kong.New(new(commands),
		kong.Name("qianma"),
		kong.Description("A provincial health-code platform that stays up."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "run", Title: "Run a province"},
			{Key: "processes", Title: "Its processes"},
			{Key: "work", Title: "Work with it"},
			{Key: "prove", Title: "Prove it"},
		}),
		kong.Vars{"version": version},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { left = code }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(out),
	)
	if err != nil {
		return fail(stderr, out, err)
	}
	k, err := parser.Parse(args)
	if left >= 0 { // help or version was printed
		return left
	}
	if err != nil {
		fmt.Fprintf(stderr, "qianma: %v\n  what to do: qianma --help lists the commands, qianma COMMAND --help its flags\n", err)
		return usageOf(args)
	}
	return fail(stderr, out, k.Run())
}

// usage is the exit code of a command line that cannot be read.
const usage = 2

// usageOf is usage, but for load: there 2 is the word for a broken ledger.
func usageOf(args []string) int {
	if len(args) > 0 && args[0] == "load" {
		return loadtest.Usage
	}
	return usage
}

// fail prints an error as people read it and returns the exit code: the error's
// own if it has one, else 1.
func fail(w io.Writer, out *term.Output, err error) int {
	if err == nil {
		return 0
	}
	code := 1
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		code = coded.ExitCode()
	}
	var p *problem.Problem
	switch {
	case errors.As(err, &p):
		fmt.Fprintf(w, "%s %s\n", out.Paint(term.Bad, "qianma:"), p.Message)
		if p.Fix != "" {
			fmt.Fprintf(w, "  what to do: %s\n", p.Fix)
		}
	default:
		fmt.Fprintf(w, "%s %v\n", out.Paint(term.Bad, "qianma:"), err)
	}
	return code
}
