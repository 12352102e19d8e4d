package nbd

import (
	"bufio"
	"encoding/binary"
	"io"
)

const (
	// maxErrorChunk is the most that an error carries, in bytes; its message
	// has at most 4 KiB (section "Conventions", strings).
	maxErrorChunk = 8 << 10
	// maxErrorChunks is how many errors one reply may have.
	maxErrorChunks = 1024
	// maxStatusChunk is the most that a reply to BLOCK_STATUS carries, in bytes:
	// the million extents that nbdkit sends at most.
	maxStatusChunk = 4 + 8<<20
)

// decoder reads what a server sends in the transmission phase.
type decoder struct {
	r          *bufio.Reader
	structured bool
	context    uint32 // ID of base:allocation
	// lookup returns the request in flight with a handle, or nil.
	lookup func(handle uint64) *request
}

// next reads one message. It returns the handle and the request that it
// finishes, or nil if there is more to come for it. An error means that nothing
// that follows can be understood.
func (d *decoder) next() (uint64, *request, error) {
	var magic [4]byte
	if _, err := io.ReadFull(d.r, magic[:]); err != nil {
		return 0, nil, err
	}
	var handle uint64
	var r *request
	var done bool
	var err error
	switch m := binary.BigEndian.Uint32(magic[:]); {
	case m == magicSimple:
		done = true
		handle, r, err = d.simple()
	case m == magicStructured && d.structured:
		handle, r, done, err = d.chunk()
	default:
		err = violation("magic number %#x of a reply", m)
	}
	if err == nil && done {
		err = r.complete()
	}
	switch {
	case err == io.EOF:
		return 0, nil, io.ErrUnexpectedEOF
	case err != nil:
		return 0, nil, err
	case !done:
		return 0, nil, nil
	}
	return handle, r, nil
}

// find returns the request in flight with a handle.
func (d *decoder) find(handle uint64) (*request, error) {
	if r := d.lookup(handle); r != nil {
		return r, nil
	}
	return nil, violation("a reply to a request %#x that is not in flight", handle)
}

// simple reads a simple reply.
func (d *decoder) simple() (uint64, *request, error) {
	var b [12]byte // section "Simple reply message", without the magic number
	if _, err := io.ReadFull(d.r, b[:]); err != nil {
		return 0, nil, err
	}
	code, handle := binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint64(b[4:])
	r, err := d.find(handle)
	if err != nil {
		return 0, nil, err
	}
	switch {
	case code != 0:
		r.refuse(code, nil, r.off)
	case r.command == cmdRead && d.structured:
		return 0, nil, violation("a simple reply to a read")
	case r.command == cmdRead:
		if _, err := io.ReadFull(d.r, r.data); err != nil {
			return 0, nil, err
		}
		r.covered.add(0, r.length)
	}
	return handle, r, nil
}

// chunk reads one chunk of a structured reply.
func (d *decoder) chunk() (handle uint64, r *request, done bool, err error) {
	var b [16]byte // section "Structured reply chunk message", without the magic number
	if _, err := io.ReadFull(d.r, b[:]); err != nil {
		return 0, nil, false, err
	}
	flags, kind := binary.BigEndian.Uint16(b[:]), binary.BigEndian.Uint16(b[2:])
	handle = binary.BigEndian.Uint64(b[4:])
	length := int64(binary.BigEndian.Uint32(b[12:]))
	done = flags&replyFlagDone != 0
	if r, err = d.find(handle); err != nil {
		return 0, nil, false, err
	}
	switch {
	case kind == replyNone && length == 0 && done:
	case kind == replyOffsetData && r.command == cmdRead && length > 8:
		err = d.data(r, length-8)
	case kind == replyOffsetHole && r.command == cmdRead && length == 12:
		err = d.hole(r)
	case kind == replyBlockStatus && r.command == cmdBlockStatus:
		err = d.status(r, length)
	case kind&replyErrorBit != 0:
		err = d.refusal(r, kind, length)
	default:
		err = violation("a chunk of type %d with %d bytes in a reply to %s", kind, length, commandName(r.command))
	}
	return handle, r, done, err
}

// data reads an offset and n bytes of a read.
func (d *decoder) data(r *request, n int64) error {
	var b [8]byte
	if _, err := io.ReadFull(d.r, b[:]); err != nil {
		return err
	}
	part, err := r.part(binary.BigEndian.Uint64(b[:]), n)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(d.r, part)
	return err
}

// hole reads which part of a read is zeros.
func (d *decoder) hole(r *request) error {
	var b [12]byte
	if _, err := io.ReadFull(d.r, b[:]); err != nil {
		return err
	}
	part, err := r.part(binary.BigEndian.Uint64(b[:]), int64(binary.BigEndian.Uint32(b[8:])))
	clear(part)
	return err
}

// part returns where n bytes at off of the export belong, and notes that they
// have come.
func (r *request) part(off uint64, n int64) ([]byte, error) {
	start := off - uint64(r.off) // wraps around for an offset before the request
	if start > uint64(r.length) || n > r.length-int64(start) || n == 0 {
		return nil, violation("%d bytes at %#x in a reply to a read of %d at %#x", n, off, r.length, r.off)
	}
	from := int64(start)
	if !r.covered.add(from, from+n) {
		return nil, violation("bytes at %#x twice in a reply to a read, or in too many pieces", off)
	}
	return r.data[from : from+n], nil
}

// refusal reads an error chunk of length bytes.
func (d *decoder) refusal(r *request, kind uint16, length int64) error {
	r.errors++
	least := int64(6)
	if kind == replyErrorOffset {
		least += 8
	}
	if length < least || length > maxErrorChunk || r.errors > maxErrorChunks {
		return violation("error %d of a reply has %d bytes", r.errors, length)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(d.r, b); err != nil {
		return err
	}
	code, size := binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint16(b[4:]))
	if code == 0 || size > length-least {
		return violation("error value %d with a message of %d bytes in %d", code, size, length)
	}
	off := r.off
	if kind == replyErrorOffset {
		at := binary.BigEndian.Uint64(b[6+size:])
		if at-uint64(r.off) >= uint64(max(r.length, 1)) {
			return violation("an error at %#x in a reply about %d bytes at %#x", at, r.length, r.off)
		}
		off = int64(at)
	}
	r.refuse(code, b[6:6+size], off)
	return nil
}
