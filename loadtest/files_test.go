package loadtest

import (
	"strings"
	"testing"
)

func TestConnectionsFitTheFilesThatMayBeOpen(t *testing.T) {
	for _, x := range []struct {
		asked, nodes int
		files        uint64
		want         int
	}{
		{0, 18, 1 << 20, 1024},
		{0, 18, 1 << 63, 1024},
		{0, 18, 4096, 199},
		{0, 18, 100, 1},
		{1000, 18, 20_000, 1000},
	} {
		if got, err := shareFiles(x.asked, x.nodes, x.files); got != x.want || err != nil {
			t.Errorf("%d asked for, %d nodes, %d files: %d, %v; wanted %d", x.asked, x.nodes, x.files, got, err, x.want)
		}
	}
	_, err := shareFiles(8000, 18, 20_000)
	if exitCode(err) != Usage || !strings.Contains(err.Error(), "--connections is 8000") || !strings.Contains(err.Error(), "1082 at most") {
		t.Errorf("code %d, %v", exitCode(err), err)
	}
}
