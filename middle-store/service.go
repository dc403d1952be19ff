// Package middlestore is the middle store as a daemon: it follows the facts of
// nucleic and vaccine at both carriers, folds them, and answers what display
// asks.
//
// It promises what its parts promise (see DESIGN.md), and that it answers
// nobody before it has once held all there was to hold. It needs neither
// nucleic nor vaccine to run: when they are gone it goes on answering with
// what it has, and says how old that is.
package middlestore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"qianma/cluster/feed"
	"qianma/cluster/node"
	"qianma/cluster/replica"
	"qianma/cluster/topology"
	"qianma/cluster/web"
	"qianma/middle-store/fold"
	"qianma/middle-store/middlestorepb"
	"qianma/middle-store/serve"
	"qianma/middle-store/store"
)

// subsystem is how the topology calls middle stores.
const subsystem = "middlestore"

// follows are the subsystems whose facts are folded.
var follows = []string{fold.Nucleic, fold.Vaccine}

// tailBytes is how much of what was taken last is kept for replicas: some
// 30,000 facts, seconds of a busy morning. They ask once a second.
const tailBytes = 8 << 20

// Service is one running middle store.
type Service struct {
	*node.Base
	server *serve.Server
	config store.Config
	tail   *feed.Tail // for replicas that lack what was taken last

	cancel context.CancelFunc
	work   sync.WaitGroup

	mu        sync.Mutex
	store     *store.Store // nil while a peer is being copied
	followers map[string]*feed.Follower
	diverged  []feed.Divergence // bounded; kept for operations
	began     time.Duration     // when following began, of Elapsed
}

// Open opens the store and the doors, and begins to follow. A store that is
// not complete is completed first, behind the open doors.
func Open(cfg node.Config) (*Service, error) {
	base, err := node.OpenBase(cfg)
	if err != nil {
		return nil, err
	}
	s := &Service{Base: base, tail: feed.NewTail(tailBytes), followers: map[string]*feed.Follower{}}
	s.config = store.Config{
		Dir: filepath.Join(cfg.Dir, "store"), FS: base.FS, Clock: base.Clock, Logger: base.Log, Fatal: base.Fatal,
		CacheBytes: max(cfg.MemoryMiB, 256) << 20 / 4,
	}
	if s.store, err = store.Open(s.config); err != nil {
		return nil, errors.Join(err, base.Close())
	}
	s.server = serve.New(serve.Config{Name: cfg.Name, Clock: base.Clock, Freshness: s.freshness})
	s.server.Register(base.RPC)
	replica.ServeSource(base.RPC, s.tail)
	s.server.RegisterHTTP(base.Web)
	s.publish()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.work.Go(func() {
		if err := s.run(ctx); err != nil && ctx.Err() == nil {
			base.Fatal(err)
		}
	})
	base.Serve()
	return s, nil
}

// Close ends the service: the doors, then what follows, then the store.
func (s *Service) Close() error {
	return s.CloseAround(func() (err error) {
		s.cancel()
		s.work.Wait()
		for _, f := range s.followers {
			err = errors.Join(err, f.Close())
		}
		if s.store != nil {
			err = errors.Join(err, s.store.Close())
		}
		return err
	})
}

// run brings the store to where it may answer.
func (s *Service) run(ctx context.Context) error {
	if !s.store.Complete() {
		if err := s.copyFromPeer(ctx); err != nil {
			return err
		}
	}
	if err := s.follow(); err != nil {
		return err
	}
	if !s.store.Complete() {
		if err := s.completed(ctx); err != nil {
			return err
		}
	}
	s.server.Use(s.store)
	s.Log.Info("answering", "facts", s.store.Facts())
	return nil
}

// copyFromPeer takes the store of another middle store, of this carrier
// first. With none to be had the store is left as it is, to be completed by
// replay.
func (s *Service) copyFromPeer(ctx context.Context) error {
	peers := s.peers()
	if len(peers) == 0 {
		return nil
	}
	s.mu.Lock()
	st := s.store
	s.store = nil
	s.mu.Unlock()
	if err := st.Close(); err != nil {
		return err
	}
	for _, p := range peers {
		start := s.Clock.Elapsed()
		facts, err := store.Take(ctx, s.config, serve.Peer{Calls: s.Calls, Name: p.Name, By: s.Config.Name})
		if err == nil {
			s.Log.Info("copied a peer's store", "peer", p.Name, "facts", facts, "took", s.Clock.Elapsed()-start)
			break
		}
		s.Log.Info("no copy to be had", "peer", p.Name, "why", err)
	}
	st, err := store.Open(s.config)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = st
	return nil
}

func (s *Service) peers() (out []topology.Process) {
	for _, carrier := range append([]string{s.Config.Carrier}, s.Topology.Others(s.Config.Carrier)...) {
		for _, p := range s.Topology.Select(carrier, subsystem) {
			if p.Name != s.Config.Name {
				out = append(out, p)
			}
		}
	}
	return out
}

