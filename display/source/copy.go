package source

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/clock"
	"qianma/cluster/compaction"
	"qianma/cluster/raftlog"
	pb "qianma/middle-store/middlestorepb"
)

// Copy is what was last known about each person, on this process's own disk:
// the last thing that answers when every middle store is gone.
//
// It is bounded: records are written to the newest of two generations, and when
// that is full the older one is dropped whole. It is lazy: writes are queued,
// dropped when the queue is full, and not synced, so it never slows a request;
// a crash loses the newest minute or so of it. And it is nobody's end: when its
// disk fails, as a full one does, it holds and takes nothing until it is opened
// again.
type Copy struct {
	cfg   CopyConfig
	db    *pebble.DB
	pace  *compaction.Pace
	queue chan kept
	stop  chan struct{}
	wg    sync.WaitGroup
	once  sync.Once
	err   error

	fail   *raftlog.Failure
	broken chan struct{} // closed when the disk has failed
	ahead  int           // bytes written since flushes were last seen to keep up; the writer's own
	ended  error         // how the store closed that had failed; the writer's own

	mu         sync.RWMutex // held for reading while db is read
	gone       bool         // db is closed, or about to be
	generation uint32
	size       int64 // bytes written to the generation
}

// CopyConfig is what a Copy is made of.
type CopyConfig struct {
	Dir string
	FS  vfs.FS // nil: the disk
	// MaxBytes bounds the records before compression. 0: 256 MiB.
	MaxBytes int64
	Clock    clock.Clock
	Logger   *slog.Logger
}

type kept struct {
	person pb.PersonID
	value  []byte
}

const (
	copyQueue = 4096
	copyBatch = 512
	recordKey = 'r' // 'r' generation person -> record
	headKey   = "g" // -> newest generation

	memTable = 8 << 20
	// memTables is how many may wait for a flush before what comes is dropped.
	// Pebble itself would have the writer wait: behind a disk that has failed it
	// would wait for ever, and so would whoever closes the copy.
	memTables = 4
)

// OpenCopy opens the copy in a directory of its own. One that cannot be read
// is thrown away: it is a cache of what can be asked for again.
func OpenCopy(cfg CopyConfig) (*Copy, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.FS == nil {
		cfg.FS = vfs.Default
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Copy{cfg: cfg, queue: make(chan kept, copyQueue), stop: make(chan struct{})}
	if err := c.open(); err != nil {
		cfg.Logger.Warn("the last-known copy cannot be read and is begun anew", "error", err)
		if err := errors.Join(cfg.FS.RemoveAll(cfg.Dir), c.open()); err != nil {
			return nil, err
		}
	}
	c.wg.Go(c.write)
	return c, nil
}

func (c *Copy) open() error {
	broken := make(chan struct{}) // Pebble says so with its locks held
	c.broken, c.fail = broken, raftlog.NewFailure(c.cfg.Logger.With("store", "last-known"), func(error) { close(broken) })
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	o := &pebble.Options{
		FS: c.cfg.FS, Cache: cache, MemTableSize: memTable, DisableWAL: true,
		MemTableStopWritesThreshold: math.MaxInt, L0StopWritesThreshold: math.MaxInt,
		FormatMajorVersion: pebble.FormatNewest, MaxOpenFiles: 256, Logger: c.fail, EventListener: c.fail.Listener(),
	}
	db, pace, err := compaction.Open(c.cfg.Dir, o)
	if err != nil {
		return err
	}
	c.db, c.pace, c.generation, c.size = db, pace, 1, 0
	if raw, closer, err := db.Get([]byte(headKey)); err == nil {
		if len(raw) == 4 {
			c.generation = binary.BigEndian.Uint32(raw)
		}
		err = closer.Close()
		if err != nil {
			return errors.Join(err, db.Close())
		}
	}
	size, err := db.EstimateDiskUsage(generationKey(c.generation), generationKey(c.generation+1))
	c.size = int64(size)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	return nil
}

func generationKey(g uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{recordKey}, g)
}

func recordOf(g uint32, p pb.PersonID) []byte { return append(generationKey(g), p[:]...) }

