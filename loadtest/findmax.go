package loadtest

import (
	"errors"

	"qianma/loadtest/report"
)

// Search says how to look for the highest rate.
type Search struct {
	Start     float64
	Ceiling   float64 // 0: none
	Floor     float64 // a try below it would say nothing; nothing below a 64th of Start is tried either
	Tolerance float64 // how close to come, as a share
	Confirm   int     // runs that must hold in a row
}

// Found is what a search came to.
type Found struct {
	Rate      float64          `json:"rate"`   // 0: none held
	Code      int              `json:"code"`   // what the search ends with: see Outcome
	Lowest    float64          `json:"lowest"` // rate that was tried
	Tried     []Tried          `json:"tried"`
	Confirmed []*report.Result `json:"confirmed"`
	// AtCeiling says that Rate is the highest that could be offered, not the
	// highest that would have held.
	AtCeiling   bool    `json:"at_ceiling"`
	Interrupted bool    `json:"interrupted"`
	Floor       float64 `json:"floor"` // no lower rate was to be tried
}

// Tried is one run of the search.
type Tried struct {
	Rate float64 `json:"rate"`
	Held bool    `json:"held"`
	Code int     `json:"code"` // of the run
	Why  string  `json:"why"`
}

// most bounds a search whatever the system does.
const most = 40

// FindMax doubles until a rate is missed, halves the gap until it is within the
// tolerance, and then wants that rate confirmed; a rate that does not confirm
// is lowered. It goes no lower than a rate can mean something. While it looks, a rate that was missed by a little, or whose run is
// invalid, is tried once more: a short run's p99 is one hiccup of the machine,
// and what it closes stays closed for the rest of the search. Invalid twice
// counts as missed: a rate at which the generator cannot be believed is not one
// the system was seen to hold. A confirmation has no second try. A run that
// breaks the ledger ends the search: no rate is held by a system that lies.
func FindMax(s Search, try func(rate float64) (*report.Result, error)) (Found, error) {
	f, err := findMax(s, try)
	if errors.Is(err, errBroken) {
		f.Rate, f.Confirmed, err = 0, []*report.Result{}, nil
	}
	f.AtCeiling = f.Rate > 0 && f.Rate == s.Ceiling
	f.Code = f.outcome()
	return f, err
}

// interrupt makes of what was found so far what it says: nothing certain.
func (f *Found) interrupt() {
	f.Rate, f.Confirmed, f.AtCeiling = 0, []*report.Result{}, false
	f.Interrupted, f.Code = true, report.InvalidRun
}

// depth is how far below its start a search goes. A system that misses at a 64th
// of what it was thought to do does not miss because of the rate.
const depth = 64

// errBroken ends a search from within.
var errBroken = errors.New("the ledger is broken")

// outcome is the exit code of a search: held when a rate was confirmed, broken
// when any try broke the ledger. When nothing held, the lowest rate decides
// between the system, which missed, and the generator, which could not keep up.
func (f *Found) outcome() int {
	code, lowest := report.Missed, 0.
	for _, t := range f.Tried {
		if t.Code == report.LedgerBroke {
			return report.LedgerBroke
		}
		if lowest == 0 || t.Rate <= lowest {
			code, lowest = t.Code, t.Rate
		}
	}
	switch {
	case f.Rate > 0:
		return report.Held
	case code == report.InvalidRun:
		return report.InvalidRun
	}
	return report.Missed
}

func findMax(s Search, try func(rate float64) (*report.Result, error)) (Found, error) {
	f := Found{Tried: []Tried{}, Confirmed: []*report.Result{}, Floor: max(s.Floor, s.Start/depth)}
	attempt := func(rate float64) (*report.Result, bool, error) {
		res, err := try(rate)
		if err != nil {
			return nil, false, err
		}
		held := res.Code() == report.Held
		f.Tried = append(f.Tried, Tried{rate, held, res.Code(), res.Why()})
		if f.Lowest == 0 || rate < f.Lowest {
			f.Lowest = rate
		}
		if res.Code() == report.LedgerBroke {
			return res, false, errBroken
		}
		return res, held, nil
	}
	twice := func(rate float64) (held, doubt bool, err error) {
		res, held, err := attempt(rate)
		if err == nil && !held && doubtful(res) {
			res, held, err = attempt(rate)
		}
		return held, err == nil && !held && doubtful(res), err
	}
	low, high, err := bracket(s, &f, twice)
	if err != nil || low == 0 {
		return f, err
	}
	for high > low*(1+s.Tolerance) && len(f.Tried) < most {
		mid := (low + high) / 2
		held, _, err := twice(mid)
		if err != nil {
			return f, err
		}
		if held {
			low = mid
		} else {
			high = mid
		}
	}
	err = confirm(s, low, &f, attempt)
	return f, err
}

// keptUp is the share of what was asked that a system does which is not yet
// overloaded, whatever its latency was.
const keptUp = .95

// doubtful reports whether a run that did not hold says little about its rate.
func doubtful(r *report.Result) bool {
	return r.Code() == report.InvalidRun || r.AchievedPerS >= keptUp*r.OfferedPerS
}

// bracket finds a rate that holds and one that does not, a factor of two apart. The
// first runs of a place are its worst (a store makes its files, a disk writes what
// setting up has left), so a rate whose failures say little is tried once more when
// one below it has held.
func bracket(s Search, f *Found, try func(float64) (held, doubt bool, err error)) (low, high float64, err error) {
	doubted := false // high
	rate := s.Start
	if s.Ceiling > 0 {
		rate = min(rate, s.Ceiling)
	}
	for len(f.Tried) < most {
		held, doubt, err := try(rate)
		switch {
		case err != nil:
			return 0, 0, err
		case held && s.Ceiling > 0 && rate >= s.Ceiling:
			return rate, rate, nil
		case held && high > 0 && !doubted:
			return rate, high, nil
		case held && high > 0:
			low, rate, high = rate, high, 0
		case held:
			low, rate = rate, rate*2
			if s.Ceiling > 0 {
				rate = min(rate, s.Ceiling)
			}
		case low > 0:
			return low, rate, nil
		case rate/2 < f.Floor:
			return 0, 0, nil
		default:
			high, rate, doubted = rate, rate/2, doubt
		}
	}
	return low, high, nil
}

func confirm(s Search, rate float64, f *Found, attempt func(float64) (*report.Result, bool, error)) error {
	for len(f.Tried) < most {
		var runs []*report.Result
		for len(runs) < max(1, s.Confirm) {
			res, held, err := attempt(rate)
			if err != nil {
				return err
			}
			if !held {
				break
			}
			runs = append(runs, res)
		}
		if len(runs) == max(1, s.Confirm) {
			f.Rate, f.Confirmed = rate, runs
			return nil
		}
		if rate /= 1 + max(s.Tolerance, .01); rate < f.Floor {
			break // it would say nothing
		}
	}
	return nil
}
