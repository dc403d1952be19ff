package province

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"qianma/chaos/link"
	"qianma/chaos/wire"
	"qianma/cluster/identity"
	"qianma/cluster/pki"
	"qianma/cluster/problem"
	"qianma/cluster/topology"
	"qianma/display/token"
)

// Home is a data directory opened by the one who runs the province. No two can
// have it open.
type Home struct {
	Layout
	Plan     Plan
	Topology *topology.Topology
	Moved    bool // the remembered ports were taken: everything has new addresses

	lock      *os.File
	block     *Block
	authority *pki.Authority
	links     *link.Config
	wire      *wire.Config
}

// AlreadyRuns is the code of the problem that somebody has the home open.
const AlreadyRuns problem.Code = "already_runs"

// OpenHome opens the data directory, and makes what is missing in it: plan,
// addresses, authority, secrets. running tells whether a process of that
// configuration file still runs from before: its ports are not probed.
func OpenHome(dir string, w Wish, running func(configs map[string]string) (map[string]bool, error)) (*Home, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	layout, err := At(dir)
	if err != nil {
		return nil, err
	}
	h := &Home{Layout: layout}
	if h.lock, err = takeLock(layout.Lock()); err != nil {
		return nil, err
	}
	if err := h.fill(w, running); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// At resolves the name of a data directory that is there, because processes
// are known by the absolute name of their configuration.
func At(dir string) (Layout, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	abs, err = filepath.EvalSymlinks(abs)
	return Layout(abs), err
}

// takeLock takes the directory for this process, until it ends.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		return nil, problem.Wrap(err, AlreadyRuns,
			fmt.Sprintf("this province runs already (supervisor pid %s, data %s)", strings.TrimSpace(string(holder)), filepath.Dir(path)),
			"qianma status looks at it, qianma start starts parts of it, qianma down stops it")
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// Close lets another open the home. It is safe to call twice.
func (h *Home) Close() error {
	err := h.block.Close()
	if h.lock != nil {
		err = errors.Join(err, h.lock.Close()) // the lock goes with the file
		h.lock = nil
	}
	return err
}

func (h *Home) fill(w Wish, running func(map[string]string) (map[string]bool, error)) error {
	var err error
	if h.Plan, err = loadPlan(h.Layout, w); err != nil {
		return err
	}
	for _, dir := range []string{h.Logs(), h.Secrets()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(h.Secrets(), 0o700); err != nil {
		return err
	}
	if err := h.address(running); err != nil {
		return err
	}
	if err := h.separate(); err != nil {
		return err
	}
	if err := saveEndpoints(h.Layout, h.Topology); err != nil {
		return err
	}
	if err := h.authorize(); err != nil {
		return err
	}
	if err := h.makeSecrets(); err != nil {
		return err
	}
	return h.tie()
}

// address finds the ports: the remembered ones if they are free or ours, else
// a new block.
func (h *Home) address(running func(map[string]string) (map[string]bool, error)) error {
	old, err := topology.Load(h.Layout.Topology())
	if errors.Is(err, os.ErrNotExist) {
		return h.move()
	}
	if err != nil {
		return err
	}
	ours, err := running(Configs(h.Layout, old))
	if err != nil {
		return err
	}
	h.block, err = claim(blockOf(old))
	taken := ""
	if err == nil {
		h.settle(blockOf(old))
		taken = h.stranger(old, ours)
	}
	if err == nil && taken == "" {
		h.Topology = old
		return nil
	}
	if len(ours) > 0 {
		return problem.New(problem.Unavailable, "parts of this province run, and a port of another part is taken by a stranger: "+taken,
			"free the port, or stop what runs with qianma down and start again: everything then moves to other ports")
	}
	h.Moved = true
	return errors.Join(h.block.Close(), h.move())
}

// move lays the province out on a block of free ports.
func (h *Home) move() error {
	var err error
	if h.block, err = findBlock(string(h.Layout), h.unused); err != nil {
		return err
	}
	h.settle(h.block.First)
	h.Topology = h.Plan.layOut(h.block.First, h.host)
	return h.Topology.Save(h.Layout.Topology())
}

// Configs maps the configuration file of every process to its name: how the
// processes of a province are known on this machine.
func Configs(l Layout, t *topology.Topology) map[string]string {
	m := map[string]string{l.Links(): LinksName, l.Wire(): WireName}
	for _, p := range t.Processes {
		m[l.Config(p)] = p.Name
	}
	return m
}

// stranger returns the first address that somebody else listens on; "" for
// none. Addresses in another network namespace cannot be tried from here.
func (h *Home) stranger(t *topology.Topology, ours map[string]bool) string {
	if len(ours) == 0 && h.wire != nil && h.wire.Busy(context.Background()) {
		return h.wire.Ends[0].NetNS
	}
	for _, p := range t.Processes {
		if ours[p.Name] || h.NetNS(p.Carrier) != "" {
			continue
		}
		for _, addr := range addresses(p) {
			if !free(addr) {
				return addr
			}
		}
	}
	return ""
}

// addresses are all that a process listens on.
func addresses(p topology.Process) []string {
	all := []string{p.HTTP, p.Node, p.NATS, p.Leaf, p.Cluster, p.Etcd, p.EtcdPeer}
	return slices.DeleteFunc(all, func(a string) bool { return a == "" })
}

// blockOf is the first port of the block that a topology was laid out on.
func blockOf(t *topology.Topology) int {
	least := portEnd
	for _, p := range t.Processes {
		if _, port, err := net.SplitHostPort(p.HTTP); err == nil {
			if n, err := strconv.Atoi(port); err == nil {
				least = min(least, n)
			}
		}
	}
	return least
}

// authorize loads the authority, or makes it.
func (h *Home) authorize() error {
	if h.Plan.Insecure {
		return nil
	}
	var err error
	if h.authority, err = pki.LoadAuthority(h.CA()); errors.Is(err, os.ErrNotExist) {
		h.authority, err = pki.NewAuthority(h.CA())
	}
	return err
}

// makeSecrets makes the keys that all processes of a kind share and that must
// outlive every carrier: without person.key nobody's results are found again.
func (h *Home) makeSecrets() error {
	for _, name := range []string{"person.key", "contact.key"} {
		path := filepath.Join(h.Secrets(), name)
		_, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			err = identity.NewKey(path)
		}
		if err != nil {
			return err
		}
	}
	for _, carrier := range Carriers {
		_, err := os.Stat(filepath.Join(h.Secrets(), token.PrivateFile(carrier)))
		if errors.Is(err, os.ErrNotExist) {
			err = token.GenerateKey(h.Secrets(), carrier, time.Now().Add(-time.Hour), tokenKeyLife)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tokenKeyLife is how long a carrier's token key may sign.
const tokenKeyLife = 2 * 365 * 24 * time.Hour
