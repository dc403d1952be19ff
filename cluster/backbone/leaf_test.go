package backbone

import (
	"testing"
	"time"
)

// The watchdog's decisions, one sight at a time: what is seen after how long,
// and what is done about it.
func TestWatchdogPicksTheMildestRemedyThatCouldHelp(t *testing.T) {
	start := time.Unix(1000, 0)
	const quietMax, actAfter = 15 * time.Second, 20 * time.Second
	up := sight{solicits: true, reachable: true, connected: true, answers: true}
	down := sight{solicits: true}
	mute := sight{solicits: true, reachable: true, connected: true}
	gone := sight{solicits: true, reachable: true}
	dialled := sight{reachable: true, connected: true}
	type look struct {
		at   time.Duration
		s    sight
		want remedy
	}
	for name, looks := range map[string][]look{
		"a line that is down needs nothing": {{30 * time.Second, down, noRemedy}, {time.Hour, down, noRemedy}},
		"quiet for a moment is nothing":     {{10 * time.Second, mute, noRemedy}},
		"a mute link is kicked, then the server restarted, ever more rarely": {
			{20 * time.Second, mute, kickLink},
			{30 * time.Second, mute, noRemedy},
			{61 * time.Second, mute, restartServer},
			{100 * time.Second, mute, noRemedy},
			{142 * time.Second, mute, restartServer},
		},
		"a server that does not dial is restarted":     {{20 * time.Second, gone, restartServer}},
		"a line that comes back is dialled in peace":   {{time.Hour, down, noRemedy}, {time.Hour + time.Second, gone, noRemedy}},
		"one that is not dialled even then is a fault": {{time.Hour, down, noRemedy}, {time.Hour + actAfter, gone, restartServer}},
		"sourcing that stands still is made anew":      {{20 * time.Second, up, remakeStream}, {61 * time.Second, up, restartServer}},
		"the dialled side never restarts":              {{20 * time.Second, dialled, kickLink}, {61 * time.Second, dialled, kickLink}, {time.Hour, dialled, kickLink}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newLink("mobile", start)
			for _, l := range looks {
				l.s.quiet = l.at
				if got := k.judge(l.s, start.Add(l.at), quietMax, actAfter); got != l.want {
					t.Fatalf("after %v: %q, want %q", l.at, got, l.want)
				}
			}
		})
	}
}

// A heartbeat ends the affair; the same heartbeat seen again does not.
func TestHeartbeatResetsTheWatchdog(t *testing.T) {
	start := time.Unix(1000, 0)
	k := newLink("mobile", start)
	mute := sight{solicits: true, reachable: true, connected: true, quiet: 20 * time.Second}
	k.judge(mute, start.Add(20*time.Second), time.Second, time.Second)
	k.heard(7, start.Add(21*time.Second))
	if k.quiet(start.Add(22*time.Second)) != time.Second {
		t.Error("a heartbeat was not heard")
	}
	k.heard(7, start.Add(40*time.Second))
	if k.quiet(start.Add(41*time.Second)) != 20*time.Second {
		t.Error("an old heartbeat passed for a new one")
	}
	if got := k.judge(mute, start.Add(60*time.Second), time.Second, time.Second); got != kickLink {
		t.Errorf("after a heartbeat the mildest remedy is due, got %q", got)
	}
}
