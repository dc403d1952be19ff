package status

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"qianma/cluster/leaktest"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/term"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// daemon answers as one would.
func daemon(t *testing.T, ready string, marks, status string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			if ready != "" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprintf(w, "[+] disk ok (5µs)\n%snot ready\n", ready)
		case "/v1/marks":
			fmt.Fprint(w, marks)
		case "/v1/status":
			fmt.Fprint(w, status)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func marks(name, role string, seqs map[string]int) string {
	var o []string
	for origin, seq := range seqs {
		o = append(o, fmt.Sprintf(`%q:{"seq":%d,"digest":"d%d"}`, origin, seq, seq))
	}
	return fmt.Sprintf(`{"process":%q,"origins":{%s},"shards":[{"shard":0,"role":%q,"leader":"unicom-nucleic-1","term":4,"applied":17}]}`, name, strings.Join(o, ","), role)
}

const origin = "unicom/nucleic/0/1f"

// town is a province with one leader, a follower that lags, a backbone whose
// line is down, and a display that is dead.
func town(t *testing.T) *province.Province {
	return &province.Province{Name: "test", Carriers: map[string]map[string][]string{"unicom": {
		"nucleic": {
			daemon(t, "", marks("unicom-nucleic-1", "leader", map[string]int{origin: 9}),
				`{"version":"v1","breakers":[{"peer":"mobile-nucleic-1","kind":"pull","state":"open","fallback":"broker"},{"peer":"x","kind":"y","state":"closed"}]}`),
			daemon(t, "[-] leader: none is known\n", marks("unicom-nucleic-2", "follower", map[string]int{origin: 6}), `{}`),
		},
		"middlestore": {daemon(t, "", `{"process":"unicom-middlestore-1","origins":{}}`, `{}`)},
		"backbone": {daemon(t, "", `{}`,
			`{"process":"unicom-backbone-1","nats":{"running":true,"streams":[{"name":"IN_mobile","lag":3}]},"etcd":{"ready":true,"leader":true},"links":[{"other":"mobile","connected":false,"quiet_ms":20000},{"other":"held by another member","connected":false,"quiet_ms":3000}]}`)},
		"display": {"http://127.0.0.1:1"},
	}}}
}

func TestTheReportSaysWhatIsWrong(t *testing.T) {
	r := Gather(context.Background(), town(t))
	if r.Healthy {
		t.Error("healthy")
	}
	if len(r.Origins) != 1 || r.Origins[0].Newest != 9 || r.Origins[0].Holders != 3 || r.Origins[0].Level != 1 ||
		r.Origins[0].Lag["unicom-nucleic-2"] != 3 || r.Origins[0].Lag["unicom-middlestore-1"] != 9 {
		t.Errorf("origins %+v", r.Origins)
	}
	if len(r.Breakers) != 1 || r.Breakers[0].Process != "unicom-nucleic-1" || r.Breakers[0].Fallback != "broker" {
		t.Errorf("breakers %+v", r.Breakers)
	}
	for _, p := range r.Processes {
		dead := p.Subsystem == "display"
		if p.Answers == dead {
			t.Errorf("%s answers: %v", p.Name, p.Answers)
		}
	}
}

func TestTheTableShowsIt(t *testing.T) {
	lines := Lines(&term.Output{}, Gather(context.Background(), town(t)))
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"test: not healthy, 3 of 5 processes ready",
		"unicom-nucleic-1 ready leader 4 17 0",
		"unicom-nucleic-2 not ready follower 4 17 3",
		"leader: none is known",
		"silent",
		"unicom-backbone-1 ready leader - - - - - - - no line to mobile; IN_mobile is 3 behind",
		"unicom/nucleic/0/1f 9 1 of 3 unicom-middlestore-1 9, unicom-nucleic-2 3",
		"unicom-nucleic-1 mobile-nucleic-1 pull open broker",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "held by another member") {
		t.Error("a line that carries heartbeats is said to be missing")
	}
	if strings.Contains(text, "\x1b") {
		t.Error("colours without a terminal")
	}
}

func TestScriptsReadOneObject(t *testing.T) {
	var b bytes.Buffer
	c := &Command{Output: "json", Check: true}
	c.Endpoint = []string{"unicom/nucleic=" + daemon(t, "", marks("unicom-nucleic-1", "leader", map[string]int{origin: 9}), `{}`)}
	if err := c.Run(context.Background(), term.New(&b, &b)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `"healthy": true`) || !strings.Contains(b.String(), `"name": "unicom-nucleic-1"`) {
		t.Errorf("%s", b.String())
	}
}
