// Package fake is a daemon for tests: it listens, answers /readyz, keeps a
// file in its data directory, and does what it is told over HTTP, such as
// leaving with an exit code. A test binary becomes one when it is started as
// `<name> --config FILE`; see Main.
package fake

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// OrderFile is the environment variable that names a file to which every
// daemon that is asked to leave adds its name.
const OrderFile = "QIANMA_FAKE_ORDER"

// ownerVariable is the environment variable that names the test everything belongs to.
const ownerVariable = "QIANMA_FAKE_OWNER"

// Own makes this process the owner of every fake daemon started from now on: a
// test that is killed leaves none behind.
func Own() { os.Setenv(ownerVariable, strconv.Itoa(os.Getpid())) }

// Belong ends this process when its owner ends.
func Belong() {
	pid, err := strconv.Atoi(os.Getenv(ownerVariable))
	if err != nil {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		os.Exit(4) // it has ended already
	}
	go func() {
		for {
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); n > 0 || err != unix.EINTR {
				os.Exit(4)
			}
		}
	}()
}

// Config is the part of a daemon's configuration that a fake one reads.
type Config struct {
	Name  string `json:"name"`
	Dir   string `json:"dir"`
	HTTP  string `json:"http"`
	Crash string `json:"crash"` // last words of a daemon that cannot start
}

// Main runs a fake daemon and ends the process if that is what it was started
// as; otherwise it returns.
func Main() {
	if len(os.Args) != 3 || os.Args[1] != "--config" {
		return
	}
	Belong()
	if err := run(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

func run(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	if c.Crash != "" {
		return errors.New(c.Crash)
	}
	if err := born(c.Dir); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.HTTP)
	if err != nil {
		return err
	}
	d := &daemon{c: c, term: make(chan os.Signal, 1)}
	signal.Notify(d.term, syscall.SIGTERM)
	server := &http.Server{Handler: d.handler()}
	go d.leave(server)
	fmt.Println(c.Name, "listens")
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// born leaves a word in an empty data directory that tells this life of it
// from the next.
func born(dir string) error {
	path := filepath.Join(dir, "born")
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return os.WriteFile(path, []byte(rand.Text()), 0o600)
}

type daemon struct {
	c        Config
	term     chan os.Signal
	unready  atomic.Bool
	stubborn atomic.Bool
}

func (d *daemon) leave(server *http.Server) {
	for range d.term {
		if d.stubborn.Load() {
			continue
		}
		if path := os.Getenv(OrderFile); path != "" {
			if f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
				fmt.Fprintln(f, d.c.Name)
				f.Close()
			}
		}
		_ = server.Shutdown(context.Background())
		return
	}
}

func (d *daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if d.unready.Load() {
			http.Error(w, "[-] leader: none known", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "[+] leader ok\n")
	})
	mux.HandleFunc("POST /fake/unready", func(http.ResponseWriter, *http.Request) { d.unready.Store(true) })
	mux.HandleFunc("POST /fake/ready", func(http.ResponseWriter, *http.Request) { d.unready.Store(false) })
	mux.HandleFunc("POST /fake/stubborn", func(http.ResponseWriter, *http.Request) { d.stubborn.Store(true) })
	mux.HandleFunc("POST /fake/exit", func(_ http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(os.Stderr, r.FormValue("words"))
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("POST /fake/say", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(os.Stdout, r.Body)
	})
	mux.HandleFunc("GET /v1/marks", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"process":%q,"origins":{},"shards":[]}`, d.c.Name)
	})
	return mux
}
