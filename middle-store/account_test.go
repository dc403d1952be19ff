package middlestore

import (
	"testing"
	"time"

	"qianma/cluster/fact"
	"qianma/cluster/feed"
)

var (
	noon  = time.Date(2022, 3, 1, 12, 0, 0, 0, time.UTC)
	want1 = []wanted{{group{"unicom", "nucleic"}, 1}, {group{"mobile", "nucleic"}, 1}}
)

func lag(carrier string, shard uint16, incarnation, held, known uint64, confirmed time.Duration) feed.Lag {
	l := feed.Lag{Origin: fact.Origin{Carrier: carrier, Subsystem: "nucleic", Shard: shard, Incarnation: incarnation}, Held: held, Known: known}
	if confirmed != 0 {
		l.Confirmed = noon.Add(confirmed)
	}
	return l
}

// TestFreshness: the age that is told is never younger than what is known.
func TestFreshness(t *testing.T) {
	for name, c := range map[string]struct {
		lags   []feed.Lag
		shards int
		newest time.Duration // of the first origin, by its block
		want   time.Duration // 0: not known
		behind uint64
	}{
		"never heard of":               {nil, 1, 0, 0, 0},
		"confirmed":                    {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Second)}, 1, 0, -time.Second, 0},
		"only its newest block":        {[]feed.Lag{lag("unicom", 0, 1, 5, 5, 0)}, 1, -time.Hour, -time.Hour, 0},
		"block newer than the word":    {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Minute)}, 1, -time.Second, -time.Second, 0},
		"the oldest shard":             {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Second), lag("unicom", 1, 1, 5, 5, -time.Hour)}, 2, 0, -time.Hour, 0},
		"a shard never heard of":       {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Second)}, 2, 0, 0, 0},
		"a shard of unknown age":       {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Second), lag("unicom", 1, 1, 5, 5, 0)}, 2, 0, 0, 0},
		"an old life, all held":        {[]feed.Lag{lag("unicom", 0, 1, 5, 5, 0), lag("unicom", 0, 2, 3, 3, -time.Second)}, 1, -time.Hour, -time.Second, 0},
		"an old life, some missing":    {[]feed.Lag{lag("unicom", 0, 1, 5, 9, -time.Hour), lag("unicom", 0, 2, 3, 3, -time.Second)}, 1, 0, -time.Hour, 4},
		"a block of the future":        {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Minute)}, 1, 2 * time.Hour, -time.Minute, 0},
		"confirmed before a jump back": {[]feed.Lag{lag("unicom", 0, 1, 5, 5, 2*time.Hour)}, 1, 0, 0, 0},
		"clocks differ a little":       {[]feed.Lag{lag("unicom", 0, 1, 5, 5, -time.Minute)}, 1, time.Second, time.Second, 0},
		"behind since the last answer": {[]feed.Lag{lag("unicom", 0, 1, 5, 8, -time.Minute)}, 1, 0, -time.Minute, 3},
	} {
		t.Run(name, func(t *testing.T) {
			a := account{now: noon, lags: c.lags, newest: map[fact.Origin]time.Time{}}
			if c.newest != 0 {
				a.newest[c.lags[0].Origin] = noon.Add(c.newest)
			}
			got := a.freshness([]wanted{{group{"unicom", "nucleic"}, c.shards}})[0]
			want := int64(0)
			if c.want != 0 {
				want = noon.Add(c.want).UnixMilli()
			}
			if got.AsOf != want || got.Behind != c.behind || got.Carrier != "unicom" || got.Subsystem != "nucleic" {
				t.Fatalf("got %+v, want as of %d, %d behind", got, want, c.behind)
			}
		})
	}
}

// TestComplete: a store that was empty must not answer on a hunch.
func TestComplete(t *testing.T) {
	confirmed := func(carrier string) feed.Lag { return lag(carrier, 0, 1, 5, 5, -time.Second) }
	for name, c := range map[string]struct {
		lags []feed.Lag
		late bool
		want bool
	}{
		"nothing heard":             {nil, false, false},
		"nothing heard for long":    {nil, true, false},
		"one carrier":               {[]feed.Lag{confirmed("unicom")}, false, false},
		"one carrier, other silent": {[]feed.Lag{confirmed("unicom")}, true, true},
		"both":                      {[]feed.Lag{confirmed("unicom"), confirmed("mobile")}, false, true},
		"heard, not confirmed":      {[]feed.Lag{lag("unicom", 0, 1, 5, 5, 0), confirmed("mobile")}, false, false},
		"something missing":         {[]feed.Lag{confirmed("unicom"), confirmed("mobile"), lag("mobile", 0, 2, 1, 2, -time.Second)}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := account{now: noon, lags: c.lags}
			if got := a.complete(want1, c.late); got != c.want {
				t.Fatalf("got %v", got)
			}
		})
	}
}
