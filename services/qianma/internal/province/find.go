package province

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"qianma/cluster/problem"
	"qianma/cluster/topology"
)

// Subsystems in the order people read them.
var Subsystems = []string{"nucleic", "vaccine", "display", "middlestore", "backbone"}

// Province is where a province can be reached: the public HTTP APIs, by carrier
// and subsystem.
type Province struct {
	Name     string                         `json:"province"`
	Data     string                         `json:"data"` // its data directory; "" when it is not on this machine
	Carriers map[string]map[string][]string `json:"carriers"`
}

// Flags are how every command is told which province it means.
type Flags struct {
	Data      string   `help:"Data directory of the province." default:"./data" placeholder:"DIR" type:"path" env:"QIANMA_DATA"`
	Endpoints string   `help:"File of endpoints, as up writes it, instead of a data directory." placeholder:"FILE" type:"path" env:"QIANMA_ENDPOINTS"`
	Endpoint  []string `help:"One endpoint, instead of a data directory: URL, or CARRIER/SUBSYSTEM=URL to save asking it. Repeatable." placeholder:"URL" sep:"none"`
}

// Find returns the province that the flags name. Only bare URLs cause a
// request, to learn whose they are.
func (f Flags) Find(ctx context.Context) (*Province, error) {
	switch {
	case len(f.Endpoint) > 0:
		return fromURLs(ctx, f.Endpoint)
	case f.Endpoints != "":
		return load(f.Endpoints)
	}
	return Find(f.Data)
}

// Find returns the province of a data directory, whether or not it runs.
func Find(data string) (*Province, error) {
	p, err := load(Layout(data).Endpoints())
	if errors.Is(err, os.ErrNotExist) {
		return nil, problem.Wrap(err, problem.NotFound, "there is no province in "+data,
			"make one with: qianma up --data "+data+", or name another with --data DIR, --endpoints FILE or --endpoint URL")
	}
	return p, err
}

func load(path string) (*Province, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := new(Province)
	if err := json.Unmarshal(raw, p); err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "the endpoints in "+path+" cannot be read", "write them again with: qianma up")
	}
	return p, nil
}

// URLs returns the base URLs of a subsystem at a carrier, in order; an empty
// carrier means all.
func (p *Province) URLs(carrier, subsystem string) []string {
	var out []string
	for _, c := range p.Names() {
		if carrier == "" || carrier == c {
			out = append(out, p.Carriers[c][subsystem]...)
		}
	}
	return out
}

// Names returns the carriers, unicom before mobile and others behind them by name.
func (p *Province) Names() []string {
	var out []string
	for c := range p.Carriers {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return out
}

func rank(carrier string) int {
	if i := slices.Index(Carriers, carrier); i >= 0 {
		return i
	}
	return len(Carriers)
}

// Topology returns every process of the province; nil when only endpoints are
// known.
func (p *Province) Topology() (*topology.Topology, error) {
	if p.Data == "" {
		return nil, nil
	}
	return topology.Load(Layout(p.Data).Topology())
}

func (p *Province) add(carrier, subsystem, url string) {
	if p.Carriers == nil {
		p.Carriers = map[string]map[string][]string{}
	}
	if p.Carriers[carrier] == nil {
		p.Carriers[carrier] = map[string][]string{}
	}
	p.Carriers[carrier][subsystem] = append(p.Carriers[carrier][subsystem], strings.TrimRight(url, "/"))
}

func fromURLs(ctx context.Context, endpoints []string) (*Province, error) {
	p := &Province{Name: "explicit endpoints"}
	for _, e := range endpoints {
		whose, url, named := strings.Cut(e, "=")
		if !named || strings.Contains(whose, ":") {
			url = e
			var err error
			if whose, err = whoIs(ctx, url); err != nil {
				return nil, err
			}
		}
		carrier, subsystem, ok := strings.Cut(whose, "/")
		if !ok || !slices.Contains(Subsystems, subsystem) {
			return nil, problem.New(problem.Invalid, "the endpoint "+e+" cannot be read", "write it as URL or as unicom/nucleic=URL")
		}
		p.add(carrier, subsystem, url)
	}
	return p, nil
}

// whoIs asks a daemon for its name ("unicom-nucleic-1") and returns
// "unicom/nucleic".
func whoIs(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var who struct {
		Process string `json:"process"`
	}
	if err := getJSON(ctx, strings.TrimRight(url, "/")+"/v1/marks", &who); err != nil {
		return "", problem.Wrap(err, problem.Unavailable, "nobody says who listens at "+url, "name it: --endpoint unicom/nucleic="+url)
	}
	part := strings.Split(who.Process, "-")
	if len(part) != 3 {
		return "", problem.New(problem.Invalid, "what listens at "+url+" is not a part of a province", "check the address")
	}
	return part[0] + "/" + part[1], nil
}

func getJSON(ctx context.Context, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(v)
}

// saveEndpoints writes the file that Find reads.
func saveEndpoints(l Layout, t *topology.Topology) error {
	p := &Province{Name: t.Province, Data: string(l)}
	for _, proc := range t.Processes {
		if proc.HTTP != "" {
			p.add(proc.Carrier, proc.Subsystem, "http://"+proc.HTTP)
		}
	}
	return replaceJSON(l.Endpoints(), p)
}
