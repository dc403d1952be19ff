package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"qianma/cluster/topology"
	"qianma/cluster/topology/topologytest"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestUsage(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"name":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, exitOK, "store_mib"},
		{[]string{"--version"}, exitOK, "dev"},
		{nil, exitUsage, "usage:"},
		{[]string{"--nonsense"}, exitUsage, "nonsense"},
		{[]string{"--config", "/does/not/exist"}, exitUsage, "no such file"},
		{[]string{"--config", bad}, exitUsage, "carrier is empty\ndir is empty\ntopology is empty\nca is empty"},
	} {
		out := new(lines)
		if code := run(context.Background(), c.args, out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: exit %d, said %q", c.args, code, out)
		}
	}
}

// write makes a province of one backbone and its configuration file.
func write(t *testing.T) (config string, p topology.Process) {
	t.Helper()
	dir := t.TempDir()
	a := topologytest.Addrs(t, 4)
	p = topology.Process{Name: "unicom-backbone-1", Carrier: "unicom", Subsystem: "backbone", HTTP: a[0], NATS: a[1], Etcd: a[2], EtcdPeer: a[3]}
	topo := topology.Topology{Province: "test", Carriers: []string{"unicom"}, Processes: []topology.Process{p}}
	if err := topo.Save(filepath.Join(dir, "topology.json")); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{
		"name": p.Name, "carrier": p.Carrier, "subsystem": "backbone", "dir": filepath.Join(dir, "data"), "http": p.HTTP,
		"topology": filepath.Join(dir, "topology.json"), "insecure": true, "secrets": "unused", "store_mib": 16,
	})
	if err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return config, p
}

func TestRunsUntilToldToStop(t *testing.T) {
	config, p := write(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out, done := new(lines), make(chan int, 1)
	go func() { done <- run(ctx, []string{"--config", config}, out) }()
	deadline := time.Now().Add(2 * time.Minute)
	for ready(p.HTTP) != nil {
		if time.Now().After(deadline) {
			t.Fatalf("never ready: %v\n%s", ready(p.HTTP), out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if code := <-done; code != exitOK || !strings.Contains(out.String(), "backbone is stopping") {
		t.Errorf("exit %d: %s", code, out)
	}
	if ready(p.HTTP) == nil {
		t.Error("still serving after it stopped")
	}
}

func ready(addr string) error {
	r, err := http.Get("http://" + addr + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", r.StatusCode)
	}
	return nil
}

// A port that is taken is said in words, at once.
func TestPortTaken(t *testing.T) {
	config, p := write(t)
	l, err := net.Listen("tcp", p.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out := new(lines)
	if code := run(context.Background(), []string{"--config", config}, out); code != exitFault || !strings.Contains(out.String(), "address already in use") {
		t.Errorf("exit %d: %s", code, out)
	}
}