// follow starts a follower for each shard of what is followed, at all
// carriers: live from the broker, the rest from any replica.
func (s *Service) follow() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = s.Clock.Elapsed()
	carriers := append([]string{s.Config.Carrier}, s.Topology.Others(s.Config.Carrier)...)
	for _, sub := range follows {
		for shard := range s.Topology.ShardsOf(sub) {
			cfg := feed.FollowerConfig{
				Name: fmt.Sprintf("%s/%d", sub, shard), Broker: s.Broker, Sink: s.tail.Before(s.store), OnDivergence: s.noteDivergence,
				Clock: s.Clock, Logger: s.Log, Metrics: s.Web.Metrics(), Gather: node.Gather,
			}
			for _, c := range carriers {
				cfg.Topics = append(cfg.Topics, feed.Topic{Carrier: c, Subsystem: sub, Shard: shard})
				cfg.Sources = append(cfg.Sources, s.Sources(c, sub, shard)...)
			}
			if len(cfg.Sources) == 0 {
				continue // a province without this subsystem
			}
			f, err := feed.OpenFollower(cfg)
			if err != nil {
				return err
			}
			s.followers[cfg.Name] = f
		}
	}
	return nil
}

const divergencesKept = 16

func (s *Service) noteDivergence(d feed.Divergence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.diverged) < divergencesKept {
		s.diverged = append(s.diverged, d)
	}
}

// The pace of asking whether the store has become complete, and how long the
// carriers that do not answer are waited for once one has. That is a few
// questions more than a carrier that starts together with this one needs: what
// one that is away holds alone comes when it does, and has no age until then.
const (
	completePace = 50 * time.Millisecond
	completeWait = 6 * time.Second
)

// completed waits until the store holds all that anybody reachable knows, and
// says so.
func (s *Service) completed(ctx context.Context) error {
	for !s.account().complete(s.wanted(), s.Clock.Elapsed()-s.began > completeWait) {
		select {
		case <-s.Clock.After(completePace):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.store.SetComplete()
}

// wanted is what the topology has of what is followed.
func (s *Service) wanted() (out []wanted) {
	for _, sub := range follows {
		for _, c := range s.Topology.Carriers {
			if len(s.Topology.Select(c, sub)) > 0 {
				out = append(out, wanted{group{c, sub}, s.Topology.ShardsOf(sub)})
			}
		}
	}
	return out
}

// account is what the followers know now.
func (s *Service) account() account {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := account{now: s.Clock.Now()}
	if s.store != nil {
		a.newest = s.store.Newest()
	}
	for _, f := range s.followers {
		a.lags = append(a.lags, f.Status().Origins...)
	}
	return a
}

func (s *Service) freshness() []middlestorepb.Freshness {
	return s.account().freshness(s.wanted())
}

// Status is GET /v1/status.
type Status struct {
	node.StatusAnswer
	Store    store.Status `json:"store"`
	Answers  bool         `json:"answers"`
	Diverged []string     `json:"diverged,omitempty"`
}

// publish adds what operations look at.
func (s *Service) publish() {
	s.Web.HandleClass(web.Operations, "GET /v1/marks", func(w http.ResponseWriter, _ *http.Request) error {
		return web.WriteJSON(w, http.StatusOK, s.marks())
	})
	s.Web.HandleClass(web.Operations, "GET /v1/status", func(w http.ResponseWriter, _ *http.Request) error {
		return web.WriteJSON(w, http.StatusOK, s.status())
	})
	s.Web.Check("store-is-complete", func(context.Context) error {
		if !s.server.Ready() {
			return errors.New("the store is being opened, copied or replayed: ask another replica")
		}
		return nil
	})
	s.Web.Check("facts-agree", func(context.Context) error {
		if d := s.status().Diverged; len(d) > 0 {
			return errors.New(d[0])
		}
		return nil
	})
	s.Web.Metrics().MustRegister(collector{s})
}

func (s *Service) marks() node.MarksAnswer {
	a := node.MarksAnswer{Process: s.Config.Name, Origins: map[string]node.MarkJSON{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store != nil {
		node.Marks(s.store.Marks(), a.Origins)
	}
	return a
}

func (s *Service) status() Status {
	a := Status{StatusAnswer: s.Describe(), Answers: s.server.Ready()}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.followers {
		a.Feeds[name] = f.Status()
	}
	if s.store != nil {
		a.Store = s.store.Status()
	}
	for _, d := range s.diverged {
		a.Diverged = append(a.Diverged, d.String())
	}
	return a
}

// collector shows the store to Prometheus.
type collector struct{ s *Service }

var (
	factsDesc  = desc("facts", "Facts folded, over all origins.")
	foldedDesc = desc("folded_facts_total", "Facts folded since the start.")
	asideDesc  = desc("aside_facts", "Facts that this build does not understand, kept for one that does.")
	diskDesc   = desc("disk_bytes", "Size of the store on disk.")
	copiesDesc = desc("copies", "Copies held still for peers.")
	readyDesc  = desc("answers", "1 while lookups are answered.")
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("qianma_middlestore_"+name, help, nil, nil)
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{factsDesc, foldedDesc, asideDesc, diskDesc, copiesDesc, readyDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.status()
	ready := 0.0
	if st.Answers {
		ready = 1
	}
	ch <- prometheus.MustNewConstMetric(foldedDesc, prometheus.CounterValue, float64(st.Store.Folded))
	for d, v := range map[*prometheus.Desc]float64{
		factsDesc: float64(st.Store.Facts), asideDesc: float64(st.Store.Aside), diskDesc: float64(st.Store.Disk),
		copiesDesc: float64(st.Store.Copies), readyDesc: ready,
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
}
