package replica

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"qianma/cluster/raftlog"
)

// An archive is a flat directory as a stream: a magic, the number of files,
// each file's name and size, the contents in the same order, and a SHA-256 of
// all that. Its length is known before the first byte is read.

const (
	archiveMagic    = "qianma state 1\n"
	archiveFiles    = 1 << 16
	archiveFileName = 255
)

var errArchive = errors.New("replica: damaged snapshot stream")

type archiveFile struct {
	name string
	size int64
}

// pack returns a stream of the directory, which must not change, and its length.
func pack(fs vfs.FS, dir string) (io.ReadCloser, int64, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, 0, err
	}
	slices.Sort(names)
	var files []archiveFile
	for _, n := range names {
		info, err := fs.Stat(fs.PathJoin(dir, n))
		if err != nil {
			return nil, 0, err
		}
		if info.IsDir() {
			return nil, 0, fmt.Errorf("replica: a checkpoint holds a directory")
		}
		files = append(files, archiveFile{n, info.Size()})
	}
	head := archiveHead(files)
	size := int64(len(head)) + sha256.Size
	for _, f := range files {
		size += f.size
	}
	p := &packer{fs: fs, dir: dir, files: files, sum: sha256.New()}
	p.now = io.TeeReader(bytes.NewReader(head), p.sum)
	return p, size, nil
}

func archiveHead(files []archiveFile) []byte {
	head := []byte(archiveMagic)
	head = binary.AppendUvarint(head, uint64(len(files)))
	for _, f := range files {
		head = binary.AppendUvarint(head, uint64(len(f.name)))
		head = append(head, f.name...)
		head = binary.AppendUvarint(head, uint64(f.size))
	}
	return head
}

// packer reads the head, then each file, then the checksum.
type packer struct {
	fs    vfs.FS
	dir   string
	files []archiveFile // not begun yet
	sum   hash.Hash
	now   io.Reader
	file  vfs.File
	done  bool // now is the checksum
}

// Read implements io.Reader.
func (p *packer) Read(b []byte) (int, error) {
	for {
		n, err := p.now.Read(b)
		if n > 0 || (err != nil && err != io.EOF) {
			return n, err
		}
		if err == nil {
			continue
		}
		if p.done {
			return 0, io.EOF
		}
		if err := p.next(); err != nil {
			return 0, err
		}
	}
}

func (p *packer) next() error {
	if err := p.closeFile(); err != nil {
		return err
	}
	if len(p.files) == 0 {
		p.done, p.now = true, bytes.NewReader(p.sum.Sum(nil))
		return nil
	}
	f, err := p.fs.Open(p.fs.PathJoin(p.dir, p.files[0].name), vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	p.file = f
	p.now = io.TeeReader(io.LimitReader(f, p.files[0].size), p.sum)
	p.files = p.files[1:]
	return nil
}

func (p *packer) closeFile() error {
	f := p.file
	p.file = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// Close implements io.Closer.
func (p *packer) Close() error { return p.closeFile() }

// unpack writes a stream into a fresh directory and returns when every byte
// has been checked and is on disk.
func unpack(fs vfs.FS, dir string, r io.Reader) error {
	if err := raftlog.MakeDir(fs, dir); err != nil {
		return err
	}
	sum := sha256.New()
	in := &summed{r: bufio.NewReaderSize(r, 256<<10), sum: sum}
	files, err := readArchiveHead(in)
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	for _, f := range files {
		if err := unpackFile(fs, fs.PathJoin(dir, f.name), f.size, in, buf); err != nil {
			return err
		}
	}
	want := sum.Sum(nil)
	var got [sha256.Size]byte
	if _, err := io.ReadFull(in.r, got[:]); err != nil || !bytes.Equal(got[:], want) {
		return errors.Join(errArchive, err)
	}
	if _, err := in.r.ReadByte(); err != io.EOF {
		return errArchive
	}
	return raftlog.SyncDir(fs, dir)
}

// summed digests what is read through it.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

func readArchiveHead(r *summed) ([]archiveFile, error) {
	magic := make([]byte, len(archiveMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != archiveMagic {
		return nil, errors.Join(errArchive, err)
	}
	n, err := binary.ReadUvarint(r)
	if err != nil || n > archiveFiles {
		return nil, errors.Join(errArchive, err)
	}
	var files []archiveFile
	for range n {
		size, err := binary.ReadUvarint(r)
		if err != nil || size == 0 || size > archiveFileName {
			return nil, errors.Join(errArchive, err)
		}
		name := make([]byte, size)
		if _, err := io.ReadFull(r, name); err != nil {
			return nil, errors.Join(errArchive, err)
		}
		length, err := binary.ReadUvarint(r)
		if err != nil || length > 1<<40 || strings.ContainsAny(string(name), `/\`) || name[0] == '.' {
			return nil, errors.Join(errArchive, err)
		}
		files = append(files, archiveFile{string(name), int64(length)})
	}
	return files, nil
}

func unpackFile(fs vfs.FS, path string, size int64, r io.Reader, buf []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(archiveReader{r}, size), buf)
	if err == nil && n != size {
		err = errors.Join(errArchive, io.ErrUnexpectedEOF)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// archiveReader marks errors of the stream, to tell them from errors of the disk.
type archiveReader struct{ r io.Reader }

func (a archiveReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err != nil && err != io.EOF {
		err = errors.Join(errArchive, err)
	}
	return n, err
}
