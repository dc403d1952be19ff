package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// kernel is a line whose packets the kernel harms.
type kernel struct{ *Config }

// handle marks a qdisc as ours.
const handle = "7717:"

// Set puts the rule's qdisc on the device by which the carrier's packets leave.
func (k kernel) Set(ctx context.Context, r Rule, _ time.Duration) error {
	if err := r.Validate(); err != nil {
		return err
	}
	i := k.end(r.From)
	if i < 0 {
		return errors.New("no carrier is called " + r.From)
	}
	if on, err := k.harmed(ctx, i); err != nil || on {
		return errors.Join(err, fmt.Errorf("the packets of %s bear a rule already", r.From))
	}
	return tc(ctx, slices.Concat([]string{"-n", k.Ends[i].NetNS, "qdisc", "replace", "dev", lineDevice, "root", "handle", handle}, discipline(r))...)
}

// discipline is a rule as tc reads it: netem, or a token bucket for one that
// only narrows the line, which kernels without netem have too.
func discipline(r Rule) []string {
	if r.BytesRate > 0 && r.Loss+r.Duplicate+r.Corrupt+r.Reorder == 0 && r.Delay == 0 {
		return []string{"tbf", "rate", strconv.Itoa(r.BytesRate*8) + "bit", "burst", "16kb", "latency", "400ms"}
	}
	out := []string{"netem", "limit", strconv.Itoa(waitMax)}
	if r.Delay > 0 {
		out = append(out, "delay", micros(r.Delay))
		if r.Jitter > 0 {
			out = append(out, micros(r.Jitter))
		}
	}
	for _, x := range []struct {
		name  string
		share float64
	}{{"loss", r.Loss}, {"duplicate", r.Duplicate}, {"corrupt", r.Corrupt}, {"reorder", r.Reorder}} {
		if x.share > 0 {
			out = append(out, x.name, percent(x.share))
		}
	}
	if r.BytesRate > 0 {
		out = append(out, "rate", strconv.Itoa(r.BytesRate*8)+"bit")
	}
	return out
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) + "us" }

// Remove takes our qdisc off the device.
func (k kernel) Remove(ctx context.Context, r Rule) error {
	i := k.end(r.From)
	if i < 0 {
		return errors.New("no carrier is called " + r.From)
	}
	if on, err := k.harmed(ctx, i); err != nil || !on {
		return err
	}
	return tc(ctx, "-n", k.Ends[i].NetNS, "qdisc", "del", "dev", lineDevice, "root")
}

// Rules reads `tc qdisc show` back.
func (k kernel) Rules(ctx context.Context) (out []Rule, err error) {
	for i, e := range k.Ends {
		on, err := k.harmed(ctx, i)
		if err != nil {
			return nil, err
		}
		if on {
			out = append(out, Rule{From: e.Carrier})
		}
	}
	return out, nil
}

func (k kernel) harmed(ctx context.Context, i int) (bool, error) {
	raw, err := run(ctx, "tc", "-n", k.Ends[i].NetNS, "-j", "qdisc", "show", "dev", lineDevice)
	if err != nil {
		return false, err
	}
	return harms(raw)
}

// harms reports whether a list of qdiscs has one that harms packets, whoever
// put it there: of ours, or netem under any handle.
func harms(raw []byte) (bool, error) {
	var list []struct {
		Kind   string `json:"kind"`
		Handle string `json:"handle"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return false, fmt.Errorf("tc shows qdiscs that cannot be read: %w", err)
	}
	for _, q := range list {
		if q.Handle == handle || q.Kind == "netem" {
			return true, nil
		}
	}
	return false, nil
}

func tc(ctx context.Context, args ...string) error {
	_, err := run(ctx, "tc", args...)
	return err
}
