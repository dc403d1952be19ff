package replica

import (
	"context"
	"errors"
	"sync"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/mishap"
	"qianma/cluster/problem"
)

// maxTries bounds how often a call is sent again after it was refused or lost.
// With the pauses in between it is far beyond an election; the caller's ctx
// usually ends first.
const maxTries = 1000

// patience is how long a call may wait for a leader, whatever its ctx allows.
const patience = 30 * time.Second

// dispatch is the group-commit batcher. Whatever has gathered while entries
// were under way, or within Gather of the last one, becomes the next entry;
// when nothing was sent lately, a call leaves at once. Calls are held while
// nobody is known to lead.
func (g *group) dispatch() {
	var sent time.Time
	for {
		select {
		case <-g.queue.wake:
		case <-g.ctx.Done():
			return
		}
		if !g.awaitRoute() {
			return
		}
		if wait := g.cool.Load() - time.Now().UnixNano(); wait > 0 {
			pause(g.ctx, min(coolDown, time.Duration(wait)))
		}
		select {
		case g.slots <- struct{}{}:
		case <-g.ctx.Done():
			return
		}
		g.gather(sent)
		sent = time.Now()
		g.send()
	}
}

// gather lets calls collect until Gather has passed since the last entry, or
// enough for a large one is waiting: an entry costs three replicas the same
// whether it carries one fact or a hundred.
func (g *group) gather(sent time.Time) {
	wait := g.r.cfg.Tuning.Gather - time.Since(sent)
	if wait > 0 && !g.queue.holds(g.r.cfg.Tuning.EntryBytes/4) {
		pause(g.ctx, wait)
	}
}

// awaitRoute waits until it is known where calls go; false when the group closes.
func (g *group) awaitRoute() bool {
	for {
		change := g.bell.wait()
		if to, here := g.route(); here || to != "" {
			return true
		}
		select {
		case <-change:
		case <-time.After(g.r.cfg.Tuning.Heartbeat): // the bell is a help, not the truth
		case <-g.ctx.Done():
			return false
		}
	}
}

// route says where calls go: here, to another process, or nowhere yet.
func (g *group) route() (to string, here bool) {
	if g.ready.Load() != 0 {
		return "", true
	}
	switch name, self := g.leader(); {
	case self:
		return "", false // elected, and not ready yet
	case name != "":
		return name, false
	}
	if h := g.hint.Load(); h != nil && time.Since(h.at) < hintAge {
		return h.leader, false
	}
	return "", false
}

// watchRoute lets go of whoever waits once nobody has been known to lead for so
// long that a caller does better to go elsewhere. routed is when calls last had
// somewhere to go; it returns that.
func (g *group) watchRoute(routed, now time.Time) time.Time {
	if to, here := g.route(); here || to != "" {
		return now
	}
	if now.Sub(routed) > g.r.cfg.Tuning.Leaderless {
		g.queue.expire(now)
	}
	return routed
}

// hint is who leads according to another process. It serves a process that is
// not a member (any more, or yet), whom raft tells nothing.
type hint struct {
	leader string
	at     time.Time
}

const hintAge = 2 * time.Second

// lookAround looks for a hint, if this process is outside its group.
func (g *group) lookAround() {
	if h := g.hint.Load(); h != nil && time.Since(h.at) < hintAge/2 {
		return
	}
	if name, _ := g.leader(); name != "" || g.isMember() || !g.probing.CompareAndSwap(false, true) {
		return
	}
	g.wait.Go(func() {
		defer g.probing.Store(false)
		for _, p := range g.r.cfg.Peers {
			if p == g.r.cfg.Name {
				continue
			}
			if h, err := g.askHello(g.ctx, p); err == nil && h.leader != "" && h.leader != g.r.cfg.Name {
				g.hint.Store(&hint{leader: h.leader, at: time.Now()})
				g.bell.ring()
				return
			}
		}
	})
}

// send takes what has gathered and lets it go; it holds one slot meanwhile.
func (g *group) send() {
	release := func() { <-g.slots }
	calls := g.queue.take(g.r.cfg.Tuning.EntryBytes, g.r.cfg.Tuning.EntryCommands)
	to, here := g.route()
	switch {
	case len(calls) == 0:
		release()
	case here:
		g.wait.Go(func() { defer release(); g.commit(calls) })
	case to == "":
		release()
		g.queue.back(calls)
	default:
		if calls = g.refuseForwarded(calls); len(calls) == 0 {
			release()
			return
		}
		g.wait.Go(func() { defer release(); g.forward(to, calls) })
	}
}

// told is what a caller may be told when a try ended so: that nothing was written
// is true of that try alone, if an earlier one was lost.
func (c *call) told(v verdict) verdict {
	if c.maybe && (problem.Is(v.err, problem.Unavailable) || problem.Is(v.err, problem.Overloaded)) {
		return verdict{err: outcomeUnknown(v.err)}
	}
	return v
}

// refuseForwarded answers calls that another replica sent here believing that
// this one leads; sending them on could go round for ever.
func (g *group) refuseForwarded(calls []*call) []*call {
	kept := calls[:0]
	for _, c := range calls {
		if c.here {
			c.answer <- c.told(verdict{err: errNotLeader})
		} else {
			kept = append(kept, c)
		}
	}
	return kept
}

// errLost is the cause of an outcome that the leader did not know, or did not say.
var errLost = errors.New("replica: the leader lost track of the write")

var errNotLeader = problem.New(problem.Unavailable, "this node does not lead the group", "ask another node").After(millis(50))

