package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/clock"
	"qianma/cluster/compaction"
	pb "qianma/middle-store/middlestorepb"
)

// Copy is what was last known about each person, on this process's own disk:
// the last thing that answers when every middle store is gone.
//
// It is bounded: records are written to the newest of two generations, and when
// that is full the older one is dropped whole. It is lazy: writes are queued,
// dropped when the queue is full, and not synced, so it never slows a request;
// a crash loses the newest minute or so of it.
type Copy struct {
	cfg   CopyConfig
	db    *pebble.DB
	pace  *compaction.Pace
	queue chan kept
	stop  chan struct{}
	wg    sync.WaitGroup
	once  sync.Once
	err   error

	mu         sync.RWMutex
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
	cache := pebble.NewCache(8 << 20)
	defer cache.Unref()
	o := &pebble.Options{
		FS: c.cfg.FS, Cache: cache, MemTableSize: 8 << 20, DisableWAL: true,
		FormatMajorVersion: pebble.FormatNewest, MaxOpenFiles: 256, Logger: quiet{},
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
	newest := c.generation
	c.mu.RUnlock()
	for _, g := range [...]uint32{newest, newest - 1} {
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
		case <-c.stop:
			return
		}
	}
}

func (c *Copy) log(err error) {
	if err != nil {
		c.cfg.Logger.Warn("writing the last-known copy", "error", err)
	}
}

// commit writes one record and whatever else waits.
func (c *Copy) commit(k kept) error {
	b := c.db.NewBatch()
	for n := 1; ; n++ {
		c.size += int64(len(k.value) + 21)
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
		for len(c.queue) > 0 {
			c.log(c.commit(<-c.queue))
		}
		c.err = errors.Join(c.pace.Flush(c.db), c.db.Close())
	})
	return c.err
}

// quiet drops Pebble's chatter; errors come back from its calls.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("last-known copy: " + fmt.Sprintf(format, args...))
}
