// Package digits writes counts as all reports of this module's load tests do.
package digits

import "strconv"

// Grouped writes a count with its thousands apart.
func Grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	first := 0
	if n < 0 {
		first = 1 // the sign
	}
	for i := len(text) - 3; i > first; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
