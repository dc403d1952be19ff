package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes a chunk that it cannot read for the end of its log, unless a
// block behind it proves that it was synced. Within the last block (32 KiB)
// nothing is behind, so one wrong bit there would take every acknowledged entry
// and vote after it, without a word. The proof is in the block too: each chunk
// says how much of the file had been synced when it was written.

// The format of Pebble's log files (package record), as of FormatNewest.
const (
	walBlock     = 32 << 10
	walHead      = 4 + 2 + 1 + 4 + 8 // checksum, length, encoding, log number, synced
	walEncoding  = 9                 // the first of the four encodings that have all of that
	walEncodings = 4
)

var errTail = errors.New("raftlog: entries that were synced cannot be read")

// checkTail returns a CorruptError if the newest log file was damaged where it
// had been synced. What cannot be told from a write that was under way is the
// last chunk, for nothing after it vouches for it, and at times the one before:
// Pebble lets a writer go a moment before it notes how far the file is synced,
// so a chunk that follows at once may vouch only for what lies before its
// predecessor. Its successor was flushed after that note and vouches for all.
func checkTail(fs vfs.FS, dir string) error {
	path, number, err := newestLog(fs, dir)
	if err != nil || path == "" {
		return err
	}
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, walBlock)
	for at := int64(0); ; at += walBlock {
		n, err := io.ReadFull(f, block)
		if n > 0 {
			if end := readable(block[:n], number); end < n && vouched(block[end:n], number, at+int64(end)) {
				return &CorruptError{Path: path, Err: errTail}
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// newestLog is the log file that was written last; "" for none.
func newestLog(fs vfs.FS, dir string) (path string, number uint32, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return "", 0, err
	}
	slices.Sort(names)
	for _, name := range names {
		base, ok := strings.CutSuffix(filepath.Base(name), ".log")
		if n, err := strconv.ParseUint(base, 10, 32); ok && err == nil && uint32(n) >= number {
			path, number = fs.PathJoin(dir, name), uint32(n)
		}
	}
	return path, number, nil
}

// readable is how far a block's chunks can be read.
func readable(block []byte, number uint32) (at int) {
	for {
		size, _, ok := chunk(block[at:], number)
		if !ok {
			return at
		}
		at += size
	}
}

// vouched reports whether a chunk further on says that more than what begins
// here, at this offset of the file, had been synced.
func vouched(rest []byte, number uint32, offset int64) bool {
	for at := 1; at+walHead <= len(rest); at++ {
		if _, synced, ok := chunk(rest[at:], number); ok && int64(synced) > offset+walHead {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunk reads the chunk that begins here: its size and what it vouches for.
func chunk(b []byte, number uint32) (size int, synced uint64, ok bool) {
	if len(b) < walHead || b[6] < walEncoding || b[6] >= walEncoding+walEncodings || binary.LittleEndian.Uint32(b[7:]) != number {
		return 0, 0, false
	}
	size = walHead + int(binary.LittleEndian.Uint16(b[4:]))
	if size > len(b) {
		return 0, 0, false
	}
	c := crc32.Checksum(b[6:size], castagnoli)
	return size, binary.LittleEndian.Uint64(b[11:]), binary.LittleEndian.Uint32(b) == (c>>15|c<<17)+0xa282ead8
}
