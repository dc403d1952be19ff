// Package up is the command that brings a province up on this machine and
// keeps it up.
package up

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"qianma/chaos/wire"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
	"qianma/services/qianma/internal/control"
	"qianma/services/qianma/internal/province"
	"qianma/services/qianma/internal/supervise"
	"qianma/services/qianma/internal/term"
)

// Command is `qianma up`.
type Command struct {
	province.Flags
	Carrier   []string          `help:"Start only this carrier; the other stays down until 'qianma start --carrier'. Repeatable." placeholder:"NAME"`
	Backbone  int               `help:"Backbones (NATS and etcd) per carrier: 1 or 3." placeholder:"N"`
	Shards    map[string]int    `help:"Raft groups per subsystem, such as nucleic=2,vaccine=1." placeholder:"NAME=N" mapsep:","`
	Insecure  bool              `help:"Plain text between nodes: never outside a test."`
	NoDrills  bool              `help:"Processes cannot be broken from inside by drills: no panics, disk faults, power cuts or wrong clocks."`
	Links     string            `help:"How processes reach one another: direct; proxied, so that faults can be put on links; or namespaces, each carrier in its own, so that faults can be put on packets (needs root)." placeholder:"KIND"`
	NATS      []string          `name:"nats" help:"Use this NATS server instead of our own: [CARRIER=]URL. Repeatable." placeholder:"URL" sep:"none"`
	Etcd      []string          `help:"Use this etcd instead of our own: [CARRIER=]URL. Repeatable." placeholder:"URL" sep:"none"`
	Host      map[string]string `help:"Address a carrier's processes listen on, such as unicom=10.7.1.1." placeholder:"CARRIER=IP" mapsep:","`
	NetNS     map[string]string `name:"netns" help:"Network namespace a carrier's processes run in." placeholder:"CARRIER=NAME" mapsep:","`
	Name      string            `help:"Name of the province." placeholder:"NAME"`
	NoRestart bool              `help:"Leave what dies down, until it is started or 'qianma release --all'."`
	Detach    bool              `short:"d" help:"Return when the province is ready and leave it running."`
	Wait      time.Duration     `help:"How long to wait for everything to be ready before saying what is not." default:"60s"`

	Bin        string `hidden:"" type:"path" help:"Directory of the daemons."`
	Background bool   `hidden:"" help:"This is the process that --detach leaves behind."`
}

// Run implements the command.
func (c *Command) Run(ctx context.Context, out *term.Output) error {
	if len(c.Endpoint) > 0 || c.Endpoints != "" {
		return problem.New(problem.Invalid, "up makes a province in a directory; endpoints name one that is elsewhere", "use --data DIR")
	}
	if err := c.findPrograms(); err != nil {
		return err
	}
	if c.Detach && !c.Background {
		return c.detach(ctx, out, c.Data)
	}
	w, err := c.wish()
	if err != nil {
		return err
	}
	home, err := province.OpenHome(c.Data, w, running)
	if err != nil {
		return err
	}
	defer home.Close()
	return c.run(ctx, out, home)
}

// running tells which processes are left from an earlier supervisor.
func running(configs map[string]string) (map[string]bool, error) {
	found, err := supervise.Find(configs)
	m := map[string]bool{}
	for name := range found {
		m[name] = true
	}
	return m, err
}

// findPrograms finds the daemons beside this binary.
func (c *Command) findPrograms() error {
	if c.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c.Bin = filepath.Dir(self)
	}
	for _, s := range province.Subsystems {
		path := filepath.Join(c.Bin, province.Program(s))
		if _, err := os.Stat(path); err != nil {
			return problem.Wrap(err, problem.NotFound, "the daemon "+path+" is missing", "build all binaries with: make build")
		}
	}
	return nil
}

func (c *Command) wish() (province.Wish, error) {
	nats, err := byCarrier(c.NATS)
	if err != nil {
		return province.Wish{}, err
	}
	etcd, err := byCarrier(c.Etcd)
	if err != nil {
		return province.Wish{}, err
	}
	for _, carrier := range c.Carrier {
		if !slices.Contains(province.Carriers, carrier) {
			return province.Wish{}, problem.New(problem.Invalid, "there is no carrier "+carrier, "the carriers are "+strings.Join(province.Carriers, " and "))
		}
	}
	return province.Wish{Name: c.Name, Backbone: c.Backbone, Shards: c.Shards, Insecure: c.Insecure, NoDrills: c.NoDrills, Links: c.Links,
		NATS: nats, Etcd: etcd, Host: c.Host, NetNS: c.NetNS}, nil
}

