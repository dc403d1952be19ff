package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"syscall"

	"qianma/services/qianma/internal/control"
)

// probe asks the process whether it is ready for as long as it runs: often
// until it says yes, then seldom.
func (k *keeper) probe(c *child) {
	for {
		ready, reason := k.s.ask(k.spec.HTTP)
		k.mark(c, ready, reason)
		wait := k.s.tune.ProbeFast
		if ready {
			wait = k.s.tune.ProbeSlow
		}
		select {
		case <-k.s.clock.After(wait):
		case <-c.gone:
			return
		case <-k.s.ctx.Done():
			return
		}
	}
}

// mark notes the answer of a probe of that process.
func (k *keeper) mark(c *child, ready bool, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.child != c || k.state == control.Stopping {
		return
	}
	switch {
	case ready:
		k.reason = ""
		k.enterLocked(control.Ready)
	case k.state == control.Ready:
		k.reason = reason
		k.enterLocked(control.Unready)
	default:
		k.reason = reason
	}
}

// ask reads /readyz; when the answer is no it says why, as far as is known.
func (s *Supervisor) ask(addr string) (ready bool, reason string) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false, err.Error()
	}
	res, err := s.http.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, "does not listen yet"
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return false, "does not answer"
	case err != nil:
		return false, "does not answer: " + err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if res.StatusCode == http.StatusOK {
		return true, ""
	}
	return false, clip(complaints(string(body)), 200)
}

// complaints are the checks that failed: the lines that begin with "[-]".
func complaints(body string) string {
	var bad []string
	for line := range strings.Lines(body) {
		if why, failed := strings.CutPrefix(line, "[-]"); failed {
			bad = append(bad, strings.TrimSpace(why))
		}
	}
	if len(bad) == 0 {
		return "not ready"
	}
	return strings.Join(bad, "; ")
}

// housekeeping looks after what nobody asks about: directories that vanish,
// logs that grow, CPU that is used.
func (s *Supervisor) housekeeping() {
	for {
		select {
		case <-s.clock.After(s.tune.Tick):
		case <-s.ctx.Done():
			return
		}
		for _, k := range s.keepers {
			k.checkDir()
			k.measure()
			if err := rotate(k.spec.Log, s.tune.LogMax, s.tune.LogKeep); err != nil {
				k.say(slog.LevelWarn, "has a log that cannot be rotated: "+err.Error())
			}
		}
	}
}

// checkDir kills a process whose data directory was deleted or replaced under
// it. Such a process writes to files that no longer have names: everything
// it acknowledges would be gone with it.
func (k *keeper) checkDir() {
	k.mu.Lock()
	c, was := k.child, k.dir
	k.mu.Unlock()
	if c == nil || k.spec.Dir == "" {
		return
	}
	now, err := os.Stat(k.spec.Dir)
	lost := errors.Is(err, os.ErrNotExist) || (err == nil && was != nil && !os.SameFile(was, now))
	if !lost {
		return
	}
	k.say(slog.LevelWarn, "lost its data directory while it ran: killed, to start again with an empty one")
	_ = c.signal(syscall.SIGKILL)
}

// measure updates the cores used since the last look.
func (k *keeper) measure() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.child == nil {
		return
	}
	u, err := inspect(k.child.PID)
	if err != nil || u.Ticks != k.child.Ticks {
		return
	}
	now := k.s.clock.Now()
	if past := now.Sub(k.sampled); k.sample.PID == u.PID && past > 0 {
		fresh := (u.cpu - k.sample.cpu).Seconds() / past.Seconds()
		k.cores += (fresh - k.cores) / 3 // ticks are coarse: smooth over a few looks
	}
	k.sample, k.sampled = u, now
}

// rotate keeps a log within its bound. The file is copied and cut, because the
// process holds it open and must not be asked to open another; a line written
// in the instant between the two can be lost, which a log may be.
func rotate(path string, most int64, keep int) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() < most {
		return nil
	}
	name := func(i int) string { return fmt.Sprintf("%s.%d", path, i) }
	for i := keep; i > 1; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := copyFile(path, name(1)); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// lastWords is what a process said last, for the one line that tells of its
// end: the panic if there is one in the tail of its log, else the last line.
func lastWords(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 64 << 10
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	raw, _ := io.ReadAll(io.LimitReader(f, tail))
	words := raw[bytes.LastIndexByte(bytes.TrimRight(raw, "\n"), '\n')+1:]
	for _, sign := range []string{"\npanic: ", "\nfatal error: "} {
		if i := bytes.LastIndex(raw, []byte(sign)); i >= 0 {
			words, _, _ = bytes.Cut(raw[i+1:], []byte("\n"))
		}
	}
	return clip(strings.TrimSpace(string(words)), 240)
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
