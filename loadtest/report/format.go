package report

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"qianma/loadtest/internal/digits"
)

// number writes a figure as precisely as anybody needs it.
func number(f float64) string {
	switch {
	case math.IsNaN(f), f == -1:
		return "n/a"
	case f == 0:
		return "0"
	case math.Abs(f) >= 100:
		return count(int64(math.Round(f)))
	case math.Abs(f) >= 1:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return short(f)
}

// short writes what is below one with three digits, and with more where those
// would make one of it: a share that is nearly all is not all.
func short(f float64) string {
	for digits := 3; ; digits++ {
		text := strconv.FormatFloat(f, 'g', digits, 64)
		if digits == 17 || text != "1" && text != "-1" {
			return text
		}
	}
}

// percent writes a share; -1 is one that there is not.
func percent(share float64) string {
	if math.IsNaN(share) || share < 0 {
		return "n/a"
	}
	if share >= 1 || math.Round(1000*share) < 1000 {
		return number(100*share) + "%"
	}
	for digits := 2; ; digits++ { // a decimal would make 100 of it
		text := strconv.FormatFloat(100*share, 'f', digits, 64)
		if digits == 15 || !strings.HasPrefix(text, "100") {
			return text + "%"
		}
	}
}

// mib writes bytes in MiB; below 0 nobody could read them.
func mib(n int64) string {
	if n < 0 {
		return "n/a"
	}
	return count(n >> 20)
}

// Several is a number of things, of which one has no s.
func Several(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

// grouped writes a number with so many decimals, and groups thousands.
func grouped(f float64, decimals int) string {
	whole, part, _ := strings.Cut(strconv.FormatFloat(math.Abs(f), 'f', decimals, 64), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if part != "" {
		whole += "." + part
	}
	if f < 0 {
		return "-" + whole
	}
	return whole
}

// count groups thousands.
func count(n int64) string { return digits.Grouped(n) }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