// Put queues what a store answered about a person.
func (c *Copy) Put(person pb.PersonID, p *pb.Person, batch *pb.LookupResponse) {
	if c.fail.Err() != nil {
		return
	}
	one := pb.LookupResponse{Marks: batch.Marks, Freshness: batch.Freshness, AnsweredAt: batch.AnsweredAt}
	value := one.AppendTail(pb.AppendPerson(nil, p))
	select {
	case c.queue <- kept{person, value}:
	default: // the next answer about this person will try again
	}
}

// Get returns the copy of a person.
func (c *Copy) Get(person pb.PersonID) (*pb.LookupResponse, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.gone || c.fail.Err() != nil {
		return nil, false
	}
	for _, g := range [...]uint32{c.generation, c.generation - 1} {
		raw, closer, err := c.db.Get(recordOf(g, person))
		if err != nil {
			continue
		}
		resp := new(pb.LookupResponse)
		err = resp.Decode(raw)
		if closer.Close() == nil && err == nil && len(resp.Persons) == 1 {
			return resp, true
		}
	}
	return nil, false
}

// flushEvery is how often what was written is made to survive a crash.
const flushEvery = 30 * time.Second

// write is the one goroutine that writes.
func (c *Copy) write() {
	flush := c.cfg.Clock.After(flushEvery)
	dirty := false
	for {
		select {
		case k := <-c.queue:
			dirty = true
			c.log(c.commit(k))
		case <-flush:
			if dirty {
				_, err := c.db.AsyncFlush()
				c.log(err)
			}
			dirty, flush = false, c.cfg.Clock.After(flushEvery)
		case <-c.broken:
			c.ended = c.end()
			return
		case <-c.stop:
			return
		}
	}
}

// end closes a store whose disk has failed. Pebble would try the same flush again
// and again, without a pause.
func (c *Copy) end() error {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	return c.db.Close()
}

func (c *Copy) log(err error) {
	if err != nil {
		c.cfg.Logger.Warn("writing the last-known copy", "error", err)
	}
}

// commit writes one record and whatever else waits.
func (c *Copy) commit(k kept) error {
	if c.fail.Err() != nil || c.behind() {
		return nil // it is dropped
	}
	b := c.db.NewBatch()
	for n := 1; ; n++ {
		c.size += int64(len(k.value) + 21)
		c.ahead += len(k.value) + 21
		if err := b.Set(recordOf(c.generation, k.person), k.value, nil); err != nil {
			return errors.Join(err, b.Close())
		}
		if n == copyBatch || len(c.queue) == 0 {
			break
		}
		k = <-c.queue
	}
	if err := c.db.Apply(b, pebble.NoSync); err != nil {
		return errors.Join(err, b.Close())
	}
	return errors.Join(b.Close(), c.turn())
}

// behind reports whether too much waits for a flush.
func (c *Copy) behind() bool {
	if c.ahead < memTable {
		return false
	}
	if c.db.Metrics().MemTable.Count > memTables {
		return true
	}
	c.ahead = 0
	return false
}

// turn begins a new generation when the newest has half of the bound, and
// drops the one before it.
func (c *Copy) turn() error {
	if c.size < c.cfg.MaxBytes/2 {
		return nil
	}
	next := c.generation + 1
	b := c.db.NewBatch()
	err := errors.Join(
		b.DeleteRange(generationKey(0), generationKey(c.generation), nil),
		b.Set([]byte(headKey), binary.BigEndian.AppendUint32(nil, next), nil),
		c.db.Apply(b, pebble.NoSync), b.Close())
	c.mu.Lock()
	c.generation, c.size = next, 0
	c.mu.Unlock()
	return err
}

// Close writes what is queued, makes it durable and closes. It may be called
// twice; nothing may be asked or put afterwards.
func (c *Copy) Close() error {
	c.once.Do(func() {
		close(c.stop)
		c.wg.Wait()
		c.err = c.finish()
	})
	return c.err
}

func (c *Copy) finish() error {
	if c.gone { // by the writer, which has ended
		return errors.Join(c.fail.Err(), c.ended)
	}
	for len(c.queue) > 0 {
		c.log(c.commit(<-c.queue))
	}
	err := c.pace.FlushUnless(c.db, c.broken)
	return errors.Join(err, c.fail.Err(), c.db.Close())
}
