package plain

import (
	"net/http"
	"strings"
	"testing"
)

// Goal: a request and its answer are their handler's alone. Method: everything that is
// answered here is asked after everything else, on one connection and at once; the
// second is answered as it is on a connection of its own.
func TestNothingIsLeftOfTheRequestBefore(t *testing.T) {
	s := start(t, desk())
	var all []string
	for _, sc := range scripts {
		if len(sc.answers) == 1 && kindOf(sc.pieces[0]) == plain {
			all = append(all, sc.pieces[0])
		}
	}
	for name := range answers {
		all = append(all, asked("/v1/answers/"+name))
	}
	first := map[string]string{}
	for _, a := range all {
		p := call(t, s.lis)
		p.say(a)
		first[a], _ = p.hear("")
		p.Close()
	}
	for _, a := range all {
		if first[a] == "" || strings.Contains(first[a], "Connection: close") {
			continue // there is no second
		}
		p := call(t, s.lis)
		for _, b := range all {
			p.say(a + b)
			p.hears(first[a])
			got, err := p.hear("")
			if got != first[b] {
				t.Fatalf("%q after %q is answered\n%s\n%v, and alone\n%s", b, clipped([]string{a}), got, err, first[b])
			}
			if err != nil || strings.Contains(got, "Connection: close") {
				p.Close()
				p = call(t, s.lis)
			}
		}
		p.Close()
	}
}

func kindOf(bytes string) verdict {
	var m message
	v, _ := m.parse([]byte(bytes), "/v1/", new(http.Request))
	return v
}
