package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"qianma/cluster/problem"
)

// Devices inside a namespace.
const (
	lineDevice = "line"
	doorDevice = "door"
)

// mtu of the line is that of an Ethernet: a fault on packets is a fault on
// pieces of that size.
const mtu = "1500"

// commandMax bounds a call of ip or tc.
const commandMax = 10 * time.Second

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandMax)
	defer cancel()
	var out, words bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(words.Bytes()))
	}
	return out.Bytes(), nil
}

func ip(ctx context.Context, args string) error {
	_, err := run(ctx, "ip", strings.Fields(args)...)
	return err
}

// Able says why namespaces cannot be had here; nil: they can.
func Able() error {
	const fix = "run it as root on Linux with iproute2 (apt-get install iproute2), or use --links proxied"
	refuse := func(why string) error { return problem.New(problem.Unavailable, why, fix) }
	if os.Geteuid() != 0 {
		return refuse("network namespaces need root")
	}
	for _, name := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(name); err != nil {
			return refuse("network namespaces need the command " + name)
		}
	}
	return nil
}

// Plan lays out the n-th pair of namespaces of this machine. The addresses are
// of the range set apart for tests of networks (RFC 2544), which no real
// network uses.
func Plan(n int, carriers [2]string, owner, http string) *Config {
	c := &Config{HTTP: http, Gate: fmt.Sprintf("198.18.%d.9", n), Owner: owner}
	for i, name := range carriers {
		c.Ends[i] = End{Carrier: name, NetNS: fmt.Sprintf("qianma-%d-%s", n, name), Addr: fmt.Sprintf("198.18.%d.%d", n, i+1), Door: fmt.Sprintf("qm%dd%d", n, i+1)}
	}
	return c
}

// Make brings up namespaces, doors, and the kernel's line; our own line is
// brought up by whoever carries it. What is there from before and whole is kept,
// with all that runs in it.
func (c *Config) Make(ctx context.Context) error {
	if err := Able(); err != nil {
		return err
	}
	if c.whole(ctx) {
		return nil
	}
	if busy := c.Busy(ctx); busy {
		return problem.New(problem.Unavailable, "a namespace of this province is damaged while processes run in it", "qianma down, then up again")
	}
	sweep(ctx)
	if err := c.Remove(ctx); err != nil {
		return err
	}
	for _, e := range c.Ends {
		if err := c.room(ctx, e); err != nil {
			return errors.Join(err, c.Remove(ctx))
		}
	}
	c.Kind = Own
	if netem(ctx, c.Ends[0].NetNS) {
		c.Kind = Kernel
		if err := c.veth(ctx); err != nil {
			return errors.Join(err, c.Remove(ctx))
		}
	}
	return nil
}

// room makes one namespace with its door.
func (c *Config) room(ctx context.Context, e End) error {
	in := "-n " + e.NetNS + " "
	return c.all(ctx,
		"netns add "+e.NetNS,
		in+"link set lo up",
		"link add "+e.Door+" type veth peer name "+doorDevice+" netns "+e.NetNS,
		"addr replace "+c.Gate+"/32 dev "+e.Door,
		"link set "+e.Door+" up alias "+alias(c.Owner),
		in+"addr add "+e.Addr+"/32 dev "+doorDevice,
		in+"link set "+doorDevice+" up",
		"route replace "+e.Addr+"/32 dev "+e.Door+" src "+c.Gate,
		in+"route replace "+c.Gate+"/32 dev "+doorDevice+" src "+e.Addr,
	)
}

func (c *Config) all(ctx context.Context, commands ...string) error {
	for _, args := range commands {
		if err := ip(ctx, args); err != nil {
			return err
		}
	}
	return nil
}

// netem reports whether the kernel can harm packets.
func netem(ctx context.Context, ns string) bool {
	if tc(ctx, "-n", ns, "qdisc", "replace", "dev", "lo", "root", "handle", handle, "netem", "loss", "0%") != nil {
		return false
	}
	return tc(ctx, "-n", ns, "qdisc", "del", "dev", "lo", "root") == nil
}

// veth is the kernel's line.
func (c *Config) veth(ctx context.Context) error {
	a, b := c.Ends[0], c.Ends[1]
	if err := ip(ctx, "-n "+a.NetNS+" link add "+lineDevice+" type veth peer name "+lineDevice+" netns "+b.NetNS); err != nil {
		return err
	}
	return errors.Join(c.tie(ctx, 0), c.tie(ctx, 1))
}