// byCarrier reads [CARRIER=]URL; a URL without a carrier is everyone's.
func byCarrier(urls []string) (map[string][]string, error) {
	if len(urls) == 0 {
		return nil, nil
	}
	m := map[string][]string{}
	for _, u := range urls {
		carrier, url, named := strings.Cut(u, "=")
		switch {
		case !named || strings.Contains(carrier, ":"):
			for _, all := range province.Carriers {
				m[all] = append(m[all], u)
			}
		case slices.Contains(province.Carriers, carrier):
			m[carrier] = append(m[carrier], url)
		default:
			return nil, problem.New(problem.Invalid, "there is no carrier "+carrier, "the carriers are "+strings.Join(province.Carriers, " and "))
		}
	}
	return m, nil
}

// specs are the processes to keep.
func (c *Command) specs(home *province.Home) []supervise.Spec {
	var out []supervise.Spec
	for _, p := range home.Topology.Processes {
		out = append(out, c.spec(home, p))
	}
	if l := home.Links(); l != nil {
		out = append(out, supervise.Spec{
			Name: province.LinksName, Subsystem: province.LinksName, Early: true, Stage: province.Stage(province.LinksName),
			Path: filepath.Join(c.Bin, "qianma"), Args: []string{"links"}, ConfigFile: home.Layout.Links(),
			Log: filepath.Join(home.Logs(), "links.log"), HTTP: l.HTTP,
		})
	}
	if w := home.Wire(); w != nil && w.Kind == wire.Own {
		out = append(out, supervise.Spec{
			Name: province.WireName, Subsystem: province.WireName, Early: true, Stage: province.Stage(province.WireName),
			Path: filepath.Join(c.Bin, "qianma"), Args: []string{"wire"}, ConfigFile: home.Layout.Wire(),
			Log: filepath.Join(home.Logs(), "wire.log"), HTTP: w.HTTP,
		})
	}
	return out
}

// displayNice is how far displays give way to the rest on a machine they share
// with it. A code that comes late is asked for again; a raft leader that gets the
// processor late is taken for dead, and nobody's swab is bound until another leads.
const displayNice = 2

func (c *Command) spec(home *province.Home, p topology.Process) supervise.Spec {
	s := supervise.Spec{
		Name: p.Name, Carrier: p.Carrier, Subsystem: p.Subsystem,
		Path: filepath.Join(c.Bin, province.Program(p.Subsystem)), ConfigFile: home.Config(p),
		Dir: home.Process(p), Log: home.Log(p), HTTP: p.HTTP, Stage: province.Stage(p.Subsystem),
		Early:   p.Subsystem == "backbone",
		Idle:    len(c.Carrier) > 0 && !slices.Contains(c.Carrier, p.Carrier),
		Prepare: func() error { return home.Prepare(p) },
	}
	if p.Subsystem == "display" {
		s.Nice = displayNice
	}
	if ns := home.NetNS(p.Carrier); ns != "" {
		s.Wrap = []string{"ip", "netns", "exec", ns}
	}
	return s
}

// run keeps the province until ctx ends or somebody asks for its end. Parts
// close in the reverse order of their opening: the control socket last, so
// that whoever asked can watch the end.
func (c *Command) run(ctx context.Context, out *term.Output, home *province.Home) error {
	began := time.Now()
	log, events, err := openLog(home.SupervisorLog())
	if err != nil {
		return err
	}
	defer log.Close()
	listener, err := control.Listen(string(home.Layout))
	if err != nil {
		return err
	}
	defer control.Remove(string(home.Layout))
	s, err := supervise.Open(supervise.Config{
		Province: home.Plan.Name, Specs: c.specs(home), NoRestart: c.NoRestart, Logger: log.Logger,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	// Whoever reads what we print may leave (up | head): that is no reason to.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	ctx, shutdown := context.WithCancel(ctx)
	defer shutdown()
	server := &http.Server{Handler: s.Handler(shutdown), ReadHeaderTimeout: 5 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })

	scene := newScene(out, events, began)
	if home.Moved {
		scene.say("the remembered ports were taken by others: the province has moved to new ones")
	}
	var starting sync.WaitGroup
	starting.Go(func() { _ = s.Start(ctx) })
	scene.untilReady(ctx, func() control.Report { return s.Report(control.Selector{}) }, s.Changed, c.Wait, home.Layout)
	scene.untilEnd(ctx)
	starting.Wait()
	err = c.close(s, scene)
	_ = server.Close()
	serving.Wait()
	return errors.Join(err, province.Dismantle(home.Layout))
}

// close stops everything in order. A second signal ends the patience: what is
// left is killed.
func (c *Command) close(s *supervise.Supervisor, scene *scene) error {
	scene.say("stopping: display, then nucleic and vaccine, then middlestore, then backbone (again Ctrl-C kills)")
	patient, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Close(patient) }()
	err := scene.untilClosed(done)
	if err != nil {
		return fmt.Errorf("not everything stopped in order: %w", err)
	}
	scene.say("stopped")
	return nil
}
