package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"qianma/cluster/node"
	"qianma/cluster/web"
)

type fake struct {
	why    error
	closed bool
}

func (f *fake) Wait(ctx context.Context) error {
	if f.why != nil {
		return f.why
	}
	<-ctx.Done()
	return nil
}

func (f *fake) Close() error { f.closed = true; return nil }

func start(t *testing.T, ctx context.Context, f *fake, args ...string) (int, string) {
	t.Helper()
	var out strings.Builder
	code := run(ctx, "testd", "a test", args, &out, func(node.Config) (Service, error) { return f, nil })
	return code, out.String()
}

func configFile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "config.json")
	raw := `{"name":"unicom-test-1","carrier":"unicom","subsystem":"test","dir":"d","http":"127.0.0.1:0","topology":"t","insecure":true}`
	if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStopsInOrderOnASignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := new(fake)
	if code, out := start(t, ctx, f, "--config", configFile(t)); code != exitOK || !f.closed {
		t.Errorf("exit %d, closed %v\n%s", code, f.closed, out)
	}
}

// Goal: a crowd at the door does not have the collector run without end. Method: the
// heap's limit is read while a daemon runs whose configuration names none.
func TestTheHeapHasRoomForACrowd(t *testing.T) {
	was := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(was)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start(t, ctx, new(fake), "--config", configFile(t))
	if got, want := debug.SetMemoryLimit(-1), int64(256+web.CrowdMiB)<<20; got != want {
		t.Errorf("the heap is limited to %d bytes, wanted %d", got, want)
	}
}

func TestSaysWhyItHadToStop(t *testing.T) {
	f := &fake{why: errors.New("fsync failed")}
	if code, out := start(t, t.Context(), f, "--config", configFile(t)); code != exitFault || !strings.Contains(out, "fsync failed") || !f.closed {
		t.Errorf("exit %d, closed %v\n%s", code, f.closed, out)
	}
}

func TestUsage(t *testing.T) {
	for want, args := range map[int][]string{
		exitOK:    {"--help"},
		exitUsage: {"--nonsense"},
	} {
		if code, _ := start(t, t.Context(), new(fake), args...); code != want {
			t.Errorf("%v: exit %d, want %d", args, code, want)
		}
	}
	if code, out := start(t, t.Context(), new(fake), "--config", "/nowhere"); code != exitUsage || !strings.Contains(out, "/nowhere") {
		t.Errorf("exit %d\n%s", code, out)
	}
}