// tie sets an end of the line up: its device is there, in its namespace.
func (c *Config) tie(ctx context.Context, i int) error {
	here, there := c.Ends[i], c.Ends[1-i]
	in := "-n " + here.NetNS + " "
	return c.all(ctx,
		in+"link set "+lineDevice+" mtu "+mtu+" up",
		in+"route replace "+there.Addr+"/32 dev "+lineDevice+" src "+here.Addr,
	)
}

// whole reports whether all that Make makes is there.
func (c *Config) whole(ctx context.Context) bool {
	for _, e := range c.Ends {
		if ip(ctx, "link show dev "+e.Door+" up") != nil || ip(ctx, "-n "+e.NetNS+" link show dev "+doorDevice+" up") != nil {
			return false
		}
		if c.Kind == Kernel && ip(ctx, "-n "+e.NetNS+" link show dev "+lineDevice) != nil {
			return false
		}
	}
	return c.Kind != ""
}

// Busy reports whether processes run in a namespace of that name.
func (c *Config) Busy(ctx context.Context) bool {
	for _, e := range c.Ends {
		if raw, err := run(ctx, "ip", "netns", "pids", e.NetNS); err == nil && len(bytes.TrimSpace(raw)) > 0 {
			return true
		}
	}
	return false
}

// Remove takes namespaces and doors away; what is not there is fine, nor does it
// matter who was quicker: a supervisor and whoever told it to end both do this.
// Our own line goes with the process that carries it.
func (c *Config) Remove(ctx context.Context) error {
	var faults []error
	for _, e := range c.Ends {
		faults = append(faults,
			away(func() bool { return ip(ctx, "link show dev "+e.Door) == nil }, func() error { return ip(ctx, "link del "+e.Door) }),
			away(func() bool { return spaceThere(e.NetNS) }, func() error { return ip(ctx, "netns del "+e.NetNS) }))
	}
	return errors.Join(faults...)
}

// away takes away what is there.
func away(there func() bool, take func() error) error {
	if !there() {
		return nil
	}
	if err := take(); err != nil && there() {
		return err
	}
	return nil
}

func spaceThere(name string) bool {
	_, err := os.Stat(filepath.Join(spacesAt, name))
	return err == nil
}

// A door bears the name of the data directory it is of, so that what a province
// left behind that is gone itself can be told from one that is only down. It is
// quoted because a name may hold any byte.
func alias(owner string) string {
	if name := "qianma:" + url.PathEscape(owner); len(name) <= aliasMax {
		return name
	}
	return "qianma:" // a name that does not fit is not kept, nor swept by
}

// aliasMax is what the kernel keeps.
const aliasMax = 255

const (
	spacesAt = "/run/netns"
	aliasAt  = "/sys/class/net/%s/ifalias"
)

// sweep takes away the namespaces of provinces whose directory is gone and in
// which nothing runs.
func sweep(ctx context.Context) {
	entries, err := os.ReadDir(spacesAt)
	if err != nil {
		return
	}
	pairs := map[int][]string{} // carriers
	for _, e := range entries {
		var n int
		var carrier string
		if _, err := fmt.Sscanf(e.Name(), "qianma-%d-%s", &n, &carrier); err == nil {
			pairs[n] = append(pairs[n], carrier)
		}
	}
	for n, carriers := range pairs {
		c := Plan(n, [2]string{carriers[0], carriers[len(carriers)-1]}, "", "")
		owner, ok := ownerOf(c.Ends[0].Door)
		if !ok {
			owner, ok = ownerOf(c.Ends[1].Door)
		}
		if _, err := os.Stat(owner); ok && errors.Is(err, os.ErrNotExist) && !c.Busy(ctx) {
			_ = c.Remove(ctx) // what cannot be removed is in nobody's way
		}
	}
}

// ownerOf reads the data directory off a door.
func ownerOf(door string) (string, bool) {
	raw, err := os.ReadFile(fmt.Sprintf(aliasAt, door))
	if err != nil {
		return "", false
	}
	owner, ok := strings.CutPrefix(strings.TrimSpace(string(raw)), "qianma:")
	if !ok {
		return "", false
	}
	owner, err = url.PathUnescape(owner)
	return owner, err == nil && owner != ""
}
