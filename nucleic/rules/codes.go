package rules

// Codes of rows that a door does not plainly accept. They are stable; the API
// has a sentence and a way out for each.
const (
	// What is wrong with the row itself.
	Malformed         = "malformed"
	InvalidTube       = "invalid_tube"
	InvalidPerson     = "invalid_person"
	InvalidPool       = "invalid_pool"
	InvalidSite       = "invalid_site"
	InvalidName       = "invalid_name"
	InvalidDivision   = "invalid_division"
	InvalidChannel    = "invalid_channel"
	InvalidOperator   = "invalid_operator"
	InvalidDevice     = "invalid_device"
	InvalidLab        = "invalid_lab"
	InvalidBox        = "invalid_box"
	InvalidRevision   = "invalid_revision"
	InvalidOutcome    = "invalid_outcome"
	InvalidMethod     = "invalid_method"
	InvalidReason     = "invalid_reason"
	InvalidCount      = "invalid_count"
	TimeMissing       = "time_missing"
	TimeTooOld        = "time_too_old"
	TimeInFuture      = "time_in_future"
	SampledInFuture   = "sampled_in_future"
	SampledTooOld     = "sampled_too_old"
	TimesOutOfOrder   = "times_out_of_order"
	PoolOfPools       = "pool_of_pools"
	ReceptionOfWhat   = "reception_of_what"
	CorrectionOfWhat  = "correction_of_what"
	SampledAfterTest  = "sampled_after_test"  // with Conflicts
	TestedBeforeSwab  = "tested_before_swab"  // with Conflicts
	ResultConflict    = "result_conflict"     // with Conflicts
	TubeUnknown       = "tube_unknown"        // from here on: what is held says no
	TubeFull          = "tube_full"           // one swab more than the pool
	TubeSealed        = "tube_sealed"         // no more swabs
	TubeCrowded       = "tube_crowded"        // a bound on what is kept of one tube
	PoolMismatch      = "pool_mismatch"       // the tube is for another pool
	CountMismatch     = "count_mismatch"      // counted by hand, and held here
	BoxFull           = "box_full"            // a bound on tubes in one box
	RegistrationVoid  = "registration_voided" // corrected away earlier
	RegistrationNone  = "registration_unknown"
	ResultVoid        = "result_voided"
	ResultNone        = "result_unknown"
	ResultAmbiguous   = "result_ambiguous"
	AlreadyCorrected  = "already_corrected"
	RebindWithoutBind = "rebind_of_result"
)

// Codes lists every code, for the table that explains them.
var Codes = []string{
	Malformed, InvalidTube, InvalidPerson, InvalidPool, InvalidSite, InvalidName, InvalidDivision, InvalidChannel,
	InvalidOperator, InvalidDevice, InvalidLab, InvalidBox, InvalidRevision, InvalidOutcome, InvalidMethod,
	InvalidReason, InvalidCount, TimeMissing, TimeTooOld, TimeInFuture, SampledInFuture, SampledTooOld,
	TimesOutOfOrder, PoolOfPools, ReceptionOfWhat, CorrectionOfWhat, SampledAfterTest, TestedBeforeSwab,
	ResultConflict, TubeUnknown, TubeFull, TubeSealed, TubeCrowded, PoolMismatch, CountMismatch, BoxFull,
	RegistrationVoid, RegistrationNone, ResultVoid, ResultNone, ResultAmbiguous, AlreadyCorrected, RebindWithoutBind,
}
