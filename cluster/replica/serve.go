package replica

import (
	"context"
	"encoding/json"
	"errors"

	"qianma/cluster/fact"
	"qianma/cluster/member"
	"qianma/cluster/problem"
	"qianma/cluster/rpc"
)

// Methods between replicas. Catalog and Blocks are also for other carriers and
// for middle stores.
const (
	methodPropose   = "replica.propose"
	methodReadIndex = "replica.readindex"
	methodPeers     = "replica.peers"
	methodHello     = "replica.hello"
	methodReplace   = "replica.replace"
	methodMember    = "replica.member"

	MethodCatalog = "replica.catalog"
	MethodBlocks  = "replica.blocks"
)

// MaxBlocksBytes bounds one answer of MethodBlocks; it may be exceeded by one
// block.
const MaxBlocksBytes = 4 << 20

// Register puts the replica's methods on a server. The server must be closed
// before the replica.
func (r *Replica) Register(s *rpc.Server) {
	on := func(method string, h func(ctx context.Context, g *group, d *dec) ([]byte, error)) {
		s.Handle(method, func(ctx context.Context, req []byte) ([]byte, error) {
			d := newDec(req)
			g, err := r.group(int(d.num()))
			if d.bad {
				return nil, malformed()
			}
			if err != nil {
				return nil, err
			}
			return h(ctx, g, d)
		})
	}
	s.Handle(methodPropose, r.servePropose)
	on(methodReadIndex, func(ctx context.Context, g *group, d *dec) ([]byte, error) {
		index, err := g.serveReadIndex(ctx, d.num())
		if err != nil {
			return nil, problem.Wrap(err, problem.Unavailable, errNotLeader.Message, errNotLeader.Fix)
		}
		e := newEnc()
		e.num(index)
		return e.b, nil
	})
	on(methodPeers, func(ctx context.Context, g *group, d *dec) ([]byte, error) {
		version, marks := g.servePeers(ctx, d.num())
		e := newEnc()
		e.num(version)
		e.marks(marks)
		return e.b, nil
	})
	on(methodHello, func(ctx context.Context, g *group, d *dec) ([]byte, error) {
		h := g.hello()
		return h.encode(), nil
	})
	on(methodReplace, func(ctx context.Context, g *group, d *dec) ([]byte, error) {
		name, life := d.str(), d.str()
		if d.bad {
			return nil, malformed()
		}
		return newEnc().b, g.replace(name, life)
	})
	on(methodMember, func(ctx context.Context, g *group, d *dec) ([]byte, error) {
		name, add := d.str(), d.flag()
		switch {
		case d.bad:
			return nil, malformed()
		case add:
			return newEnc().b, g.add(ctx, name)
		default:
			return newEnc().b, g.remove(name)
		}
	})
	s.Handle(member.MethodList, r.serveMembers)
	s.Handle(member.MethodChange, r.serveChange)
	on(MethodCatalog, func(ctx context.Context, g *group, d *dec) ([]byte, error) {
		told := g.catalog(ctx)
		e := newEnc()
		e.catalog(&told)
		return e.b, nil
	})
	on(MethodBlocks, func(_ context.Context, g *group, d *dec) ([]byte, error) { return serveBlocks(d, g.blocks) })
}

// serveMembers and serveChange are for operators: at any replica of the group.
func (r *Replica) serveMembers(_ context.Context, req []byte) ([]byte, error) {
	var in member.Group
	if err := member.Read(req, &in); err != nil {
		return nil, err
	}
	g, err := r.group(in.Shard)
	if err != nil {
		return nil, err
	}
	return json.Marshal(g.members())
}

func (r *Replica) serveChange(ctx context.Context, req []byte) ([]byte, error) {
	var in member.Change
	if err := member.Read(req, &in); err != nil {
		return nil, err
	}
	return []byte("{}"), r.membership(ctx, in.Shard, in.Name, in.Add)
}

func malformed() error {
	return problem.New(problem.Malformed, "the message is not what this method reads", "run the same build on both sides")
}

