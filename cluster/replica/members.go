package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"qianma/cluster/member"
	"qianma/cluster/problem"
)

// Member is one raft server of a group.
type Member = member.Member

// members of the group as far as this replica knows; none before it is formed.
func (g *group) members() []Member {
	ra := g.raft()
	if ra == nil {
		return nil
	}
	var out []Member
	for _, s := range ra.GetConfiguration().Configuration().Servers {
		name, life := splitID(s.ID)
		out = append(out, Member{Name: name, Life: life, Voter: s.Suffrage == raft.Voter})
	}
	return out
}

// isMember reports whether this life of this process is in the group.
func (g *group) isMember() bool {
	return slices.ContainsFunc(g.members(), func(m Member) bool { return serverID(m.Name, m.Life) == g.self })
}

func (g *group) hello() hello {
	h := hello{life: g.r.life, applied: g.applied(), members: g.members(), leads: g.ready.Load() != 0}
	h.formed = len(h.members) > 0
	h.leader, _ = g.leader()
	h.last, _ = g.logs.LastIndex()
	if ra := g.raft(); ra != nil {
		h.term = ra.CurrentTerm()
		if ra.State() != raft.Leader {
			h.silent = time.Since(ra.LastContact())
		}
	}
	return h
}

func (g *group) askHello(ctx context.Context, process string) (hello, error) {
	ctx, cancel := context.WithTimeout(ctx, g.r.cfg.Tuning.RPCTimeout)
	defer cancel()
	e := newEnc()
	e.num(uint64(g.shard))
	raw, err := g.r.cfg.Calls.Call(ctx, process, methodHello, e.b)
	if err != nil {
		return hello{}, err
	}
	return decodeHello(raw)
}

// form brings this replica into its group.
//
// A group is formed once, by the first of its Peers, when every other peer has
// said that it has never been part of one. Members are named with the life of
// their directory, so a peer that later comes back empty is not a member: it
// neither votes nor forms a second group, but asks the leader to put its new
// life in the place of the old one.
func (g *group) form() {
	for g.ctx.Err() == nil {
		if g.isMember() {
			return
		}
		if err := g.formOnce(g.members()); err != nil {
			g.log.Debug("not in the group yet", "error", err)
		}
		pause(g.ctx, 100*time.Millisecond)
	}
}

var errWaiting = errors.New("replica: waiting for the other peers")

func (g *group) formOnce(known []Member) error {
	var missing error
	fresh := []Member{{Name: g.r.cfg.Name, Life: g.r.life, Voter: true}}
	asked := slices.Clone(g.r.cfg.Peers)
	for _, m := range known {
		asked = append(asked, m.Name)
	}
	slices.Sort(asked)
	for _, p := range slices.Compact(asked) {
		if p == g.r.cfg.Name {
			continue
		}
		h, err := g.askHello(g.ctx, p)
		switch {
		case err != nil:
			missing = errors.Join(missing, fmt.Errorf("%s: %w", p, err))
		case h.formed:
			return g.rejoin(h)
		default:
			fresh = append(fresh, Member{Name: p, Life: h.life, Voter: true})
		}
	}
	switch {
	case missing != nil:
		return missing
	case g.r.cfg.Peers[0] != g.r.cfg.Name:
		return errWaiting
	}
	return g.bootstrap(fresh)
}

