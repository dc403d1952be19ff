package traffic

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"qianma/chaos/model"
	"qianma/chaos/world"
)

// TestAGaugeTellsOfWhatNoClientFeels: the watch notes that a gauge has left
// zero and that it is back, once each, whatever it showed in between.
func TestAGaugeTellsOfWhatNoClientFeels(t *testing.T) {
	shows := make(chan string)
	var last atomic.Value
	last.Store("0")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case v := <-shows:
			last.Store(v)
		default:
		}
		fmt.Fprintf(w, "# TYPE clock_off gauge\nclock_off %s\n", last.Load())
	}))
	defer s.Close()
	data := t.TempDir()
	topo := fmt.Sprintf(`{"carriers":["unicom"],"processes":[{"name":"unicom-nucleic-1","carrier":"unicom","subsystem":"nucleic","http":%q}]}`,
		strings.TrimPrefix(s.URL, "http://"))
	if err := os.WriteFile(filepath.Join(data, "topology.json"), []byte(topo), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := world.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	o := &Watch{w: w, h: model.NewHistory(), last: map[string]string{}}
	o.ctx, o.stop = context.WithCancel(t.Context())
	o.Gauge("unicom-nucleic-1", "clock_off")
	for _, v := range []string{"-7200", "-7199.5", "0", "0"} { // the handler takes the next one up when it is asked again
		shows <- v
	}
	got := o.Close()
	if len(got) != 2 || got[0].What != "clock_off of unicom-nucleic-1: not 0" || got[1].What != "clock_off of unicom-nucleic-1: 0" {
		t.Errorf("%+v", got)
	}
}
