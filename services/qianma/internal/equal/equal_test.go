package equal

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

func holder(t *testing.T, name, body string, subsystems ...string) Holder {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
	t.Cleanup(s.Close)
	return Holder{name, s.URL, subsystems}
}

func marks(origins string) string { return `{"origins":{` + origins + `}}` }

func TestVerdicts(t *testing.T) {
	const nine = `"u/nucleic/0/1":{"seq":9,"digest":"aa"}`
	const vac = `"u/vaccine/0/1":{"seq":2,"digest":"cc"}`
	for name, c := range map[string]struct {
		second string
		equal  bool
		what   string
	}{
		"equal":     {marks(nine), true, ""},
		"behind":    {marks(`"u/nucleic/0/1":{"seq":7,"digest":"bb"}`), false, "is 2 facts behind"},
		"missing":   {marks(``), false, "is 9 facts behind"},
		"divergent": {marks(`"u/nucleic/0/1":{"seq":9,"digest":"bb"}`), false, "holds other facts at the same addresses"},
	} {
		got := Check(t.Context(), http.DefaultClient, []Holder{
			holder(t, "a", marks(nine), "nucleic"),
			holder(t, "b", c.second, "nucleic"),
			holder(t, "m", marks(nine+","+vac), "nucleic", "vaccine"),
			holder(t, "v", marks(vac), "vaccine"),
		})
		if got.Equal != c.equal || got.Facts != 11 {
			t.Errorf("%s: %+v", name, got)
		}
		if !c.equal && (len(got.Differences) != 1 || got.Differences[0].What != c.what || got.Differences[0].Process != "b") {
			t.Errorf("%s: differences %+v", name, got.Differences)
		}
	}
}

// A process that does not answer may hold anything: that is not equal.
func TestSilenceIsNotEqual(t *testing.T) {
	gone := holder(t, "gone", "", "nucleic")
	gone.URL = "http://127.0.0.1:1"
	got := Check(t.Context(), http.DefaultClient, []Holder{holder(t, "a", marks(``), "nucleic"), gone})
	if got.Equal || got.Unreachable["gone"] == "" {
		t.Errorf("%+v", got)
	}
}

// An origin that has no facts yet is held in full by who never heard of it.
func TestAnEmptyOriginIsHeldByAll(t *testing.T) {
	got := Check(t.Context(), http.DefaultClient, []Holder{
		holder(t, "a", marks(`"u/nucleic/0/1":{"seq":0,"digest":"00"}`), "nucleic"),
		holder(t, "b", marks(``), "nucleic"),
	})
	if !got.Equal || got.Facts != 0 {
		t.Errorf("%+v", got)
	}
}
