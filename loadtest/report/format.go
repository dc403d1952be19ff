package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
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
	return strconv.FormatFloat(f, 'g', 3, 64)
}

// count groups thousands.
func count(n int64) string {
	if n < 0 {
		return "-" + count(-n)
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return count(n/1000) + "," + fmt.Sprintf("%03d", n%1000)
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
