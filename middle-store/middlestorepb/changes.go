package middlestorepb

import "google.golang.org/protobuf/encoding/protowire"

// MaxChanges is the most subjects that are named at once.
const MaxChanges = 1 << 16

// ChangesRequest asks what has changed since a position.
type ChangesRequest struct {
	Epoch uint64 // the one After is of; 0: none is known
	After uint64
}

// ChangesResponse names the subjects that have changed.
type ChangesResponse struct {
	Head    LookupResponse // about nobody: as of when, and up to where
	Changed []uint32       // one for each position from behind After; none where All
}

// All reports whether anything may have changed: the epoch is not the one of the
// request, or there were too many changes to name.
func (r *ChangesResponse) All(asked ChangesRequest) bool {
	return r.Head.Epoch != asked.Epoch || asked.After+uint64(len(r.Changed)) != r.Head.Position
}

// Append encodes the request behind dst.
func (r *ChangesRequest) Append(dst []byte) []byte {
	return appendUint(appendUint(dst, 1, r.Epoch), 2, r.After)
}

// Decode reads the request.
func (r *ChangesRequest) Decode(p []byte) error {
	*r = ChangesRequest{}
	return each(p, func(f *field) bool {
		switch {
		case f.uint(1):
			r.Epoch = f.varint
		case f.uint(2):
			r.After = f.varint
		}
		return true
	})
}

// Append encodes the response behind dst.
func (r *ChangesResponse) Append(dst []byte) []byte {
	dst = appendSub(dst, 1, r.Head.Append)
	return appendNumbers(dst, 2, r.Changed)
}

// Decode reads the response.
func (r *ChangesResponse) Decode(p []byte) error {
	*r = ChangesResponse{}
	return each(p, func(f *field) (ok bool) {
		if f.is(1, protowire.BytesType) {
			return r.Head.mergeFrom(f.sub())
		}
		return f.numbers(2, &r.Changed)
	})
}
