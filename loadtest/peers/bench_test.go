//go:build linux

package peers

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"qianma/loadtest/drive"
)

const benchDir = "QIANMA_PG_FAKE"

// The benchmark's server is this binary again, a process of its own, so that the
// processor time of this one is the client's alone.
func init() {
	dir := os.Getenv(benchDir)
	if dir == "" {
		return
	}
	if _, err := listenFake(dir, func(s *pgSession) { s.done() }); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // the parent holds the other end; when it goes, so do we
	os.Exit(0)
}

func fakeProcess(b *testing.B) *pgconn.Config {
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchDir+"="+dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait(); os.RemoveAll(dir) })
	line := make([]byte, 64)
	if n, err := out.Read(line); err != nil || strings.TrimSpace(string(line[:n])) != "ready" {
		b.Fatal(string(line[:n]), err)
	}
	return (&pgFake{dir: dir}).config(b)
}

func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const inFlight = 24

// BenchmarkPostgresClients reports what a registration costs the client, system
// calls included: on the driver's thread, and from a goroutine for each
// connection over pgx.
func BenchmarkPostgresClients(b *testing.B) {
	config := fakeProcess(b)
	for _, c := range []struct {
		name string
		rows int
		run  func(*testing.B, *pgconn.Config, int)
	}{{"loop", 1, benchLoop}, {"loop-batch", 100, benchLoop}, {"pgx", 1, benchPGX}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			before := spent()
			c.run(b, config, c.rows)
			b.ReportMetric(float64((spent()-before).Nanoseconds())/1000/float64(b.N), "cpu-µs/op")
		})
	}
}

func benchLoop(b *testing.B, config *pgconn.Config, rows int) {
	target, err := openPostgres([]*pgconn.Config{config}, inFlight, time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	defer target.Close()
	target.Begin(time.Now())
	started, ended := 0, 0
	next := func(op *drive.Op) { started++; target.Start(op) }
	for range min(inFlight, b.N) {
		op := register(1)
		if rows > 1 {
			op.Kind, op.Samples = drive.RegisterBatch, make([]drive.Sample, rows)
		}
		next(op)
	}
	for ended < b.N {
		if err := target.Poll(time.Second, func(op *drive.Op) {
			if op.Outcome != drive.OK {
				b.Fatal(op.Code)
			}
			ended++
			if started < b.N {
				next(op)
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchPGX(b *testing.B, config *pgconn.Config, _ int) {
	ctx := context.Background()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	defer wg.Wait()
	for range inFlight {
		conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=test dbname=test sslmode=disable", config.Host, config.Port))
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close(ctx)
			for left.Add(-1) >= 0 {
				one, cancel := context.WithTimeout(ctx, time.Minute)
				_, err := conn.Exec(one, pgRegister, int64(1), person(1), int16(10), pgSite, int64(1), pgOperator)
				cancel()
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
}
