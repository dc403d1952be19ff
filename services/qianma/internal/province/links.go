package province

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"qianma/chaos/link"
	"qianma/cluster/topology"
)

// LinksName is the process that carries the links of a province whose links are
// proxied.
const LinksName = "links"

// Links is the file that says how processes reach one another when the links
// are proxied; it is the configuration of the process that carries them.
func (l Layout) Links() string { return l.join("links.json") }

// Links is how processes reach one another; nil when they do so directly.
func (h *Home) Links() *link.Config { return h.links }

// tie lays out the links behind the ports of the processes.
func (h *Home) tie() error {
	if h.Plan.Links != Proxied {
		return nil
	}
	h.links = layLinks(h.Topology)
	return replaceJSON(h.Layout.Links(), h.links)
}

func layLinks(t *topology.Topology) *link.Config {
	next := blockOf(t)
	for _, p := range t.Processes {
		next += len(addresses(p))
	}
	addr := func() string {
		next++
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(next-1))
	}
	c := &link.Config{HTTP: addr(), Callers: map[string]string{}, Ends: map[string]link.End{}}
	for _, p := range t.Processes {
		c.Callers[callerIP(t, p)] = p.Name
		c.Ends[p.Name] = link.End{Carrier: p.Carrier, Subsystem: p.Subsystem}
		for _, l := range listeners(p) {
			c.Links = append(c.Links, link.Link{To: p.Name, Kind: l.kind, Target: l.addr, Listen: addr(), From: usual(t, p, l.kind)})
		}
	}
	return c
}

// usual is who calls a listener when the address does not tell: another
// carrier's backbone dials leaf listeners; only processes of the same carrier
// dial its NATS and etcd, and any of them stands for the carrier.
func usual(t *topology.Topology, p topology.Process, kind string) string {
	carrier := p.Carrier
	if kind == "leaf" {
		carrier = slices.Concat(t.Others(p.Carrier), []string{p.Carrier})[0]
	}
	return t.Select(carrier, "backbone")[0].Name
}

type listener struct{ kind, addr string }

// listeners are what other processes dial and a link stands before. The public
// API is not among them, nor are the backbones' own clusters: a carrier's
// backbones stand side by side.
func listeners(p topology.Process) []listener {
	all := []listener{{"node", p.Node}, {"nats", p.NATS}, {"leaf", p.Leaf}, {"etcd", p.Etcd}}
	return slices.DeleteFunc(all, func(l listener) bool { return l.addr == "" })
}

// callerIP is the local address that a process dials from: all of 127/8 is this
// machine.
func callerIP(t *topology.Topology, p topology.Process) string {
	return fmt.Sprintf("127.7.%d.%d", slices.Index(t.Carriers, p.Carrier)+1, slices.Index(Subsystems, p.Subsystem)*10+p.Ordinal)
}

// dial is where others reach that listener of a process.
func (h *Home) dial(p topology.Process, kind string) string {
	if h.links != nil {
		for _, l := range h.links.Links {
			if l.To == p.Name && l.Kind == kind {
				return l.Listen
			}
		}
	}
	for _, l := range listeners(p) {
		if l.kind == kind {
			return l.addr
		}
	}
	return ""
}

// via is where one process finds every other: nodes at their node listener,
// backbones (of the other carrier) at the one for leaf links.
func (h *Home) via(self topology.Process) map[string]string {
	if h.links == nil {
		return nil
	}
	m := map[string]string{}
	for _, l := range h.links.Links {
		if (l.Kind == "node" || l.Kind == "leaf") && l.To != self.Name {
			m[l.To] = l.Listen
		}
	}
	return m
}
