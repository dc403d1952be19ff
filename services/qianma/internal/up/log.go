package up

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
)

// journal is the supervisor's log: everything goes into the file, and the
// sentences to whoever watches.
type journal struct {
	*slog.Logger
	file *os.File
}

// Close closes the file.
func (j *journal) Close() error { return j.file.Close() }

// eventsMax bounds what a watcher who does not read is kept; what is over it
// stands in the file.
const eventsMax = 256

// logMax is the size at which an earlier supervisor's log makes room.
const logMax = 16 << 20

func openLog(path string) (*journal, <-chan string, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logMax {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, nil, err
	}
	events := make(chan string, eventsMax)
	h := &teller{Handler: slog.NewTextHandler(io.Writer(f), nil), events: events}
	return &journal{slog.New(h), f}, events, nil
}

// teller is a slog.Handler that also passes on each message as it stands.
type teller struct {
	slog.Handler
	events chan<- string
}

// Handle implements slog.Handler.
func (t *teller) Handle(ctx context.Context, r slog.Record) error {
	select {
	case t.events <- r.Message:
	default:
	}
	return t.Handler.Handle(ctx, r)
}
