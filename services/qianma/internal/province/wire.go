package province

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"

	"qianma/chaos/wire"
)

// WireName is the process that carries the line between the carriers' network
// namespaces, where the kernel cannot harm packets itself.
const WireName = "wire"

// Wire is the file that says how the carriers' namespaces are tied together;
// it is the configuration of the process that carries the line.
func (l Layout) Wire() string { return l.join("wire.json") }

// Wire is how the carriers' namespaces are tied together; nil when there are
// none that are ours.
func (h *Home) Wire() *wire.Config { return h.wire }

// settle takes the namespaces that go with a block of ports: whoever holds the
// one holds the other.
func (h *Home) settle(first int) {
	if h.Plan.Links != Namespaces {
		return
	}
	h.wire = planWire(string(h.Layout), first)
}

func planWire(owner string, first int) *wire.Config {
	control := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+blockSize-1))
	return wire.Plan((first-portFirst)/blockSize, [2]string{Carriers[0], Carriers[1]}, owner, control)
}

// unused reports whether nobody listens on a block of ports. Ports in a
// namespace that was made for us cannot be tried from here; what matters there
// is that nobody lives in it.
func (h *Home) unused(first int) bool {
	if h.Plan.Links == Namespaces {
		return !planWire("", first).Busy(context.Background())
	}
	for _, carrier := range Carriers {
		if h.NetNS(carrier) == "" && firstTaken(h.host(carrier), first, first+blockSize) != 0 {
			return false
		}
	}
	return true
}

// separate makes the namespaces. What is there from before is kept.
func (h *Home) separate() error {
	if h.wire == nil {
		return nil
	}
	if old, err := wire.Load(h.Layout.Wire()); err == nil && old.HTTP == h.wire.HTTP {
		h.wire.Kind = old.Kind
	}
	if err := h.wire.Make(context.Background()); err != nil {
		return err
	}
	return replaceJSON(h.Layout.Wire(), h.wire)
}

// host is the address a carrier's processes listen on.
func (h *Home) host(carrier string) string {
	if h.wire != nil {
		return h.wire.Addr(carrier)
	}
	if given := h.Plan.Host[carrier]; given != "" {
		return given
	}
	return "127.0.0.1"
}

// NetNS is the network namespace a carrier's processes run in; "": ours.
func (h *Home) NetNS(carrier string) string {
	if h.wire != nil {
		return h.wire.NetNS(carrier)
	}
	return h.Plan.NetNS[carrier]
}

// Dismantle takes the namespaces of a province away in which nothing runs any
// more.
func Dismantle(l Layout) error {
	c, err := wire.Load(l.Wire())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	ctx := context.Background()
	if err != nil || c.Busy(ctx) {
		return err
	}
	return c.Remove(ctx)
}