// servePropose takes in the proposals another replica has gathered.
func (r *Replica) servePropose(ctx context.Context, req []byte) ([]byte, error) {
	shard, proposals, err := decodeForward(req)
	if err != nil {
		return nil, malformed()
	}
	g, err := r.group(shard)
	if err != nil {
		return nil, err
	}
	if g.ready.Load() == 0 {
		return nil, errNotLeader
	}
	return encodeVerdicts(g.proposeMany(ctx, proposals)), nil
}

func serveBlocks(d *dec, pull func(o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error)) ([]byte, error) {
	o, after, maxBytes := d.origin(), d.num(), d.num()
	if d.bad {
		return nil, malformed()
	}
	blocks, err := pull(o, after, int(min(maxBytes, MaxBlocksBytes)))
	if err != nil {
		return nil, err
	}
	e := newEnc()
	for i := range blocks {
		e.b = blocks[i].Append(e.b)
	}
	return e.b, nil
}

// Source is what holds blocks and hands out ranges of them (feed.Source).
type Source interface {
	Catalog(ctx context.Context) (fact.Catalog, error)
	Pull(ctx context.Context, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error)
}

// ServeSource lets Remote read from a process that is no replica. It is asked
// for a shard as replicas are, and tells of all it has: an origin names its own.
func ServeSource(s *rpc.Server, src Source) {
	s.Handle(MethodCatalog, func(ctx context.Context, req []byte) ([]byte, error) {
		if d := newDec(req); d.bad {
			return nil, malformed()
		}
		told, err := src.Catalog(ctx)
		if err != nil {
			return nil, err
		}
		e := newEnc()
		e.catalog(&told)
		return e.b, nil
	})
	s.Handle(MethodBlocks, func(ctx context.Context, req []byte) ([]byte, error) {
		d := newDec(req)
		d.num() // the shard
		return serveBlocks(d, func(o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
			return src.Pull(ctx, o, after, maxBytes)
		})
	})
}

// Remote reads the blocks of one shard from a replica of it on another
// process, at this carrier or the other, or from what ServeSource serves.
type Remote struct {
	Calls   Calls
	Process string
	Shard   int
}

// Catalog says how far that replica holds each origin of the shard, and for
// which moment it vouches.
func (m Remote) Catalog(ctx context.Context) (fact.Catalog, error) {
	e := newEnc()
	e.num(uint64(m.Shard))
	raw, err := m.Calls.Call(ctx, m.Process, MethodCatalog, e.b)
	if err != nil {
		return fact.Catalog{}, err
	}
	d := newDec(raw)
	told := d.catalog()
	return told, d.err()
}

// Pull returns the blocks of an origin behind a sequence number.
func (m Remote) Pull(ctx context.Context, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	e := newEnc()
	e.num(uint64(m.Shard))
	e.str(o.String())
	e.num(after)
	e.num(uint64(max(0, maxBytes)))
	raw, err := m.Calls.Call(ctx, m.Process, MethodBlocks, e.b)
	if err != nil {
		return nil, err
	}
	d := newDec(raw)
	if d.bad {
		return nil, errWire
	}
	var out []fact.Block
	for rest := d.p; len(rest) > 0; {
		var b fact.Block
		if b, rest, err = fact.Decode(rest); err != nil {
			return nil, errors.Join(errWire, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// Source returns this process's own copy of a shard, in the same shape.
func (r *Replica) Source(shard int) Local { return Local{r, shard} }

// Local reads the blocks of one shard from this replica.
type Local struct {
	replica *Replica
	shard   int
}

// Catalog says how far this replica holds each origin of the shard, and for
// which moment it vouches.
func (l Local) Catalog(ctx context.Context) (fact.Catalog, error) {
	g, err := l.replica.group(l.shard)
	if err != nil {
		return fact.Catalog{}, err
	}
	return g.catalog(ctx), nil
}

// Pull returns the blocks of an origin behind a sequence number.
func (l Local) Pull(_ context.Context, o fact.Origin, after uint64, maxBytes int) ([]fact.Block, error) {
	return l.replica.Blocks(l.shard, o, after, maxBytes)
}
