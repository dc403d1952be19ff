package loadtest

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"qianma/loadtest/profiles"
)

// harmless are the flags whose values are numbers, lengths of time or words of
// ours. All others may hold a secret, or a path that names a person; a flag that
// is added is one of those until somebody has thought about it.
var harmless = strings.Fields(`rate displays duration warm plan poisson people carriers split ack seed draw batch format
	booths positive mix zipf cold roam watch wave closed target connections peer-workers shared spread quantum gather
	timeout patience tries read-back settle max-p99 max-visible min-achieved max-failed max-cpu min-goodput output
	quiet verbose generators pprof probe confirm tolerance ceiling part parts start-at tube-base unmetered`)

// leftOut stands for a value that a report must not repeat.
const leftOut = "[left out]"

// shortFlag is one letter, with what follows it for -o; a number below 0 is a
// value.
var shortFlag = regexp.MustCompile(`^-([hqv]+|o(text|json)?|[0-9.]+)$`)

// asked is the command line as it was given, for a report, which others will
// read: what may be a secret is left out of it.
func asked(args []string) string {
	if len(args) == 0 {
		return ""
	}
	out := []string{filepath.Base(args[0])}
	before := "" // the flag whose value may come next
	for _, arg := range args[1:] {
		var text string
		text, before = askedOne(arg, before)
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// askedOne is one argument as it may be repeated, and the flag that it is when its
// value may still come.
func askedOne(arg, before string) (text, flag string) {
	name, value, has := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
	switch {
	case strings.HasPrefix(arg, "--") && !has:
		return quoted(arg), name
	case strings.HasPrefix(arg, "--") && !slices.Contains(harmless, name):
		return quoted("--" + name + "=" + leftOut), ""
	case strings.HasPrefix(arg, "--"):
		return "--" + name + "=" + quoted(value), ""
	case shortFlag.MatchString(arg):
		return arg, strings.TrimPrefix(arg, "-")
	case slices.Contains(harmless, before), before == "o", ours(arg):
		return quoted(arg), ""
	}
	return quoted(leftOut), ""
}

// ours says that an argument is a command or a profile.
func ours(arg string) bool {
	for _, p := range profiles.Names {
		if p.Name == arg {
			return true
		}
	}
	return arg == "load" || arg == "run" || arg == "find-max"
}

// plain is what a shell takes as it stands.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quoted is an argument as a shell reads it.
func quoted(arg string) string {
	if plain.MatchString(arg) {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}
