package loadtest

import (
	"fmt"
	"slices"
	"strings"

	"qianma/loadtest/profiles"
	"qianma/loadtest/report"
)

// profilesHelp says of each profile what it does, at which rate, and what must
// hold, unless flags say otherwise. Lines that begin with blanks are left as they
// are by kong.
func profilesHelp() string {
	var b strings.Builder
	b.WriteString("The profiles, each with its own rate and its own objectives:\n\n")
	for _, p := range profiles.Names {
		rate := fmt.Sprintf("%.0f %s a second", usual[p.Name], mainStream(p.Name))
		if p.Name == "preload" {
			rate = "as many tests as are taken"
		}
		fmt.Fprintf(&b, "    %-9s %s\n    %-9s %s; held: %s\n", p.Name, p.What, "", rate, report.Usual(p.Name).Text(streams(p.Name)))
	}
	return strings.TrimRight(b.String(), "\n")
}

// streams are those that a profile may have, the main one first.
func streams(profile string) []string {
	out := []string{mainStream(profile)}
	if slices.Contains(users["displays"], profile) {
		out = append(out, "displays")
	}
	return out
}
