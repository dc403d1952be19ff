package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"qianma/loadtest/cost"
	"qianma/loadtest/drive"
)

// pgSettings are those PostgreSQL 15's own documentation advises for a durable
// primary with synchronous standbys: "Resource Consumption" (a share of the
// memory for buffers), "WAL Configuration" (checkpoints far apart),
// "Synchronous Replication" (quorum commit). Nothing that weakens durability.
var pgSettings = []string{
	"fsync=on",
	"full_page_writes=on",
	"synchronous_commit=on", // with standbys named: flushed there too
	"shared_buffers=2GB",
	"effective_cache_size=6GB",
	"wal_buffers=16MB",
	"wal_compression=lz4",
	"max_wal_size=8GB",
	"min_wal_size=2GB",
	"checkpoint_timeout=15min",
	"checkpoint_completion_target=0.9",
	"random_page_cost=1.1",
	"jit=off",
	"max_connections=300",
	"max_wal_senders=10",
	"wal_level=replica",
	"hot_standby=on",
	"autovacuum=on",
	"listen_addresses=''", // Unix sockets: the cheapest way in
	"log_checkpoints=off",
}

const quorum = "synchronous_standby_names='ANY 1 (s1, s2)'"

const pgSchema = `
create table if not exists registrations (
	tube bigint not null, person uuid not null, pool smallint not null, site text not null,
	sampled_at bigint not null, channel smallint not null, operator text not null,
	primary key (tube, person));
create table if not exists results (
	tube bigint not null, revision smallint not null, lab text not null, outcome smallint not null,
	tested_at bigint not null, reported_at bigint not null, method text not null,
	primary key (tube, revision, lab));
create table if not exists latest (
	person uuid primary key, tube bigint not null, pool smallint not null, sampled_at bigint not null
) with (fillfactor = 80);`

// One statement a test: the registration, and the person's newest test.
const pgRegister = `with r as (
	insert into registrations values ($1, $2, $3, $4, $5, 2, $6) on conflict do nothing)
insert into latest values ($2, $1, $3, $5) on conflict (person) do update
	set tube = excluded.tube, pool = excluded.pool, sampled_at = excluded.sampled_at
	where latest.sampled_at < excluded.sampled_at`

const pgRegisterBatch = `with rows as (
	select * from unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bigint[]) as t(tube, person, pool, sampled_at)),
r as (insert into registrations select tube, person, pool, $5, sampled_at, 2, $6 from rows on conflict do nothing)
insert into latest select distinct on (person) person, tube, pool, sampled_at from rows order by person, sampled_at desc
on conflict (person) do update
	set tube = excluded.tube, pool = excluded.pool, sampled_at = excluded.sampled_at
	where latest.sampled_at < excluded.sampled_at`

const pgReport = `insert into results values ($1, 1, $2, $3, $4, $4, 'pcr') on conflict do nothing`

const pgReportBatch = `insert into results
	select tube, 1, $4, outcome, at, at, 'pcr' from unnest($1::bigint[], $2::smallint[], $3::bigint[]) as t(tube, outcome, at)
	on conflict do nothing`

const pgRead = `select l.sampled_at, l.pool, coalesce(r.outcome, 0)
	from latest l left join results r on r.tube = l.tube where l.person = $1`

const pgTube = `select count(*) from registrations where tube = $1`

// pgUser is who a server runs as when we are root, which it refuses to be.
const pgUser = "postgres"

type pgServer struct {
	dir  string
	port int
}

type pgCluster struct {
	dir     string
	bin     string
	servers []pgServer // primary, s1, s2
}

func startPostgres(ctx context.Context, dir string, extra []string) (*Peer, error) {
	c := &pgCluster{dir: dir}
	if err := c.up(ctx, extra); err != nil {
		return nil, errors.Join(err, c.down())
	}
	version, _ := exec.CommandContext(ctx, filepath.Join(c.bin, "postgres"), "--version").Output()
	return &Peer{
		Name:   "postgres",
		Places: []string{"primary", "standby"},
		Settings: map[string]any{
			"version":  strings.TrimSpace(string(version)),
			"settings": append(append(append([]string{}, pgSettings...), quorum), extra...),
			"shape":    "primary and two standbys, quorum commit",
			"client":   "the driver's thread over epoll, prepared statements, binary, Unix sockets",
		},
		Processes: c.processes,
		Target:    c.target,
		Close:     c.down,
	}, nil
}

// findPostgres finds the programs of PostgreSQL where distributions put them.
func findPostgres() (string, error) {
	for _, dir := range []string{"/usr/lib/postgresql/15/bin", "/usr/pgsql-15/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("PostgreSQL 15 is not installed (Debian: apt-get install postgresql-15; make bench-peers does it)")
	}
	return filepath.Dir(path), nil
}

