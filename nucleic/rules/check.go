package rules

import (
	"time"
	"unicode/utf8"

	"qianma/nucleic/nucleicpb"
)

// Bounds of a door.
const (
	// Ahead is how far in the future a stated time may lie: clocks differ.
	Ahead = 10 * time.Minute

	MaxTube     = 32   // bytes of a tube's code
	MaxID       = 64   // bytes of a site, lab, box, operator, device, method
	MaxName     = 128  // bytes of a site's name
	MaxReason   = 500  // bytes of a correction's reason
	MaxRevision = 1000 // of a result or a binding

	// MaxMembers bounds how many people one tube has ever been bound to, and
	// MaxTubeFacts how many facts other than registrations are kept of it, so
	// that no tube costs more than a glance. MaxBox bounds a box.
	MaxMembers   = 64
	MaxTubeFacts = 64
	MaxBox       = 1000
)

// Epoch is the earliest time a fact may state: before it the disease was not
// known, so an earlier time is a mistake of the keyboard.
var Epoch = time.Date(2019, 12, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// Check judges a command by itself, at a time in Unix nanoseconds, without
// looking at anything held. It returns the code of the first fault or "".
// The API calls it to refuse early, Decide calls it so that nothing gets past.
func Check(f *nucleicpb.Fact, at int64) string {
	c := checker{now: at / int64(time.Millisecond)}
	switch f.Kind {
	case nucleicpb.KindSiteOpened:
		c.site(&f.SiteOpened)
	case nucleicpb.KindTubeOpened:
		c.tubeOpened(&f.TubeOpened)
	case nucleicpb.KindRegistered:
		c.registered(&f.Registered)
	case nucleicpb.KindTubeSealed:
		c.tubeSealed(&f.TubeSealed)
	case nucleicpb.KindBoxed:
		c.boxed(&f.Boxed)
	case nucleicpb.KindLabReceived:
		c.labReceived(&f.LabReceived)
	case nucleicpb.KindResulted:
		c.resulted(&f.Resulted)
	case nucleicpb.KindCorrected:
		c.corrected(&f.Corrected)
	default:
		return Malformed
	}
	return c.code
}

// CheckRegistered is Check for a registration at hand.
func CheckRegistered(m *nucleicpb.Registered, at int64) string {
	c := checker{now: at / int64(time.Millisecond)}
	c.registered(m)
	return c.code
}

// CheckResulted is Check for a result at hand.
func CheckResulted(m *nucleicpb.Resulted, at int64) string {
	c := checker{now: at / int64(time.Millisecond)}
	c.resulted(m)
	return c.code
}

// checker keeps the first fault it meets.
type checker struct {
	now  int64
	code string
}

func (c *checker) need(ok bool, code string) {
	if !ok && c.code == "" {
		c.code = code
	}
}

func (c *checker) tube(p []byte) { c.need(validTube(p), InvalidTube) }

// id is a required name of a thing: short, printable.
func (c *checker) id(p []byte, code string) { c.need(len(p) > 0 && validText(p, MaxID), code) }

func (c *checker) optional(p []byte, limit int, code string) { c.need(validText(p, limit), code) }

// when is a required time.
func (c *checker) when(ms int64) {
	c.need(ms != 0, TimeMissing)
	c.maybeWhen(ms)
}

func (c *checker) maybeWhen(ms int64) {
	c.need(ms == 0 || ms >= Epoch, TimeTooOld)
	c.need(ms <= c.now+Ahead.Milliseconds(), TimeInFuture)
}

func (c *checker) site(m *nucleicpb.SiteOpened) {
	c.id(m.Site, InvalidSite)
	c.optional(m.Name, MaxName, InvalidName)
	c.need(validDivision(m.Division), InvalidDivision)
	c.optional(m.Operator, MaxID, InvalidOperator)
	c.when(m.OpenedAt)
}

func (c *checker) tubeOpened(m *nucleicpb.TubeOpened) {
	c.tube(m.Tube)
	c.need(len(m.From) == 0, PoolOfPools)
	c.need(m.Pool.Known(), InvalidPool)
	c.optional(m.Site, MaxID, InvalidSite)
	c.optional(m.Operator, MaxID, InvalidOperator)
	c.when(m.OpenedAt)
}

func (c *checker) registered(m *nucleicpb.Registered) {
	c.tube(m.Tube)
	c.need(len(m.Person) == nucleicpb.PersonSize, InvalidPerson)
	c.need(m.Pool.Known(), InvalidPool)
	c.id(m.Site, InvalidSite)
	c.need(m.SampledAt != 0, TimeMissing)
	c.need(m.SampledAt >= Epoch, SampledTooOld)
	c.need(m.SampledAt <= c.now+Ahead.Milliseconds(), SampledInFuture)
	c.need(m.Channel >= nucleicpb.ChannelUnknown && m.Channel <= nucleicpb.ChannelOffline, InvalidChannel)
	c.optional(m.Operator, MaxID, InvalidOperator)
	c.optional(m.Device, MaxID, InvalidDevice)
	c.need(validDivision(m.Division), InvalidDivision)
	c.need(m.Revision <= MaxRevision, InvalidRevision)
}

func (c *checker) tubeSealed(m *nucleicpb.TubeSealed) {
	c.tube(m.Tube)
	c.optional(m.Operator, MaxID, InvalidOperator)
	c.need(m.Count <= MaxMembers, InvalidCount)
	c.when(m.SealedAt)
}

func (c *checker) boxed(m *nucleicpb.Boxed) {
	c.id(m.Box, InvalidBox)
	c.tube(m.Tube)
	c.optional(m.Operator, MaxID, InvalidOperator)
	c.when(m.PackedAt)
}

func (c *checker) labReceived(m *nucleicpb.LabReceived) {
	c.id(m.Lab, InvalidLab)
	c.need((len(m.Tube) == 0) != (len(m.Box) == 0), ReceptionOfWhat)
	if len(m.Box) > 0 {
		c.id(m.Box, InvalidBox)
	} else {
		c.tube(m.Tube)
	}
	c.optional(m.Operator, MaxID, InvalidOperator)
	c.when(m.ReceivedAt)
}

func (c *checker) resulted(m *nucleicpb.Resulted) {
	c.tube(m.Tube)
	c.id(m.Lab, InvalidLab)
	c.need(m.Revision >= 1 && m.Revision <= MaxRevision, InvalidRevision)
	c.need(m.Outcome.Known(), InvalidOutcome)
	c.maybeWhen(m.ReceivedAt)
	c.when(m.TestedAt)
	c.when(m.ReportedAt)
	c.need(m.ReceivedAt <= m.TestedAt && m.TestedAt <= m.ReportedAt, TimesOutOfOrder)
	c.optional(m.Method, MaxID, InvalidMethod)
	c.optional(m.Operator, MaxID, InvalidOperator)
}

func (c *checker) corrected(m *nucleicpb.Corrected) {
	c.tube(m.Tube)
	c.id(m.Operator, InvalidOperator)
	c.need(len(m.Reason) > 0 && validText(m.Reason, MaxReason), InvalidReason)
	c.need(m.Revision <= MaxRevision, InvalidRevision)
	c.when(m.CorrectedAt)
	if len(m.Person) > 0 {
		c.need(len(m.Person) == nucleicpb.PersonSize, InvalidPerson)
		c.need(len(m.Lab) == 0 && m.Outcome == nucleicpb.OutcomeUnknown, CorrectionOfWhat)
		c.rebinding(m)
		return
	}
	c.need(m.Revision >= 1, CorrectionOfWhat)
	c.optional(m.Lab, MaxID, InvalidLab)
	c.need(m.Outcome == nucleicpb.OutcomeUnknown || m.Outcome.Known(), InvalidOutcome)
	c.need(m.Rebind == nil, RebindWithoutBind)
}

// rebinding checks what a correction states of the registration that takes
// the voided one's place; Decide fills in what it leaves out.
func (c *checker) rebinding(m *nucleicpb.Corrected) {
	if m.Rebind == nil {
		return
	}
	bound, ok := m.Bound()
	c.need(ok, Malformed)
	c.need(len(bound.Person) == nucleicpb.PersonSize, InvalidPerson)
	c.need(bound.Pool == nucleicpb.PoolUnknown || bound.Pool.Known(), InvalidPool)
	c.need(bound.SampledAt == 0 || bound.SampledAt >= Epoch, SampledTooOld)
	c.need(bound.SampledAt <= c.now+Ahead.Milliseconds(), SampledInFuture)
}

// validTube: what a barcode on a tube can say.
func validTube(p []byte) bool {
	if len(p) < 4 || len(p) > MaxTube {
		return false
	}
	for _, b := range p {
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && b != '-' {
			return false
		}
	}
	return true
}

// validText: printable, bounded; empty is fine.
func validText(p []byte, limit int) bool {
	if len(p) > limit || !utf8.Valid(p) {
		return false
	}
	for _, b := range p {
		if b < ' ' || b == 0x7f {
			return false
		}
	}
	return true
}

// validDivision: a GB/T 2260 code of 6 to 12 digits, or none.
func validDivision(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if len(p) < 6 || len(p) > 12 {
		return false
	}
	for _, b := range p {
		if b < '0' || b > '9' {
			return false
		}
	}
	return true
}