func (g *group) bootstrap(members []Member) error {
	var conf raft.Configuration
	for _, m := range members {
		id := serverID(m.Name, m.Life)
		conf.Servers = append(conf.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	ra, done, err := g.use()
	if err != nil {
		return err
	}
	defer done()
	return ra.BootstrapCluster(conf).Error()
}

// rejoin asks to take the place of this process's former life.
func (g *group) rejoin(h hello) error {
	i := slices.IndexFunc(h.members, func(m Member) bool { return m.Name == g.r.cfg.Name })
	switch {
	case i < 0:
		return errors.New("replica: this process is not a member; an operator must add it")
	case h.members[i].Life == g.r.life:
		return errWaiting // the leader is about to call
	case h.leader == "":
		return errors.New("replica: the group has no leader")
	}
	// Replacing takes as long as copying the state does; the answer is not
	// waited for, it is seen in the configuration.
	e := newEnc()
	e.num(uint64(g.shard))
	e.str(g.r.cfg.Name)
	e.str(g.r.life)
	ctx, cancel := context.WithTimeout(g.ctx, g.r.cfg.Tuning.RPCTimeout)
	defer cancel()
	_, err := g.r.cfg.Calls.Call(ctx, h.leader, methodReplace, e.b)
	return err
}

// change asks raft for one change of the membership and waits for its commit.
func (g *group) change(f func(*raft.Raft) raft.Future) error {
	ra, done, err := g.use()
	if err != nil {
		return err
	}
	defer done()
	if g.ready.Load() == 0 {
		return errNotLeader
	}
	switch err := f(ra).Error(); {
	case err == nil:
		return nil
	case surelyNot(err):
		return errNotLeader
	default:
		return problem.Wrap(err, problem.Unknown, "the membership may or may not have changed", "look at the status and try again")
	}
}

// add takes a process into the group: first as a follower without a vote, so
// that it does not count while it is empty, then as a voter when it has caught
// up. A former life of the process leaves first. It may be repeated.
func (g *group) add(ctx context.Context, name string) error {
	h, err := g.askHello(ctx, name)
	if err != nil {
		return problem.Wrap(err, problem.Unavailable, "the process to add does not answer", "start it, then try again")
	}
	return g.addLife(ctx, name, h.life)
}

func (g *group) addLife(ctx context.Context, name, life string) error {
	if !g.changing.CompareAndSwap(false, true) {
		return problem.New(problem.Overloaded, "another change of the membership is under way", "wait for it, then try again").After(millis(1000))
	}
	defer g.changing.Store(false)
	id := serverID(name, life)
	timeout := g.r.cfg.Tuning.RPCTimeout
	voter, member := false, false
	for _, m := range g.members() {
		switch {
		case m.Name != name:
		case m.Life == life:
			member, voter = true, m.Voter
		default:
			old := serverID(m.Name, m.Life)
			if err := g.change(func(ra *raft.Raft) raft.Future { return ra.RemoveServer(old, 0, timeout) }); err != nil {
				return err
			}
			g.log.Info("a member lost its disk; its new life takes its place", "member", name)
		}
	}
	if voter {
		return nil
	}
	if !member {
		err := g.change(func(ra *raft.Raft) raft.Future { return ra.AddNonvoter(id, raft.ServerAddress(id), 0, timeout) })
		if err != nil {
			return err
		}
	}
	if err := g.awaitCaughtUp(ctx, name, life); err != nil {
		return err
	}
	return g.change(func(ra *raft.Raft) raft.Future { return ra.AddVoter(id, raft.ServerAddress(id), 0, timeout) })
}

// caughtUp is how many entries behind a follower may be to get a vote.
const caughtUp = 256

func (g *group) awaitCaughtUp(ctx context.Context, name, life string) error {
	for {
		if h, err := g.askHello(ctx, name); err == nil && h.life == life && h.formed && h.applied+caughtUp > g.applied() {
			return nil
		}
		if g.ready.Load() == 0 {
			return errNotLeader
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil || g.ctx.Err() != nil {
			return problem.Wrap(ctx.Err(), problem.Unavailable, "the new member has not caught up yet; it follows without a vote", "repeat the request to go on")
		}
	}
}

// replace serves rejoin: only a process that is a member by name gets in.
func (g *group) replace(name, life string) error {
	if g.ready.Load() == 0 {
		return errNotLeader
	}
	i := slices.IndexFunc(g.members(), func(m Member) bool { return m.Name == name })
	if i < 0 {
		return problem.New(problem.NotFound, "that process is not a member of the group", "add it as a member")
	}
	g.spawn(func() {
		ctx, cancel := context.WithTimeout(g.ctx, replacePatience)
		defer cancel()
		if err := g.addLife(ctx, name, life); err != nil {
			g.log.Info("a member's new life is not in its place yet", "member", name, "error", err)
		}
	})
	return nil
}

// replacePatience bounds one try to bring a member's new life in; the member
// asks again.
const replacePatience = 10 * time.Minute

// remove takes a process out of the group.
func (g *group) remove(name string) error {
	members := g.members()
	i := slices.IndexFunc(members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	if len(members) == 1 {
		return problem.New(problem.Invalid, "the last member of a group cannot be removed", "add another member first")
	}
	id := serverID(name, members[i].Life)
	return g.change(func(ra *raft.Raft) raft.Future { return ra.RemoveServer(id, 0, g.r.cfg.Tuning.RPCTimeout) })
}
