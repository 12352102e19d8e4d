package nbd

import "encoding/binary"

// request is one request on its way.
type request struct {
	// Read only once it is sent.
	command     uint16
	flags       uint16
	off, length int64 // bytes; the length has 32 bits

	// Written by the receiver until done is closed, and then read by the caller.
	data    []byte // what READ fills, length bytes
	covered ranges // what of data has come
	runs    []Run  // what BLOCK_STATUS has told
	errors  int    // error chunks
	err     error
	done    chan struct{}
}

func newRequest(command uint16, off, length int64) *request {
	return &request{command: command, off: off, length: length, done: make(chan struct{})}
}

// header is the request as it is sent; section "Request message".
func (r *request) header(handle uint64) []byte {
	b := make([]byte, 0, requestSize)
	b = binary.BigEndian.AppendUint32(b, magicRequest)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, r.command)
	b = binary.BigEndian.AppendUint64(b, handle)
	b = binary.BigEndian.AppendUint64(b, uint64(r.off))
	return binary.BigEndian.AppendUint32(b, uint32(r.length))
}

// refuse notes the server's refusal; the first one counts.
func (r *request) refuse(code uint32, message []byte, off int64) {
	if r.err == nil {
		r.err = &Error{commandName(r.command), errno(code), printable(message), off}
	}
}

// complete checks that a reply without an error has all that was asked for.
func (r *request) complete() error {
	switch {
	case r.err != nil:
	case r.command == cmdRead && !r.covered.whole(r.length):
		return violation("a reply to a read of %d bytes at %#x without all of them", r.length, r.off)
	case r.command == cmdBlockStatus && len(r.runs) == 0:
		return violation("a reply to block status without a status")
	}
	return nil
}
