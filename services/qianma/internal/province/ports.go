package province

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"strconv"
	"strings"

	"qianma/cluster/problem"
)

// Ports come in blocks below the range that the kernel hands out to outgoing
// connections, so that a restarted daemon never finds its port lent to a
// stranger's connection.
const (
	blockSize = 256
	portFirst = 10240
	portEnd   = 32768 // excluded; where Linux begins to hand out ports by default
)

// Block is a claimed run of ports. The claim is a name in the kernel's table of
// abstract sockets: it reaches exactly as far as the ports do (the network
// namespace) and vanishes with the process that holds it.
type Block struct {
	First int
	claim net.Listener
}

// Close gives the block up. It is safe to call twice.
func (b *Block) Close() error {
	if b == nil || b.claim == nil {
		return nil
	}
	err := b.claim.Close()
	b.claim = nil
	return err
}

// errClaimed means that another province holds the block.
var errClaimed = errors.New("another province on this machine holds the block of ports")

// claim takes a block, or fails with errClaimed.
func claim(first int) (*Block, error) {
	l, err := net.Listen("unix", "@qianma/ports/"+strconv.Itoa(first))
	if err != nil {
		return nil, errClaimed
	}
	return &Block{First: first, claim: l}, nil
}

// findBlock claims a block that nobody uses. Where the search begins depends on
// the seed, so that provinces that start together try different blocks first.
func findBlock(seed string, unused func(first int) bool) (*Block, error) {
	end := firstLent()
	count := (end - portFirst) / blockSize
	h := fnv.New32a()
	h.Write([]byte(seed))
	start := int(h.Sum32()>>1) % count
	for i := range count {
		b, err := claim(portFirst + (start+i)%count*blockSize)
		if err != nil {
			continue
		}
		if unused(b.First) {
			return b, nil
		}
		b.Close()
	}
	return nil, problem.New(problem.Unavailable, fmt.Sprintf("no %d ports in a row are free between %d and %d", blockSize, portFirst, end),
		"stop another province or what else listens there")
}

// firstLent is the first port that the kernel lends to outgoing connections.
func firstLent() int {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return portEnd
	}
	low, err := strconv.Atoi(strings.Fields(string(raw) + " x")[0])
	// A machine that lends nearly everything leaves no room below: then any
	// port is as good as another, and the probe decides.
	if err != nil || low < portFirst+8*blockSize {
		return portEnd
	}
	return min(low, portEnd)
}

// firstTaken returns the first port in [from, to) that cannot be listened on;
// 0: none.
func firstTaken(host string, from, to int) int {
	for port := from; port < to; port++ {
		if !free(net.JoinHostPort(host, strconv.Itoa(port))) {
			return port
		}
	}
	return 0
}

func free(addr string) bool {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}
