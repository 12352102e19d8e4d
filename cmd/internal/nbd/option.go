package nbd

import (
	"encoding/binary"
	"io"
)

const (
	// maxOptReply is the most that one reply to an option carries, in bytes:
	// two strings of 4 KiB (section "Conventions") and what is around them.
	maxOptReply = 16 << 10
	// maxOptReplies is how many replies a server may send to one option. A list
	// of exports has one for each.
	maxOptReplies = 10000
)

// option sends an option and calls each with the replies until the last, the
// acknowledgement, for which it is not called; each may be nil. A refusal is an
// [*OptionError], or ErrTLSRequired.
func (s *session) option(option uint32, data []byte, each func(reply uint32, data []byte) error) error {
	if err := s.sendOption(option, data); err != nil {
		return err
	}
	for range maxOptReplies {
		reply, data, err := s.optionReply(option)
		switch {
		case err != nil:
			return err
		case reply == repAck:
			return nil
		case reply == repErrTLSReqd:
			return ErrTLSRequired
		case reply&repError != 0:
			return &OptionError{option, reply, printable(data)}
		case each == nil:
			return violation("reply %d to option %d", reply, option)
		}
		if err := each(reply, data); err != nil {
			return err
		}
	}
	return violation("more than %d replies to option %d", maxOptReplies, option)
}

func (s *session) sendOption(option uint32, data []byte) error {
	b := make([]byte, 0, optionHeader+len(data))
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := s.conn.Write(append(b, data...))
	return err
}

// optionReply reads one reply to option.
func (s *session) optionReply(option uint32) (reply uint32, data []byte, err error) {
	var b [optReplySize]byte
	if _, err := io.ReadFull(s.conn, b[:]); err != nil {
		return 0, nil, err
	}
	magic, to := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint32(b[8:])
	reply, length := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	switch {
	case magic != magicOptReply:
		return 0, nil, violation("magic number %#x of a reply to an option", magic)
	case to != option:
		return 0, nil, violation("a reply to option %d in place of %d", to, option)
	case length > maxOptReply:
		return 0, nil, violation("a reply of %d bytes to option %d", length, option)
	}
	data = make([]byte, length)
	_, err = io.ReadFull(s.conn, data)
	return reply, data, err
}

// appendString appends a string with its length before it.
func appendString(b []byte, text string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}
