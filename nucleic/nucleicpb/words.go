package nucleicpb

// Pool is how many people one tube holds; the numbers are the contract's.
type Pool int32

// The pools there are.
const (
	PoolUnknown   Pool = 0
	PoolSingle    Pool = 1
	PoolFive      Pool = 5
	PoolTen       Pool = 10
	PoolTwenty    Pool = 20
	PoolHousehold Pool = 99
)

// Pools lists the pools there are, smallest first.
var Pools = [...]Pool{PoolSingle, PoolFive, PoolTen, PoolTwenty, PoolHousehold}

// String is the pool as people write it; "unknown" for any other number.
func (p Pool) String() string {
	switch p {
	case PoolSingle:
		return "1"
	case PoolFive:
		return "5"
	case PoolTen:
		return "10"
	case PoolTwenty:
		return "20"
	case PoolHousehold:
		return "household"
	}
	return "unknown"
}

// ParsePool reads what String writes; ok is false for anything else.
func ParsePool(s string) (p Pool, ok bool) {
	for _, p := range Pools {
		if p.String() == s {
			return p, true
		}
	}
	return PoolUnknown, false
}

// Known reports whether it is a pool there is.
func (p Pool) Known() bool { return p.Cap() > 0 }

// Cap is how many swabs go into a tube of this pool; 0 for an unknown one. A
// household may not be larger than the tube.
func (p Pool) Cap() int {
	switch p {
	case PoolSingle, PoolFive, PoolTen, PoolTwenty:
		return int(p)
	case PoolHousehold:
		return 20
	}
	return 0
}

// Single reports whether a result of the tube is this one person's own.
func (p Pool) Single() bool { return p == PoolSingle }

// Channel is how the person was read at the booth.
type Channel int32

// The channels there are.
const (
	ChannelUnknown Channel = 0
	ChannelCode    Channel = 1
	ChannelIDCard  Channel = 2
	ChannelManual  Channel = 3
	ChannelOffline Channel = 4
)

var channelNames = [...]string{"unknown", "code", "id_card", "manual", "offline"}

// String is the channel's name.
func (c Channel) String() string { return name(channelNames[:], int(c)) }

// ParseChannel reads what String writes.
func ParseChannel(s string) (Channel, bool) {
	i := number(channelNames[:], s)
	return Channel(i), i > 0
}

// Outcome is what a lab says of a tube.
type Outcome int32

// The outcomes a lab may report.
const (
	OutcomeUnknown      Outcome = 0
	OutcomeNegative     Outcome = 1
	OutcomePositive     Outcome = 2
	OutcomeInconclusive Outcome = 3
	OutcomeInvalid      Outcome = 4
)

// What a reader may find in place of an outcome. No fact carries these.
const (
	OutcomePending  Outcome = 0  // no result counts yet
	OutcomeConflict Outcome = -1 // the results that count contradict one another
)

var outcomeNames = [...]string{"pending", "negative", "positive", "inconclusive", "invalid"}

// String is the outcome's name; 0 is "pending".
func (o Outcome) String() string {
	if o == OutcomeConflict {
		return "conflict"
	}
	return name(outcomeNames[:], int(o))
}

// ParseOutcome reads the name of an outcome that a lab may report.
func ParseOutcome(s string) (Outcome, bool) {
	i := number(outcomeNames[:], s)
	return Outcome(i), i > 0
}

// Known reports whether a lab may report it.
func (o Outcome) Known() bool { return o >= OutcomeNegative && o <= OutcomeInvalid }

func name(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return "unknown"
	}
	return names[i]
}

func number(names []string, s string) int {
	for i, n := range names {
		if n == s {
			return i
		}
	}
	return 0
}
