package loadtest

import (
	"errors"
	"io"

	"qianma/loadtest/internal/crash"
	"qianma/loadtest/province"
	"qianma/loadtest/report"
)

// The exit codes of `qianma load` beside the four verdicts of a run (package
// report): as sysexits.h has them, so that no mistake, no missing province and
// no fault of the generator can be taken for a verdict on the system.
const (
	Usage       = 64
	CouldNotRun = crash.Code
)

const exitHelp = `Exit codes: 0 objectives held; 1 an objective was missed; 2 the ledger is broken (an acknowledged test
was lost, wrong or repeated, or facts were committed that nobody sent); 3 the run is invalid (the generator could
not keep up, or the run was interrupted); 64 the command line cannot be read; 70 the run could not be made, what came of it
could not be written down, or the generator itself failed. find-max: 2 as soon as any try broke the ledger; 1 when no rate held;
3 when none did because of the generator, or the search was interrupted. compare: 64 for results that cannot be compared.`

// Help is what --help says beside the flags.
func (*Command) Help() string { return exitHelp }

// Help is what --help says beside the flags.
func (*RunCommand) Help() string { return profilesHelp() + "\n\n" + exitHelp }

// Help is what --help says beside the flags.
func (*FindMaxCommand) Help() string { return profilesHelp() + "\n\n" + exitHelp }

// Outcome is nil for a run that held its objectives, else an error that
// carries the exit code.
func Outcome(res *report.Result) error {
	if res.Code() == report.Held {
		return nil
	}
	return verdict{res.Code(), res.Profile + ": " + res.Why()}
}

type verdict struct {
	code int
	text string
}

func (v verdict) Error() string { return v.text }

// ExitCode is what the process ends with.
func (v verdict) ExitCode() int { return v.code }

// misuse is a fault of the command line that could not be seen before more was
// known than its words.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

// ExitCode is what the process ends with.
func (misuse) ExitCode() int { return Usage }

// failure is why there is no verdict.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// ExitCode is what the process ends with.
func (failure) ExitCode() int { return CouldNotRun }

// ending is deferred by every command: what ends it is a verdict, or else a
// failure. A panic is one too: left alone, Go ends with 2, which is the code of
// a broken ledger.
func ending(w io.Writer, err *error) {
	if why := recover(); why != nil {
		*err = failure{crash.Say(w, why)}
		return
	}
	var coded interface{ ExitCode() int }
	var stranger *province.NoCarrier
	switch {
	case *err == nil || errors.As(*err, &coded):
	case errors.As(*err, &stranger):
		*err = misuse{*err}
	default:
		*err = failure{*err}
	}
}
