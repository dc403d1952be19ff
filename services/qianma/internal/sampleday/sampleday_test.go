package sampleday

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var plan = Plan{People: 3000, Seed: 7, Day: time.Date(2022, 9, 16, 12, 0, 0, 0, time.UTC)}

func read(t *testing.T, dir, name string) [][]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(raw), "\ufeff"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

func TestSameSeedSameBytes(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if _, err := Write(dir, plan); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"registrations.csv", "results.csv", "doses.csv"} {
		x, _ := os.ReadFile(filepath.Join(a, name))
		y, _ := os.ReadFile(filepath.Join(b, name))
		if string(x) != string(y) {
			t.Errorf("%s differs between two runs of one plan", name)
		}
	}
}

// No tube holds more people than its pool allows, and the counts that the
// summary claims are the rows of the files.
func TestPoolsAndCounts(t *testing.T) {
	dir := t.TempDir()
	sum, err := Write(dir, plan)
	if err != nil {
		t.Fatal(err)
	}
	capacity := map[string]int{"1": 1, "5": 5, "10": 10, "20": 20, "household": 6}
	held := map[string]int{}
	rows := read(t, dir, "registrations.csv")
	for _, r := range rows {
		if held[r[0]]++; held[r[0]] > capacity[r[1]] {
			t.Fatalf("tube %s holds %d, its pool is %s", r[0], held[r[0]], r[1])
		}
	}
	if len(rows) != plan.People || sum.People != plan.People || sum.Registrations != plan.People {
		t.Errorf("%d rows, summary %+v, want %d people", len(rows), sum, plan.People)
	}
	if n := len(read(t, dir, "results.csv")); n != sum.Results || sum.Results+sum.Missing != sum.Tubes+sum.Stray {
		t.Errorf("%d result rows, summary %+v", n, sum)
	}
	if n := len(read(t, dir, "doses.csv")); n != sum.Doses {
		t.Errorf("%d dose rows, summary %+v", n, sum)
	}
}

// Resident numbers name a Guizhou county or a known place elsewhere, and only
// as many check digits are wrong as the summary admits.
func TestNumbersAreValid(t *testing.T) {
	dir := t.TempDir()
	sum, err := Write(dir, plan)
	if err != nil {
		t.Fatal(err)
	}
	known, numbers := map[string]bool{}, map[string]bool{}
	for _, c := range append(append([]string{}, counties...), elsewhere...) {
		known[c] = true
	}
	bad := 0
	for _, r := range read(t, dir, "registrations.csv") {
		if numbers[r[4]] {
			t.Fatal("two people have the same document number")
		}
		numbers[r[4]] = true
		if r[3] != resident {
			continue
		}
		if !known[r[4][:6]] {
			t.Fatalf("division %s is unknown", r[4][:6])
		}
		if r[4][17] != checkDigit(r[4][:17]) {
			bad++
		}
	}
	if bad != sum.BadCheckDigits || bad == 0 {
		t.Errorf("%d wrong check digits, summary says %d", bad, sum.BadCheckDigits)
	}
}

// The vector is public: it stands in the description of the standard's check.
func TestCheckDigit(t *testing.T) {
	if d := checkDigit("11010120231101217"); d != '6' {
		t.Errorf("check digit %c, want 6", d)
	}
}
