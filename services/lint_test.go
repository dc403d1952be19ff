package services_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// sleepers may call time.Sleep, each for the reason beside it. Everybody else
// waits for what happens and can be stopped meanwhile. A test may sleep between
// two looks at what it waits for, and where all clocks stand still until
// everybody waits (testing/synctest).
var sleepers = map[string]string{
	"chaos/agent/agent_test.go":      "kills at a random moment, which is its point",
	"cluster/feed/feedtest/store.go": "looks again and again, for the tests that use it",
	"loadtest/internal/fake/fake.go": "plays a server that stalls",
}

// marks of unfinished work, put together here so that this file has none.
var unfinished = []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:"}

// TestTheHouseIsTidy reads every Go file once.
func TestTheHouseIsTidy(t *testing.T) {
	root := root(t)
	said := map[string]bool{} // packages that open with a comment
	var pkgs []string
	for _, file := range goFiles(t, root) {
		raw, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, raw, parser.ParseComments)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for _, why := range untidy(file, raw, f) {
			t.Error(why)
		}
		if !strings.HasSuffix(file, "_test.go") {
			pkgs = append(pkgs, filepath.Dir(file))
			said[filepath.Dir(file)] = said[filepath.Dir(file)] || f.Doc != nil
		}
	}
	for _, pkg := range pkgs {
		if !said[pkg] {
			t.Errorf("package %s does not say what it promises", pkg)
			said[pkg] = true // once is enough
		}
	}
	for file := range sleepers {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Errorf("%s is on the list of sleepers and is not there", file)
		}
	}
}

// untidy is what is wrong with a file.
func untidy(file string, raw []byte, f *ast.File) (out []string) {
	if clean, err := format.Source(raw); err != nil || !bytes.Equal(clean, raw) {
		out = append(out, file+": not as gofmt writes it")
	}
	for _, word := range unfinished {
		if bytes.Contains(raw, []byte(word)) {
			out = append(out, fmt.Sprintf("%s: %s; finish it or say in words what is missing", file, word))
		}
	}
	test := strings.HasSuffix(file, "_test.go")
	if sleepers[filepath.ToSlash(file)] == "" && !(test && named(f, "testing/synctest")) && sleeps(f, test) {
		out = append(out, file+": calls time.Sleep; wait for what has to happen")
	}
	return out
}

func named(f *ast.File, pkg string) bool {
	for _, i := range f.Imports {
		if p, err := strconv.Unquote(i.Path.Value); err == nil && p == pkg {
			return true
		}
	}
	return false
}

// sleeps reports whether the file names Sleep of package time, under whatever
// name that is imported; in a loop it may if polls is set.
func sleeps(f *ast.File, polls bool) (found bool) {
	name := ""
	for _, i := range f.Imports {
		if i.Path.Value != `"time"` {
			continue
		}
		if name = "time"; i.Name != nil {
			name = i.Name.Name
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ForStmt, *ast.RangeStmt:
			return !polls
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			found = found || ok && name != "" && x.Name == name && n.Sel.Name == "Sleep"
		}
		return !found
	})
	return found
}

// TestUntidinessIsSeen plants each kind.
func TestUntidinessIsSeen(t *testing.T) {
	for _, c := range []struct {
		src          string
		code, inTest int // faults
	}{
		{"package x\n", 0, 0},
		{"package x\n\nimport \"time\"\n\nvar t time.Time\n", 0, 0},
		{"package x\n\nimport \"time\"\n\nfunc f() { time.Sleep(1) }\n", 1, 1},
		{"package x\n\nimport zeit \"time\"\n\nvar f = zeit.Sleep\n", 1, 1},
		{"package x\n\nimport \"time\"\n\nfunc f() {\n\tfor {\n\t\ttime.Sleep(1)\n\t}\n}\n", 1, 0},
		{"package x\n\nimport (\n\t\"testing/synctest\"\n\t\"time\"\n)\n\nvar a, b = synctest.Wait, time.Sleep\n", 1, 0},
		{"package x\nvar  y int\n", 1, 1},
		{"package x\n\n// " + unfinished[0] + " later\n", 1, 1},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", c.src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if got := untidy("x.go", []byte(c.src), f); len(got) != c.code {
			t.Errorf("%q: %q", c.src, got)
		}
		if got := untidy("x_test.go", []byte(c.src), f); len(got) != c.inTest {
			t.Errorf("%q in a test: %q", c.src, got)
		}
	}
}
