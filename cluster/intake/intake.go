// Package intake commits what a request brought: rows that are judged one by
// one, of which some cannot even become commands and the others belong to one
// shard or to several.
//
// It promises that a request which is sent again under its idempotency key
// ends as if it had been sent once, and that an outcome which is not known is
// called unknown, never failed: also where a part of the rows is committed and
// of the rest it is not known. It refuses to know what a command says, and how
// an answer is written.
package intake

import (
	"context"
	"errors"
	"sync"
	"time"

	"qianma/cluster/machine"
	"qianma/cluster/problem"
	"qianma/cluster/web"
)

// Row is one thing a request asks for: a command and the shard it belongs to,
// or why it cannot become one.
type Row struct {
	Shard   int
	Command []byte
	Problem *problem.Problem
}

// Intake is a way to commit rows. It is safe for concurrent use.
type Intake struct {
	Proposer machine.Proposer
	// Wait bounds how long a request waits for its commit. Of what has been proposed
	// and not answered by then it is unknown whether it is committed.
	Wait time.Duration
	// Look says how to find out what became of rows, as the beginning of a
	// sentence: "ask for the tubes concerned".
	Look string
}

// One commits a single row and waits for the level that was asked for.
func (in *Intake) One(ctx context.Context, o web.Options, row Row) (machine.Receipt, error) {
	if row.Problem != nil {
		return machine.Receipt{}, row.Problem
	}
	receipt, err := in.keyed(ctx, o, row.Shard, [][]byte{row.Command})
	if err == nil {
		in.await(ctx, o, &receipt)
	}
	return receipt, err
}

// Many commits rows, those of one shard together, and says in the order of the
// rows what became of each. Rows that cannot become commands are told so in
// their place and keep nothing from the others.
func (in *Intake) Many(ctx context.Context, o web.Options, rows []Row) ([]machine.Receipt, []web.Outcome, error) {
	short, cancel := context.WithTimeout(ctx, in.Wait)
	defer cancel()
	parts := split(rows, in.Proposer.Shards())
	receipts, err := in.all(short, o, parts)
	if err != nil {
		return nil, nil, err
	}
	outcomes := make([]web.Outcome, len(rows))
	for i := range rows {
		outcomes[i].Problem = rows[i].Problem
	}
	for i, p := range parts {
		for j, at := range p.rows {
			outcomes[at] = web.Outcome{Status: receipts[i].Rows[j].Status, Code: receipts[i].Rows[j].Code}
		}
	}
	in.await(ctx, o, pointers(receipts)...)
	return receipts, outcomes, nil
}

func pointers(receipts []machine.Receipt) []*machine.Receipt {
	out := make([]*machine.Receipt, len(receipts))
	for i := range receipts {
		out[i] = &receipts[i]
	}
	return out
}

// part is what a request asks of one shard.
type part struct {
	shard    int
	commands [][]byte
	rows     []int // where each command stands in the request
}

// split groups the rows by shard and keeps their order within each.
func split(rows []Row, shards int) (parts []part) {
	place := make([]int, shards)
	for i := range rows {
		if rows[i].Problem != nil {
			continue
		}
		s := rows[i].Shard
		if place[s] == 0 {
			parts = append(parts, part{shard: s})
			place[s] = len(parts)
		}
		p := &parts[place[s]-1]
		p.commands, p.rows = append(p.commands, rows[i].Command), append(p.rows, i)
	}
	return parts
}

// all commits the parts side by side. When some are committed and others are
// not, the outcome of the request is unknown: a repeat under the same key
// completes it.
func (in *Intake) all(ctx context.Context, o web.Options, parts []part) ([]machine.Receipt, error) {
	if len(parts) == 1 {
		receipt, err := in.keyed(ctx, o, parts[0].shard, parts[0].commands)
		return []machine.Receipt{receipt}, err
	}
	if o.HasKey && len(parts) > 0 {
		if err := in.Proposer.Claim(ctx, o.Key, o.Body); err != nil {
			return nil, err
		}
	}
	receipts, errs := make([]machine.Receipt, len(parts)), make([]error, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() { receipts[i], errs[i] = in.propose(ctx, p.shard, machine.Proposal{Commands: p.commands}) })
	}
	wg.Wait()
	return receipts, together(errs)
}

// together makes one error of those of several shards.
func together(errs []error) error {
	var first error
	failed := 0
	for _, err := range errs {
		if err != nil {
			failed++
			if first == nil || problem.Is(err, problem.Unknown) {
				first = err
			}
		}
	}
	if failed == 0 || failed == len(errs) {
		return first
	}
	return problem.Wrap(first, problem.Unknown, "a part of the request is committed, of the rest it is not known", "send the whole request again with the same Idempotency-Key: what is committed will not be repeated")
}

// keyed commits commands of one shard. A key is kept with the facts when it
// belongs to the same shard, and claimed in its own shard before when not.
func (in *Intake) keyed(ctx context.Context, o web.Options, shard int, commands [][]byte) (machine.Receipt, error) {
	p := machine.Proposal{Commands: commands, Wait: in.Wait}
	switch {
	case !o.HasKey:
	case shard == machine.ShardOfRequest(o.Key, in.Proposer.Shards()):
		p.Key, p.Body = o.Key, o.Body
	default:
		short, cancel := context.WithTimeout(ctx, in.Wait)
		defer cancel()
		if err := in.Proposer.Claim(short, o.Key, o.Body); err != nil {
			return machine.Receipt{}, err
		}
		ctx = short // both together take no longer
	}
	return in.propose(ctx, shard, p)
}

func (in *Intake) propose(ctx context.Context, shard int, p machine.Proposal) (machine.Receipt, error) {
	receipt, err := in.Proposer.Propose(ctx, shard, p)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = unknown(err)
	}
	if err == nil && len(receipt.Rows) != len(p.Commands) {
		// The key's receipt is that of a build which cut this body otherwise.
		err = problem.New(problem.Unknown, "the answer to this request was given by an older build and cannot be shown again",
			in.Look+", or send the rows again under a new Idempotency-Key: repeats do no harm")
	}
	return receipt, err
}

// unknown is a wait that ended before the answer came. A problem that knows
// better, such as that nothing was done, is left as it is.
func unknown(err error) error {
	var known *problem.Problem
	if errors.As(err, &known) {
		return err
	}
	return problem.Wrap(err, problem.Unknown, "the wait ended before it was known whether this was committed", "send the same request again with the same Idempotency-Key")
}

// await waits for the level that was asked for, over all receipts no longer
// than asked, and writes into each what it has reached.
func (in *Intake) await(ctx context.Context, o web.Options, receipts ...*machine.Receipt) {
	if o.Ack <= machine.Committed {
		return
	}
	o.Rest()
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	for _, r := range receipts {
		r.Level = in.Proposer.Await(ctx, *r, o.Ack)
	}
}
