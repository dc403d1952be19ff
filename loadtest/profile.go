package loadtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"qianma/loadtest/internal/crash"
)

// profileProcesses takes a CPU profile of every process of the province, and
// of this one, over the middle of the run. Of several generators each takes its
// own, and who started them takes the province's. The function it returns waits for
// them; what could not be had is left out.
func (c *RunCommand) profileProcesses(ctx context.Context, s System) func() {
	if !c.Pprof || s.Endpoints == nil {
		return func() {}
	}
	dir := filepath.Join(c.Out, "pprof")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return func() {}
	}
	wait, length := c.Duration/4, max(time.Second, min(c.Duration/2, 30*time.Second))
	var wg sync.WaitGroup
	if c.Generators <= 1 {
		wg.Go(func() {
			defer crash.Guard()
			profileSelf(ctx, filepath.Join(dir, "generator.pb.gz"), wait, length)
		})
	}
	if c.Unmetered {
		return wg.Wait
	}
	for carrier, subsystems := range s.Endpoints.Carriers {
		for subsystem, bases := range subsystems {
			for i, base := range bases {
				path := filepath.Join(dir, fmt.Sprintf("%s-%s-%d.pb.gz", carrier, subsystem, i+1))
				url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", base, int(length.Seconds()))
				wg.Go(func() {
					defer crash.Guard()
					fetchProfile(ctx, url, path, wait, length+30*time.Second)
				})
			}
		}
	}
	return wg.Wait
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func profileSelf(ctx context.Context, path string, wait, length time.Duration) {
	if !sleep(ctx, wait) {
		return
	}
	f, err := os.Create(path)
	if err != nil {
		return
	}
	defer f.Close()
	if pprof.StartCPUProfile(f) == nil {
		sleep(ctx, length)
		pprof.StopCPUProfile()
	}
}

func fetchProfile(ctx context.Context, url, path string, wait, limit time.Duration) {
	if !sleep(ctx, wait) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return
	}
	f, err := os.Create(path)
	if err != nil {
		return
	}
	_, err = io.Copy(f, io.LimitReader(res.Body, 64<<20))
	if closed := f.Close(); err != nil || closed != nil {
		_ = os.Remove(path)
	}
}
