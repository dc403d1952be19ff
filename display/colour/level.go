// Package colour says what a person's code shows, and why.
//
// Evaluate is a pure function of facts, a rule set and a moment: no clock, no
// store, no network. The same input gives the same verdict on every replica of
// both carriers, and every verdict carries its reasons.
//
// What it promises, and the tests hold it to:
//   - The level is the worst that any single reason asks for. One more
//     restriction, or one more positive, never makes it better.
//   - Only time or a release that names it ends a restriction. A negative
//     result never does.
//   - A positive pool asks for a single retest and is not green; only the
//     person's own later single result decides it. A person's own positive
//     holds for as long as the rule set says, whatever comes after.
//   - Data that is old is said to be old, in words and in Verdict.Stale. Data
//     that is missing or too old to be trusted is never green.
//
// Everything that may change by decree (hours of validity and what they are
// counted from, durations, levels, what is displayed for a level, how old data
// may be, the words in Chinese and English) stands in the RuleSet, which is
// versioned data with a date from which it holds.
//
// It knows pseudonyms of nobody: facts come in without a name on them.
package colour

// Level is an internal risk level. A higher number is worse. The numbers are
// those of the fact contract.
type Level uint8

// The levels.
const (
	Green  Level = 1
	Yellow Level = 2
	Orange Level = 3
	Red    Level = 4
	Purple Level = 5
)

var levelNames = [...]string{"", "green", "yellow", "orange", "red", "purple"}

// String is the level's name in the API.
func (l Level) String() string {
	if l < Green || l > Purple {
		return "unknown"
	}
	return levelNames[l]
}

// ParseLevel reads what String wrote.
func ParseLevel(s string) (Level, bool) {
	for l := Green; l <= Purple; l++ {
		if levelNames[l] == s {
			return l, true
		}
	}
	return 0, false
}

// Colour is what is displayed. The numbers are those of the token format.
type Colour uint8

// The displayed colours; there is no purple to show.
const (
	ShowGreen  Colour = 1
	ShowYellow Colour = 2
	ShowOrange Colour = 3
	ShowRed    Colour = 4
)

// String is the colour's name in the API.
func (c Colour) String() string {
	if c < ShowGreen || c > ShowRed {
		return "unknown"
	}
	return levelNames[c]
}

func parseColour(s string) (Colour, bool) {
	l, ok := ParseLevel(s)
	return Colour(l), ok && l <= Red
}