func (c *pgCluster) up(ctx context.Context, extra []string) error {
	var err error
	if c.bin, err = findPostgres(); err != nil {
		return err
	}
	if err := c.own(); err != nil {
		return err
	}
	primary, err := c.add("primary")
	if err != nil {
		return err
	}
	if err := c.run(ctx, "initdb", "-D", primary.dir, "-A", "trust", "-U", pgUser, "--no-instructions", "--encoding=UTF8", "--locale=C"); err != nil {
		return err
	}
	conf := strings.Join(append(append([]string{"unix_socket_directories='" + c.dir + "'"}, pgSettings...), extra...), "\n") + "\n"
	if err := c.configure(primary, conf); err != nil {
		return err
	}
	if err := c.start(ctx, primary); err != nil {
		return err
	}
	for _, name := range []string{"s1", "s2"} {
		if err := c.standby(ctx, primary, name); err != nil {
			return err
		}
	}
	if err := c.prepare(ctx, primary); err != nil {
		return err
	}
	writeBack()
	return nil
}

// own gives the directory to whoever will run the servers.
func (c *pgCluster) own() error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	id, ok, err := servant()
	if err != nil || !ok {
		return err
	}
	return os.Chown(c.dir, int(id.Uid), int(id.Gid))
}

func (c *pgCluster) add(name string) (pgServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return pgServer{}, err
	}
	s := pgServer{dir: filepath.Join(c.dir, name), port: l.Addr().(*net.TCPAddr).Port}
	c.servers = append(c.servers, s)
	return s, l.Close()
}

func (c *pgCluster) configure(s pgServer, conf string) error {
	f, err := os.OpenFile(filepath.Join(s.dir, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "port=%d\n%s", s.port, conf)
	return errors.Join(err, f.Close())
}

func (c *pgCluster) start(ctx context.Context, s pgServer) error {
	return c.run(ctx, "pg_ctl", "-D", s.dir, "-w", "-t", "120", "-l", filepath.Join(s.dir, "log"), "start")
}

func (c *pgCluster) standby(ctx context.Context, primary pgServer, name string) error {
	s, err := c.add(name)
	if err != nil {
		return err
	}
	from := fmt.Sprintf("host=%s port=%d user=%s application_name=%s", c.dir, primary.port, pgUser, name)
	if err := c.run(ctx, "pg_basebackup", "-D", s.dir, "-X", "stream", "-c", "fast", "-R", "-d", from); err != nil {
		return err
	}
	if err := c.configure(s, ""); err != nil {
		return err
	}
	return c.start(ctx, s)
}

// prepare makes the tables, then asks for the quorum, and waits until both
// standbys are part of it.
func (c *pgCluster) prepare(ctx context.Context, primary pgServer) error {
	conn, err := pgx.Connect(ctx, c.dsn(primary))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, pgSchema); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "alter system set "+strings.Replace(quorum, "=", " = ", 1)); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "select pg_reload_conf()"); err != nil {
		return err
	}
	for {
		var n int
		err := conn.QueryRow(ctx, "select count(*) from pg_stat_replication where sync_state = 'quorum'").Scan(&n)
		if err != nil || n == 2 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *pgCluster) dsn(s pgServer) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", c.dir, s.port, pgUser)
}

func (c *pgCluster) processes() ([]cost.Process, error) {
	var out []cost.Process
	for i, s := range c.servers {
		raw, err := os.ReadFile(filepath.Join(s.dir, "postmaster.pid"))
		if err != nil {
			return nil, err
		}
		line, _, _ := strings.Cut(string(raw), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		role := "primary"
		if i > 0 {
			role = "standby"
		}
		out = append(out, cost.Process{Name: filepath.Base(s.dir), Role: role, PID: pid, Tree: true})
	}
	return out, nil
}

// target reads at the primary and at the first standby.
func (c *pgCluster) target(workers int, limit time.Duration) (drive.Target, error) {
	var configs []*pgconn.Config
	for _, s := range c.servers[:2] {
		config, err := pgconn.ParseConfig(c.dsn(s))
		if err != nil {
			return nil, err
		}
		configs = append(configs, config)
	}
	return openPostgres(configs, workers, limit)
}

func (c *pgCluster) down() error {
	var errs []error
	for i := len(c.servers) - 1; i >= 0; i-- {
		s := c.servers[i]
		if _, err := os.Stat(filepath.Join(s.dir, "postmaster.pid")); err == nil {
			errs = append(errs, c.run(context.Background(), "pg_ctl", "-D", s.dir, "-m", "fast", "-w", "stop"))
		}
	}
	return errors.Join(errs...)
}

// run runs one of PostgreSQL's programs as its own user.
func (c *pgCluster) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	if err := serve(cmd); err != nil {
		return err
	}
	// A server started in the background keeps its standard output open, so
	// it must not be a pipe that we wait for.
	log, err := os.CreateTemp(c.dir, program+"-*.log")
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(said)))
	}
	return nil
}
