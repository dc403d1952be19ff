// Package services_test holds the house to its plan: which folder may import
// which, and what each binary may link.
package services_test

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "qianma/"

// strangers never meet in one process.
var strangers = []string{"nucleic", "vaccine", "display"}

// leaves are formats that anybody may read, because they import nothing of
// ours; so may every contract, whose name ends in pb.
var leaves = []string{"display/token"}

// arrows says what each folder may import beside itself. A folder that is not
// here may import nothing of ours: a new one has to be drawn first.
var arrows = map[string][]string{
	"cluster":               {},
	"nucleic":               {"cluster"},
	"vaccine":               {"cluster"},
	"middle-store":          {"cluster", "nucleic/nucleicpb", "vaccine/vaccinepb"},
	"display":               {"cluster", "middle-store/middlestorepb"},
	"loadtest":              {"cluster", "pb"},
	"chaos":                 {"cluster", "pb", "loadtest"},
	"services":              {},
	"services/internal":     {"cluster"},
	"services/nucleicd":     {"cluster", "services/internal", "nucleic"},
	"services/vaccined":     {"cluster", "services/internal", "vaccine"},
	"services/displayd":     {"cluster", "services/internal", "display"},
	"services/middlestored": {"cluster", "services/internal", "middle-store"},
	"services/backboned":    {"cluster", "services/internal"},
	"services/qianma":       {"cluster", "pb", "loadtest", "chaos"},
}

// folder is the part of the plan that a package belongs to.
func folder(pkg string) string {
	part := strings.Split(pkg, "/")
	if part[0] == "services" && len(part) > 1 {
		return path.Join(part[0], part[1])
	}
	return part[0]
}

func isLeaf(pkg string) bool {
	return strings.HasSuffix(pkg, "pb") || slices.Contains(leaves, pkg)
}

