package province

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"qianma/loadtest/client"
	"qianma/loadtest/drive"
)

// judge turns the answer of a try into its outcome.
func (t *Target) judge(op *drive.Op) {
	c := &op.Call
	if c.Err != nil {
		op.Outcome, op.Code = transport(c)
		return
	}
	op.RetryAfter = c.RetryAfter
	if c.Status/100 != 2 {
		op.Outcome, op.Code = refusal(c)
		op.View = drive.View{} // a person or a tube that is not there
		return
	}
	switch op.Kind {
	case drive.Display:
		op.View = readCode(c.Answer)
		if op.WantToken {
			op.Token = append(op.Token[:0], unquote(field(c.Answer, "token"))...)
		}
	case drive.Tube:
		op.View = readTube(c.Answer)
	case drive.Verify:
		if !bytes.Equal(field(c.Answer, "valid"), []byte("true")) {
			op.Outcome, op.Code = drive.Rejected, "token_refused"
		}
	default:
		t.judgeWrite(op)
	}
}

func transport(c *client.Call) (drive.Outcome, string) {
	switch {
	case errors.Is(c.Err, client.ErrQueueFull):
		return drive.Dropped, "generator_queue_full"
	case errors.Is(c.Err, client.ErrExpired):
		return drive.NotSent, "no_free_connection"
	case errors.Is(c.Err, client.ErrConnect):
		return drive.NotSent, "connect"
	case !c.Sent:
		return drive.NotSent, "not_sent"
	case errors.Is(c.Err, client.ErrTimeout):
		return drive.Unknown, "timeout"
	}
	return drive.Unknown, "connection_lost"
}

func refusal(c *client.Call) (drive.Outcome, string) {
	code := string(unquote(field(c.Answer, "code")))
	if code == "" {
		code = "http_" + strconv.Itoa(c.Status)
	}
	switch {
	case code == "unknown_outcome":
		return drive.Unknown, code
	case c.Status == http.StatusTooManyRequests, c.Status == http.StatusServiceUnavailable:
		return drive.Refused, code
	case c.Status >= 500 && c.Status != http.StatusNotImplemented:
		return drive.Unknown, code
	}
	return drive.Rejected, code
}

// judgeWrite believes an acknowledgement as far as it goes: every row taken,
// at the level that was asked for.
func (t *Target) judgeWrite(op *drive.Op) {
	a := op.Call.Answer
	op.Replayed = bytes.Equal(field(a, "replayed"), []byte("true"))
	if t.cfg.Ack == "replicated" && !bytes.Contains(a, []byte(`"replicated"`)) {
		op.Outcome, op.Code = drive.Unknown, "not_yet_replicated"
		return
	}
	rows := max(len(op.Samples), len(op.Results))
	taken := number(field(a, "accepted")) + number(field(a, "duplicate"))
	if taken == rows {
		return
	}
	if rows == 1 {
		op.Outcome, op.Code = drive.Rejected, "row_not_taken"
		if number(field(a, "conflict")) == 1 {
			op.Code = drive.KeptConflict
		}
		return
	}
	t.readRows(op, rows-taken)
}

// readRows finds out which rows of a batch were not taken.
func (t *Target) readRows(op *drive.Op, want int) {
	var answer struct {
		Rows []struct {
			Row    int    `json:"row"`
			Status string `json:"status"`
			Code   string `json:"code"`
		} `json:"rows"`
	}
	if err := json.Unmarshal(op.Call.Answer, &answer); err != nil {
		op.Outcome, op.Code = drive.Unknown, "answer_unreadable"
		return
	}
	for _, r := range answer.Rows {
		if r.Status != "accepted" && r.Status != "duplicate" && r.Row >= 0 && r.Row < max(len(op.Samples), len(op.Results)) {
			op.Row = append(op.Row, drive.RowFault{Row: r.Row, Code: r.Code, Kept: r.Status == "conflict"})
		}
	}
	if len(op.Row) != want {
		op.Outcome, op.Code = drive.Unknown, "answer_does_not_add_up"
	}
}

// readCode reads what a phone shows.
func readCode(a []byte) drive.View {
	n := field(a, "nucleic")
	v := drive.View{Stale: bytes.Equal(field(a, "stale"), []byte("true"))}
	if len(n) == 0 || n[0] != '{' {
		return v
	}
	v.Status = word(unquote(field(n, "status")))
	at, err := time.Parse(time.RFC3339, string(unquote(field(n, "sampled_at"))))
	if err == nil && !at.IsZero() {
		v.Found, v.Sampled = true, at.UnixMilli()
	}
	return v
}

// word spares a string for each of millions of answers.
func word(p []byte) string {
	switch string(p) {
	case "negative":
		return "negative"
	case "pending":
		return "pending"
	case "none":
		return "none"
	case "positive":
		return "positive"
	case "pool_positive_retest":
		return "pool_positive_retest"
	}
	return string(p)
}

// readTube counts the swabs in a tube that are not void.
func readTube(a []byte) drive.View {
	var tube struct {
		Members []struct {
			Live bool `json:"live"`
		} `json:"members"`
	}
	if json.Unmarshal(a, &tube) != nil {
		return drive.View{}
	}
	v := drive.View{Found: true}
	for _, m := range tube.Members {
		if m.Live {
			v.Swabs++
		}
	}
	return v
}

// field finds the value of the first field of that name, as it stands. It is a
// scan, not a parser: the answers are ours, flat where it matters, and are read
// fifty thousand times a second.
func field(a []byte, name string) []byte {
	for rest := a; ; {
		i := bytes.Index(rest, []byte(name))
		if i < 0 {
			return nil
		}
		end := i + len(name)
		if i == 0 || rest[i-1] != '"' || end >= len(rest) || rest[end] != '"' {
			rest = rest[end:]
			continue
		}
		v := skip(rest[end+1:])
		if len(v) == 0 || v[0] != ':' {
			rest = rest[end:]
			continue
		}
		v = skip(v[1:])
		return v[:extent(v)]
	}
}

func skip(p []byte) []byte { return bytes.TrimLeft(p, " \t\r\n") }

// extent is how long the value at the front of p is.
func extent(p []byte) int {
	depth := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '"':
			i += quoted(p[i:])
			if depth == 0 {
				return min(i+1, len(p))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
		}
	}
	return len(p)
}

// quoted is the index of the quote that ends the string at the front of p.
func quoted(p []byte) int {
	for i := 1; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(p)
}

func unquote(v []byte) []byte {
	if len(v) < 2 || v[0] != '"' {
		return nil
	}
	return v[1 : len(v)-1]
}

func number(v []byte) int {
	n, err := strconv.Atoi(string(v))
	if err != nil {
		return 0
	}
	return n
}