// commit makes one entry of the calls and hands each its verdict.
func (g *group) commit(calls []*call) {
	size, commands := headerSize, 0
	for _, c := range calls {
		size += c.size
		commands += len(c.proposal.Commands)
	}
	h := g.header(kindPropose)
	data := h.append(make([]byte, 0, size))
	for _, c := range calls {
		data = appendProposal(data, &c.proposal)
	}
	start := time.Now()
	answer, err := g.applyEntry(h.nonce, data)
	if err != nil {
		g.again(calls, err, surelyNot(err))
		return
	}
	m := g.r.metrics
	m.commit.Observe(time.Since(start).Seconds())
	m.gathered.Observe(float64(len(calls)))
	m.commands.Add(float64(commands))
	out, ok := answer.([]outcome)
	if !ok || len(out) != len(calls) {
		g.again(calls, errLost, false)
		return
	}
	for i, c := range calls {
		c.answer <- g.verdict(&out[i])
	}
}

func (g *group) verdict(o *outcome) verdict {
	if o.refused != "" {
		g.r.metrics.refused.WithLabelValues(string(o.refused)).Inc()
		return verdict{err: refusal(o.refused)}
	}
	return verdict{receipt: o.receipt}
}

func refusal(code problem.Code) error {
	if code == problem.KeyReused {
		return problem.New(code, "this idempotency key was used before with another body", "use a new key for a new request")
	}
	return problem.New(code, "the write was refused", "")
}

// forward sends the calls to the leader in one message. A leader that hangs is
// waited for until another leads.
func (g *group) forward(to string, calls []*call) {
	ctx, cancel := context.WithTimeout(g.ctx, 2*g.r.cfg.Tuning.RPCTimeout)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { g.desert(ctx, cancel, to) })
	raw, err := g.r.cfg.Calls.Call(ctx, to, methodPropose, encodeForward(g.shard, calls))
	if err != nil {
		g.again(calls, err, problem.Is(err, problem.Unavailable) || problem.Is(err, problem.Overloaded))
		return
	}
	out, err := decodeVerdicts(raw)
	if err != nil || len(out) != len(calls) {
		g.again(calls, errors.Join(errWire, err), false)
		return
	}
	var notDone, unknown []*call
	for i, c := range calls {
		switch v := out[i]; {
		case problem.Is(v.err, problem.Unavailable):
			notDone = append(notDone, c)
		case problem.Is(v.err, problem.Unknown):
			unknown = append(unknown, c)
		default:
			c.answer <- c.told(v)
		}
	}
	g.again(notDone, errNotLeader, true)
	g.again(unknown, errLost, false)
}

// desertEvery is how often a forwarded call that takes its time looks whether
// the one it waits for still leads.
const desertEvery = 50 * time.Millisecond

// desert gives a call up once the group has another leader than the one it was
// sent to: nothing that the old one has not committed yet will be.
func (g *group) desert(ctx context.Context, give context.CancelFunc, from string) {
	for ctx.Err() == nil {
		pause(ctx, desertEvery)
		if now, _ := g.leader(); now != "" && now != from {
			give()
			return
		}
	}
}

// again sends calls once more: those that were surely not done, and those that
// may be repeated because a second time changes nothing. The others' outcome
// is unknown, and they are told so.
func (g *group) again(calls []*call, why error, notDone bool) {
	var retry []*call
	for _, c := range calls {
		c.tries++
		c.maybe = c.maybe || !notDone
		repeatable := notDone || g.r.cfg.Repeatable || c.proposal.Key != ([16]byte{})
		switch {
		case notDone && time.Since(c.since) > g.r.cfg.Tuning.Leaderless && !c.maybe:
			c.answer <- verdict{err: errNobody} // who is said to lead does not, for long enough
		case repeatable && c.tries < maxTries && !c.gone.Load() && !(c.here && notDone):
			retry = append(retry, c)
		case !c.maybe:
			c.answer <- verdict{err: problem.Wrap(why, problem.Unavailable, "nobody could take the write; nothing was written", "send it again").After(millis(200))}
		default:
			c.answer <- verdict{err: outcomeUnknown(why)}
		}
	}
	if len(retry) == 0 {
		return
	}
	g.cool.Store(time.Now().Add(coolDown).UnixNano())
	g.queue.back(retry)
}

// coolDown keeps calls that come back from spinning: an election takes longer.
const coolDown = 20 * time.Millisecond

// propose is one caller's way in.
func (g *group) propose(ctx context.Context, p machine.Proposal) (machine.Receipt, error) {
	if err := checkSize(&p); err != nil {
		return machine.Receipt{}, err
	}
	c, err := g.queue.enter(p, false)
	if err != nil {
		return machine.Receipt{}, err
	}
	receipt, err := g.queue.wait(ctx, c)
	mishap.BeforeReply.Hit()
	if err == nil {
		receipt.Level = g.level(&receipt)
	}
	return receipt, err
}

func checkSize(p *machine.Proposal) error {
	if len(p.Commands) > MaxCommands || proposalSize(p) > MaxProposalBytes {
		return problem.New(problem.TooLarge, "too many rows, or too large ones, in one request", "send them in several requests")
	}
	return nil
}

// proposeMany is the way in for what another replica has gathered.
func (g *group) proposeMany(ctx context.Context, ps []machine.Proposal) []verdict {
	out := make([]verdict, len(ps))
	calls := make([]*call, len(ps))
	for i, p := range ps {
		if out[i].err = checkSize(&p); out[i].err == nil {
			calls[i], out[i].err = g.queue.enter(p, true)
		}
	}
	for i, c := range calls {
		if out[i].err == nil {
			out[i].receipt, out[i].err = g.queue.wait(ctx, c)
		}
	}
	return out
}