// inside reports whether pkg is the folder or stands in it.
func inside(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

// fault says why a package may not import another; "" when it may. Both are
// paths within the module.
func fault(from, to string) string {
	if from == to { // a test from outside the package
		return ""
	}
	if isLeaf(from) {
		return fmt.Sprintf("%s is a contract: it imports nothing of ours, not even %s", from, to)
	}
	home := folder(from)
	if inside(to, home) {
		return ""
	}
	for _, may := range arrows[home] {
		if inside(to, may) || may == "pb" && isLeaf(to) {
			return ""
		}
	}
	return fmt.Sprintf("%s must not import %s (it may import: %s)", from, to, strings.Join(arrows[home], ", "))
}

// TestArrowsGoOneWay reads every Go file, tests and any build tag included.
func TestArrowsGoOneWay(t *testing.T) {
	root := root(t)
	files := goFiles(t, root)
	if len(files) < 50 {
		t.Fatalf("only %d files were read: this test looks at the wrong place", len(files))
	}
	for _, why := range crossings(t, root, files) {
		t.Error(why)
	}
}

// TestCrossingsAreSeen plants files where only a careless reader would miss
// them, in a tree of its own.
func TestCrossingsAreSeen(t *testing.T) {
	root := t.TempDir()
	for file, src := range map[string]string{
		"nucleic/rules/a.go":           "package rules\n\nimport _ \"qianma/cluster/fact\"\n",
		"nucleic/rules/tagged.go":      "//go:build never && windows\n\npackage rules\n\nimport _ \"qianma/vaccine/rules\"\n",
		"nucleic/rules/a_test.go":      "package rules_test\n\nimport x \"qianma/display\"\n\nvar _ = x.Y\n",
		"display/deep/er/b_windows.go": "package er\n\nimport (\n\t\"fmt\"\n\n\t. \"qianma/nucleic/nucleicpb\"\n)\n",
		"cluster/testdata/skipped.go":  "package skipped\n\nimport _ \"qianma/nucleic\"\n",
	} {
		file = filepath.Join(root, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := crossings(t, root, goFiles(t, root))
	if len(got) != 3 {
		t.Fatalf("%d of 3 planted crossings were seen: %q", len(got), got)
	}
}

// goFiles are the Go files under root, by their paths within it.
func goFiles(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "data" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(file, ".go") {
			rel, err := filepath.Rel(root, file)
			files = append(files, rel)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// crossings says which files import what they may not.
func crossings(t *testing.T, root string, files []string) (out []string) {
	t.Helper()
	for _, file := range files {
		for _, to := range imports(t, filepath.Join(root, file)) {
			if why := fault(filepath.ToSlash(filepath.Dir(file)), to); why != "" {
				out = append(out, file+": "+why)
			}
		}
	}
	return out
}

// imports are the packages of ours that a file imports, within the module.
func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Errorf("%v", err)
		return nil
	}
	var out []string
	for _, i := range f.Imports {
		if p, err := strconv.Unquote(i.Path.Value); err == nil && strings.HasPrefix(p, module) {
			out = append(out, strings.TrimPrefix(p, module))
		}
	}
	return out
}

// TestNoBinaryLinksStrangers asks the linker's own list.
func TestNoBinaryLinksStrangers(t *testing.T) {
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("no binaries found: %v", err)
	}
	for _, file := range mains {
		main := filepath.Dir(file)
		cmd := exec.Command("go", "list", "-deps", "./services/"+main)
		cmd.Dir = root(t)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		raw, err := cmd.Output()
		if err != nil {
			t.Errorf("go list of %s: %v\n%s", main, err, &stderr)
			continue
		}
		if met := guests(strings.Fields(string(raw))); len(met) > most(main) {
			t.Errorf("%s links %s", main, strings.Join(met, " and "))
		}
	}
}

// most is how many of the strangers a binary may link: its own.
func most(main string) int {
	if slices.Contains(strangers, strings.TrimSuffix(main, "d")) {
		return 1
	}
	return 0
}

// guests are the strangers whose insides, beyond contracts, are linked.
func guests(deps []string) []string {
	var out []string
	for _, s := range strangers {
		if slices.ContainsFunc(deps, func(dep string) bool {
			pkg, ours := strings.CutPrefix(dep, module)
			return ours && inside(pkg, s) && !isLeaf(pkg)
		}) {
			out = append(out, s)
		}
	}
	return out
}

// TestThePlanIsEnforced plants a violation of every rule.
func TestThePlanIsEnforced(t *testing.T) {
	for _, bad := range [][2]string{
		{"cluster/feed", "nucleic/nucleicpb"},
		{"nucleic/api", "vaccine/vaccinepb"},
		{"nucleic", "display/token"},
		{"vaccine/rules", "nucleic/rules"},
		{"display/api", "middle-store/fold"},
		{"display", "nucleic/nucleicpb"},
		{"middle-store/fold", "nucleic/rules"},
		{"middle-store", "display/token"},
		{"nucleic/nucleicpb", "cluster/fact"},
		{"display/token", "cluster/clock"},
		{"services/nucleicd", "vaccine"},
		{"services/middlestored", "nucleic/nucleicpb"},
		{"services/qianma/internal/upload", "nucleic/api"},
		{"chaos/drills", "services/qianma/internal/supervise"},
		{"loadtest", "chaos/fault"},
		{"tools/new", "cluster/fact"},
		{"services", "cluster/fact"},
	} {
		if fault(bad[0], bad[1]) == "" {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
	for _, good := range [][2]string{
		{"middle-store/fold", "vaccine/vaccinepb"},
		{"display/api", "middle-store/middlestorepb"},
		{"services/qianma/internal/code", "display/token"},
		{"services/displayd", "display"},
		{"chaos/traffic", "loadtest/ledger"},
		{"nucleic/api", "nucleic/rules"},
	} {
		if why := fault(good[0], good[1]); why != "" {
			t.Error(why)
		}
	}
	if got := guests([]string{"qianma/nucleic/rules", "qianma/vaccine/vaccinepb", "qianma/display/token", "qianma/display/api"}); len(got) != 2 {
		t.Errorf("guests %v, want nucleic and display", got)
	}
}

// root is the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}
