package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"qianma/chaos/agent"
	"qianma/chaos/world"
	"qianma/cluster/pki"
	"qianma/cluster/problem"
	"qianma/cluster/registry"
)

// lock keeps two drills apart: a file for those on this machine, and the lock
// in etcd for those elsewhere. An etcd that is away when the drill begins, or
// goes away meanwhile, is no hindrance: the file is what is needed.
type lock struct {
	file  *os.File
	reg   *registry.Registry
	held  *registry.Lock
	Notes []string
}

const lockName = "drill"

// etcdMax bounds the wait for the lock in etcd: longer than it outlives a
// holder who could not give it up because etcd was away. An etcd that does not
// answer at all is not waited for.
const (
	lockTTL = 15 * time.Second
	etcdMax = lockTTL + 5*time.Second
)

func takeLock(ctx context.Context, w *world.World) (*lock, error) {
	path := agent.At(w.Data).Lock()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		who, _ := io.ReadAll(io.LimitReader(f, 64))
		f.Close()
		return nil, problem.New(problem.Conflict, "another drill runs on this province (pid "+strings.TrimSpace(string(who))+")", "wait for it, or: qianma drill abort")
	}
	l := &lock{file: f}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := l.far(ctx, w); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// far takes the lock in the first carrier's etcd. Only a lock that somebody
// holds is an error.
func (l *lock) far(ctx context.Context, w *world.World) error {
	carrier := w.Topology.Carriers[0]
	backbones := w.Topology.Select(carrier, "backbone")
	if len(backbones) == 0 {
		l.note("this province's etcd is elsewhere: only drills on this machine are kept apart")
		return nil
	}
	cfg := registry.Config{Carrier: carrier, Name: "drill", Topology: w.Topology, CallTimeout: time.Second}
	scheme := "http://"
	b := backbones[0]
	dir := filepath.Join(w.Data, b.Carrier, b.Name, "tls")
	files := pki.Files{CA: filepath.Join(w.Data, "ca", "ca.pem"), Cert: filepath.Join(dir, b.Name+".pem"), Key: filepath.Join(dir, b.Name+".key")}
	if tls, err := pki.Client(files); err == nil {
		scheme, cfg.TLS = "https://", tls
	}
	if _, _, err := net.SplitHostPort(b.Etcd); err != nil {
		return nil
	}
	cfg.Endpoints = []string{scheme + b.Etcd}
	var err error
	if l.reg, err = registry.Open(cfg); err != nil {
		l.note("the lock in etcd was not taken: " + err.Error())
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, etcdMax)
	defer cancel()
	l.held, err = l.reg.Lock(bounded, lockName, lockTTL)
	if problem.From(err) != nil && problem.From(err).Code == problem.Conflict {
		return fmt.Errorf("another drill runs on this province: %w", err)
	}
	if err != nil {
		l.note("the lock in etcd was not taken, because etcd is away: " + err.Error())
	}
	return nil
}

func (l *lock) note(text string) { l.Notes = append(l.Notes, text) }

// Close gives both locks up; with etcd away its lease runs out by itself.
func (l *lock) Close() error {
	if l.held != nil {
		l.held.Release()
	}
	var err error
	if l.reg != nil {
		err = l.reg.Close()
	}
	return errors.Join(err, l.file.Close())
}
