package backbone

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// natsLog gives the NATS server's log to slog, a level quieter than it thinks
// of itself: its notices are our debug.
type natsLog struct{ log *slog.Logger }

func (l natsLog) Noticef(f string, v ...any) { l.log.Debug(fmt.Sprintf(f, v...)) }
func (l natsLog) Warnf(f string, v ...any)   { l.log.Warn(fmt.Sprintf(f, v...)) }
func (l natsLog) Errorf(f string, v ...any)  { l.log.Warn(fmt.Sprintf(f, v...)) }
func (l natsLog) Debugf(string, ...any)      {}
func (l natsLog) Tracef(string, ...any)      {}

// Fatalf does not end the process: the server that could not start is noticed
// by whoever waits for it.
func (l natsLog) Fatalf(f string, v ...any) { l.log.Error(fmt.Sprintf(f, v...)) }

// etcdLog gives etcd's log to slog, a level quieter than it thinks of itself,
// and nothing while muted: a member that is stopped complains of it.
func etcdLog(log *slog.Logger, muted *atomic.Bool) *zap.Logger {
	return zap.New(&slogCore{log: log, muted: muted})
}

// slogCore is a zapcore.Core that writes to slog.
type slogCore struct {
	log    *slog.Logger
	muted  *atomic.Bool
	fields []zapcore.Field
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && !c.muted.Load() && c.log.Enabled(context.Background(), quieter(l))
}

func quieter(l zapcore.Level) slog.Level {
	switch {
	case l > zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.ErrorLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{c.log, c.muted, append(append([]zapcore.Field(nil), c.fields...), fields...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		f.AddTo(enc)
	}
	var attrs []slog.Attr
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.log.LogAttrs(context.Background(), quieter(e.Level), e.Message, attrs...)
	return nil
}

func (c *slogCore) Sync() error { return nil }
