// Package drills holds the drill files: the list of files is the list of what
// a province survives, each named in plain words.
package drills

import "embed"

// Files are the drill files.
//
//go:embed *.yaml
var Files embed.FS
