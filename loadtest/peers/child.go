package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"qianma/cluster/footprint"
	"qianma/loadtest/cost"
)

// Serve runs one server of a peer in this process, until it is told to stop.
// The parent starts it by running its own binary again.
type Serve struct {
	Config string `arg:"" help:"File that says which."`
}

// member is the configuration of one server.
type member struct {
	Kind   string   `json:"kind"`
	Name   string   `json:"name"`
	Dir    string   `json:"dir"`
	Client int      `json:"client"` // port
	Peer   int      `json:"peer"`   // port
	Peers  []member `json:"peers"`
}

// Run serves.
func (s *Serve) Run(ctx context.Context) error {
	raw, err := os.ReadFile(s.Config)
	if err != nil {
		return err
	}
	var m member
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	switch m.Kind {
	case "jetstream-kv":
		return serveNATS(ctx, m)
	case "etcd":
		return serveEtcd(ctx, m)
	}
	return fmt.Errorf("no server of kind %q", m.Kind)
}

// cluster is three servers of a peer as processes.
type cluster struct {
	members []member
	cmds    []*exec.Cmd
}

// childArgs is what stands between the binary and the configuration file. A
// test that is its own binary puts something else there.
var childArgs = []string{"load", "peer"}

const members = 3

// upMax bounds how long a cluster may take to serve.
const upMax = 3 * time.Minute

func startCluster(kind, dir string) (*cluster, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2 * members)
	if err != nil {
		return nil, err
	}
	c := &cluster{}
	for i := range members {
		m := member{Kind: kind, Name: kind + "-" + strconv.Itoa(i+1), Dir: filepath.Join(dir, strconv.Itoa(i+1)), Client: ports[2*i], Peer: ports[2*i+1]}
		if err := os.MkdirAll(m.Dir, 0o700); err != nil {
			return nil, err
		}
		c.members = append(c.members, m)
	}
	all := c.members
	for _, m := range all {
		m.Peers = all
		if err := c.launch(self, dir, m); err != nil {
			return nil, errors.Join(err, c.stop())
		}
	}
	return c, nil
}

func (c *cluster) launch(self, dir string, m member) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	config := filepath.Join(dir, m.Name+".json")
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, m.Name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, append(append([]string{}, childArgs...), config)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "QIANMA_PEER_SERVER=1")
	// A peer written in Go gets what our own processes get of their supervisor.
	if err := footprint.Unhurried(time.Millisecond, cmd.Start); err != nil {
		return err
	}
	c.cmds = append(c.cmds, cmd)
	return nil
}

// Ports of servers lie below those that outgoing connections take: one of those
// can be lent out before the server listens on it. Provinces begin above them.
const (
	portFirst = 10000
	portEnd   = 10240 // excluded
)

// freePorts finds ports that nobody listens on.
func freePorts(n int) (ports []int, err error) {
	start := rand.IntN(portEnd - portFirst)
	for i := range portEnd - portFirst {
		port := portFirst + (start+i)%(portEnd-portFirst)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("%d of %d ports between %d and %d are free", len(ports), n, portFirst, portEnd)
}

func (c *cluster) processes() ([]cost.Process, error) {
	var out []cost.Process
	for i, cmd := range c.cmds {
		out = append(out, cost.Process{Name: c.members[i].Name, Role: c.members[i].Kind, PID: cmd.Process.Pid})
	}
	return out, nil
}

// stop asks the servers to leave, and makes them after a while.
func (c *cluster) stop() error {
	for _, cmd := range c.cmds {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range c.cmds {
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ended is of no interest: it was told to
		kill.Stop()
	}
	return nil
}
