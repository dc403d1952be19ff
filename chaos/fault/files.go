package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"qianma/chaos/world"
	"qianma/cluster/pki"
	"qianma/cluster/topology"
)

// flip turns one bit over in the middle of a file that holds facts: the log
// or the state of a process that is down.
func flip(ctx context.Context, w *world.World, a Action) error {
	dir, err := grave(ctx, w, a)
	if err != nil {
		return err
	}
	files, err := stores(dir)
	files = slices.DeleteFunc(files, func(path string) bool { return !parts[a.Path](path) })
	if err != nil || len(files) == 0 {
		return errors.Join(err, fmt.Errorf("%s keeps no file of %q in which a bit could be wrong", a.On, a.Path))
	}
	r := rand.New(rand.NewPCG(a.Seed, 0xf11b))
	return flipIn(files[r.IntN(len(files))], r)
}

// parts tell what of a process's store a file belongs to.
var parts = map[string]func(path string) bool{
	"":      func(string) bool { return true },
	"log":   func(path string) bool { return filepath.Base(filepath.Dir(path)) == "log" },
	"state": func(path string) bool { return strings.HasPrefix(filepath.Base(filepath.Dir(path)), "state") },
}

// fileMin is the least size of a file worth a flip.
const fileMin = 4 << 10

// stores are the tables and logs under a directory.
func stores(dir string) (out []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if ext := filepath.Ext(path); err == nil && info.Size() >= fileMin && (ext == ".sst" || ext == ".log") {
			out = append(out, path)
		}
		return err
	})
	return out, err
}

func flipIn(path string, r *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	one := make([]byte, 1)
	at := r.Int64N(info.Size() / 2)
	if _, err := f.ReadAt(one, at); err != nil {
		return err
	}
	one[0] ^= 1 << r.IntN(8)
	_, err = f.WriteAt(one, at)
	return errors.Join(err, f.Sync())
}

// rotate replaces the authority, keeps the old one trusted, and gives every
// process a certificate of the new one.
func rotate(_ context.Context, w *world.World, _ Action) error {
	authority, err := pki.LoadAuthority(filepath.Join(w.Data, "ca"))
	if err != nil {
		return err
	}
	if err := authority.Rotate(); err != nil {
		return err
	}
	for _, p := range w.Topology.Processes {
		if err := issue(w, authority, p); err != nil {
			return err
		}
	}
	return nil
}

func tlsDir(w *world.World, p topology.Process) string {
	return filepath.Join(w.Data, p.Carrier, p.Name, "tls")
}

func issue(w *world.World, authority *pki.Authority, p topology.Process) error {
	host, _, err := net.SplitHostPort(p.HTTP)
	if err != nil {
		return err
	}
	_, err = authority.Issue(tlsDir(w, p), p.Name, host, "127.0.0.1", "localhost")
	return err
}

// expire gives a process a certificate that is over.
func expire(_ context.Context, w *world.World, a Action) error { return reissue(w, a.On, -time.Hour) }

// renew gives it a good one.
func renew(_ context.Context, w *world.World, a Action) error { return reissue(w, a.On, 0) }

func reissue(w *world.World, name string, life time.Duration) error {
	authority, err := pki.LoadAuthority(filepath.Join(w.Data, "ca"))
	if err != nil {
		return err
	}
	p, ok := w.Topology.Find(name)
	if !ok {
		return fmt.Errorf("no process is called %s", name)
	}
	authority.Life = life
	return issue(w, authority, p)
}

// certified holds every certificate (of one process, or of all) to the clock.
func certified(_ context.Context, w *world.World, a Action) error {
	for _, p := range w.Topology.Processes {
		if a.On != "" && p.Name != a.On {
			continue
		}
		end, err := pki.Expiry(pki.Files{Cert: filepath.Join(tlsDir(w, p), p.Name+".pem")})
		if err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("the certificate of %s is over since %s", p.Name, end)
		}
	}
	return nil
}

// publish gives bytes to a carrier's broker on the road of its facts.
func publish(_ context.Context, w *world.World, a Action) error {
	backbones := w.Topology.Select(a.On, "backbone")
	if len(backbones) == 0 {
		return fmt.Errorf("%s has no broker of its own", a.On)
	}
	b := backbones[0]
	dir := tlsDir(w, b)
	files := pki.Files{CA: filepath.Join(w.Data, "ca", "ca.pem"), Cert: filepath.Join(dir, b.Name+".pem"), Key: filepath.Join(dir, b.Name+".key")}
	url, options := "nats://"+b.NATS, []nats.Option{nats.Timeout(5 * time.Second), nats.Name("drill")}
	if _, err := os.Stat(files.Key); err == nil {
		config, err := pki.Client(files)
		if err != nil {
			return err
		}
		url, options = strings.Replace(url, "nats:", "tls:", 1), append(options, nats.Secure(config))
	}
	conn, err := nats.Connect(url, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, subsystem := range []string{"nucleic", "vaccine", "display"} {
		if err := conn.Publish("fact."+a.On+"."+subsystem+".0", a.Bytes); err != nil {
			return err
		}
	}
	return conn.FlushTimeout(5 * time.Second)
}
