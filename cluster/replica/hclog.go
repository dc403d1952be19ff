package replica

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quietLog gives raft's log to slog, two levels quieter: what raft calls an
// error (a peer that is down, say) is its daily bread. A sentence is not
// repeated within some seconds.
type quietLog struct {
	out  *slog.Logger
	args []any
	said *said
}

type said struct {
	mu sync.Mutex
	at map[string]time.Time
}

const (
	sayAgain = 5 * time.Second
	saidMax  = 256
)

func newQuietLog(out *slog.Logger) hclog.Logger {
	return &quietLog{out: out, said: &said{at: map[string]time.Time{}}}
}

func (s *said) already(msg string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.at[msg]) < sayAgain {
		return true
	}
	if len(s.at) >= saidMax {
		clear(s.at)
	}
	s.at[msg] = now
	return false
}

var quieter = map[hclog.Level]slog.Level{
	hclog.Info:  slog.LevelDebug,
	hclog.Warn:  slog.LevelDebug,
	hclog.Error: slog.LevelInfo,
}

// Log implements hclog.Logger.
func (l *quietLog) Log(level hclog.Level, msg string, args ...any) {
	to, ok := quieter[level]
	if !ok || !l.out.Enabled(context.Background(), to) || l.said.already(msg) {
		return
	}
	text := make([]any, 0, len(l.args)+len(args))
	for _, a := range append(append(text, l.args...), args...) {
		switch v := a.(type) {
		case hclog.Format:
			a = fmt.Sprintf(v[0].(string), v[1:]...)
		case error:
			a = v.Error()
		case fmt.Stringer:
			a = v.String()
		}
		text = append(text, a)
	}
	l.out.Log(context.Background(), to, "raft: "+msg, text...)
}

func (l *quietLog) Trace(string, ...any)           {}
func (l *quietLog) Debug(string, ...any)           {}
func (l *quietLog) Info(msg string, args ...any)   { l.Log(hclog.Info, msg, args...) }
func (l *quietLog) Warn(msg string, args ...any)   { l.Log(hclog.Warn, msg, args...) }
func (l *quietLog) Error(msg string, args ...any)  { l.Log(hclog.Error, msg, args...) }
func (l *quietLog) IsTrace() bool                  { return false }
func (l *quietLog) IsDebug() bool                  { return false }
func (l *quietLog) IsInfo() bool                   { return true }
func (l *quietLog) IsWarn() bool                   { return true }
func (l *quietLog) IsError() bool                  { return true }
func (l *quietLog) ImpliedArgs() []any             { return l.args }
func (l *quietLog) Name() string                   { return "raft" }
func (l *quietLog) Named(string) hclog.Logger      { return l }
func (l *quietLog) ResetNamed(string) hclog.Logger { return l }
func (l *quietLog) SetLevel(hclog.Level)           {}
func (l *quietLog) GetLevel() hclog.Level          { return hclog.Info }
func (l *quietLog) With(args ...any) hclog.Logger {
	return &quietLog{out: l.out, said: l.said, args: append(append([]any(nil), l.args...), args...)}
}
func (l *quietLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(io.Discard, "", 0)
}
func (l *quietLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }
