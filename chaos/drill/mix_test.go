package drill

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"qianma/chaos/fault"
)

// Goal: a mix has every pair once and at its time, the same for the same seed,
// and never a fault on what another has taken down.
func TestAMixHasEveryPair(t *testing.T) {
	d, err := Load("random-mix")
	if err != nil {
		t.Fatal(err)
	}
	if d.Length() < fault.Duration(29*time.Minute) {
		t.Errorf("it lasts %s", d.Length())
	}
	carriers := []string{"mobile", "unicom"}
	orders, mirrored := map[string]bool{}, map[string]bool{}
	for seed := range uint64(20) {
		steps := d.Drawn(seed, carriers).Steps
		if again := d.Drawn(seed, carriers).Steps; !reflect.DeepEqual(steps, again) {
			t.Fatalf("seed %d gives two orders", seed)
		}
		seen := map[string]bool{}
		for i := 0; i < len(steps); i += 2 {
			a, b := steps[i], steps[i+1]
			kinds := []string{kind(a.Spec), kind(b.Spec)}
			if kinds[0] > kinds[1] {
				kinds[0], kinds[1] = kinds[1], kinds[0]
			}
			seen[strings.Join(kinds, " and ")] = true
			mirrored[a.Target] = true
			if b.At < a.At || b.At >= a.At+a.For || a.At != d.Mix.Slot*fault.Duration(i/2) {
				t.Errorf("seed %d: %s from %s beside %s from %s", seed, a.Fault, a.At, b.Fault, b.At)
			}
			for _, s := range [][2]Step{{a, b}, {b, a}} {
				if lost, whole := strings.CutPrefix(s[0].Target, "carrier:"); whole && strings.Contains(s[1].Target, "@"+lost) {
					t.Errorf("seed %d: %s of what is down with %s", seed, s[1].Target, lost)
				}
			}
		}
		if n := len(d.Mix.Of); len(seen) != n*(n-1)/2 {
			t.Errorf("seed %d: %d different pairs of %d faults: %v", seed, len(seen), n, seen)
		}
		orders[fmt.Sprint(steps)] = true
	}
	if len(orders) < 20 {
		t.Errorf("20 seeds give %d orders", len(orders))
	}
	for _, want := range []string{"leader(nucleic@unicom)", "leader(nucleic@mobile)", "carrier:unicom", "carrier:mobile"} {
		if !mirrored[want] {
			t.Errorf("in 20 seeds never %s", want)
		}
	}
}

// kind tells the faults of the mix apart, whichever carrier they befall.
func kind(s fault.Spec) string {
	return s.Fault + " " + strings.NewReplacer("unicom", "X", "mobile", "X").Replace(s.Target)
}

func TestAMixLeavesRoomBetweenPairs(t *testing.T) {
	_, err := Parse([]byte(`{name: x, says: x, mix: {slot: 20s, of: [{fault: kill, target: carrier:unicom, for: 15s}]}}`))
	for _, want := range []string{"half of a slot", "a pair takes two"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say: %s", err, want)
		}
	}
}
