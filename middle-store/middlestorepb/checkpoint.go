package middlestorepb

import "google.golang.org/protobuf/encoding/protowire"

// CheckpointOpenRequest asks a peer to hold a copy of its store still.
type CheckpointOpenRequest struct{ By string }

// CheckpointOpenResponse describes the copy.
type CheckpointOpenResponse struct {
	ID     uint64
	Files  []File
	Facts  uint64 // folded into it, over all origins; 0: nothing worth copying
	Layout uint32 // of the keys
}

// File is one file of a copy.
type File struct {
	Name string
	Size uint64
}

// CheckpointReadRequest asks for a part of a file.
type CheckpointReadRequest struct {
	ID     uint64
	File   uint32 // index into Files
	Offset uint64
}

// CheckpointReadResponse is a part of a file.
type CheckpointReadResponse struct {
	Data []byte
	CRC  uint32 // CRC-32C of Data
}

// CheckpointCloseRequest lets the copy go.
type CheckpointCloseRequest struct{ ID uint64 }

// Append encodes the request behind dst.
func (r *CheckpointOpenRequest) Append(dst []byte) []byte { return appendText(dst, 1, r.By) }

// Decode reads the request.
func (r *CheckpointOpenRequest) Decode(p []byte) error {
	*r = CheckpointOpenRequest{}
	return each(p, func(f *field) (ok bool) {
		ok = true
		if f.string(1) {
			r.By, ok = f.text, f.utf8()
		}
		return ok
	})
}

// Append encodes the response behind dst.
func (r *CheckpointOpenResponse) Append(dst []byte) []byte {
	dst = appendUint(dst, 1, r.ID)
	for i := range r.Files {
		dst = appendSub(dst, 2, func(b []byte) []byte {
			return appendUint(appendText(b, 1, r.Files[i].Name), 2, r.Files[i].Size)
		})
	}
	dst = appendUint(dst, 3, r.Facts)
	return appendUint(dst, 4, uint64(r.Layout))
}

// Decode reads the response.
func (r *CheckpointOpenResponse) Decode(p []byte) error {
	*r = CheckpointOpenResponse{}
	return each(p, func(f *field) (ok bool) {
		ok = true
		switch {
		case f.uint(1):
			r.ID = f.varint
		case f.is(2, protowire.BytesType):
			var file File
			ok = file.decode(f.bytes) == nil
			r.Files = append(r.Files, file)
		case f.uint(3):
			r.Facts = f.varint
		case f.uint(4):
			r.Layout = uint32(f.varint)
		}
		return ok
	})
}

func (x *File) decode(p []byte) error {
	return each(p, func(f *field) (ok bool) {
		ok = true
		switch {
		case f.string(1):
			x.Name, ok = f.text, f.utf8()
		case f.uint(2):
			x.Size = f.varint
		}
		return ok
	})
}

// Append encodes the request behind dst.
func (r *CheckpointReadRequest) Append(dst []byte) []byte {
	return appendUint(appendUint(appendUint(dst, 1, r.ID), 2, uint64(r.File)), 3, r.Offset)
}

// Decode reads the request.
func (r *CheckpointReadRequest) Decode(p []byte) error {
	*r = CheckpointReadRequest{}
	return each(p, func(f *field) bool {
		switch {
		case f.uint(1):
			r.ID = f.varint
		case f.uint(2):
			r.File = uint32(f.varint)
		case f.uint(3):
			r.Offset = f.varint
		}
		return true
	})
}

// Append encodes the response behind dst.
func (r *CheckpointReadResponse) Append(dst []byte) []byte {
	if len(r.Data) > 0 {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 1, protowire.BytesType), r.Data)
	}
	if r.CRC != 0 {
		dst = protowire.AppendFixed32(protowire.AppendTag(dst, 2, protowire.Fixed32Type), r.CRC)
	}
	return dst
}

// Decode reads the response; Data aliases p.
func (r *CheckpointReadResponse) Decode(p []byte) error {
	*r = CheckpointReadResponse{}
	for len(p) > 0 {
		num, typ, n := protowire.ConsumeTag(p)
		if n < 0 || num > protowire.MaxValidNumber {
			return ErrMalformed
		}
		p = p[n:]
		switch {
		case num == 1 && typ == protowire.BytesType:
			r.Data, n = protowire.ConsumeBytes(p)
		case num == 2 && typ == protowire.Fixed32Type:
			r.CRC, n = protowire.ConsumeFixed32(p)
		default:
			n = protowire.ConsumeFieldValue(num, typ, p)
		}
		if n < 0 {
			return ErrMalformed
		}
		p = p[n:]
	}
	return nil
}

// Append encodes the request behind dst.
func (r *CheckpointCloseRequest) Append(dst []byte) []byte { return appendUint(dst, 1, r.ID) }

// Decode reads the request.
func (r *CheckpointCloseRequest) Decode(p []byte) error {
	*r = CheckpointCloseRequest{}
	return each(p, func(f *field) bool {
		if f.uint(1) {
			r.ID = f.varint
		}
		return true
	})
}

// each walks a message that is not on the hot path.
func each(p []byte, fn func(f *field) bool) error {
	var f field
	for m := open(p); len(m.p) > 0; {
		if !m.next(&f) || !fn(&f) {
			return ErrMalformed
		}
	}
	return nil
}
