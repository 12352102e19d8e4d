package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
)

// session is a connection during the handshake. It reads no byte beyond what it
// decodes: what comes in plain text after the acknowledgement of STARTTLS must
// not count as encrypted.
type session struct {
	raw      net.Conn // the socket
	conn     net.Conn // raw, or TLS on it
	name     string   // of the export
	noZeroes bool     // the reply to EXPORT_NAME has no zeros after it
}

// export is what was negotiated.
type export struct {
	size       int64 // bytes
	flags      uint16
	blocks     Blocks
	structured bool
	// context is the ID of base:allocation if hasContext is set.
	context    uint32
	hasContext bool
}

// negotiate goes through the handshake. config is nil for a connection in plain
// text. It ends with ctx, which must have a deadline.
func (s *session) negotiate(ctx context.Context, config *tls.Config, status bool) (export, error) {
	fixed, err := s.greet()
	if err != nil {
		return export{}, err
	}
	if !fixed {
		// Section "Option types": EXPORT_NAME is the only option there is.
		if config != nil {
			return export{}, ErrTLSRefused
		}
		return s.exportName(export{})
	}
	e, err := s.haggle(ctx, config, status)
	if isRefusal(err) {
		// Section "Termination of the session during option haggling". The
		// server may close without an answer.
		s.sendOption(optAbort, nil)
	}
	return e, err
}

// isRefusal says whether the server is still there after err.
func isRefusal(err error) bool {
	if errors.Is(err, ErrTLSRequired) || errors.Is(err, ErrTLSRefused) {
		return true
	}
	_, option := errors.AsType[*OptionError](err)
	_, export := errors.AsType[*ExportError](err)
	return option || export
}

// greet exchanges the greetings, and says whether the server knows the fixed
// newstyle negotiation.
func (s *session) greet() (fixed bool, err error) {
	var b [18]byte // section "Newstyle negotiation"
	if _, err := io.ReadFull(s.conn, b[:16]); err != nil {
		return false, err
	}
	if binary.BigEndian.Uint64(b[:]) != magicServer {
		return false, ErrNotNBD
	}
	switch magic := binary.BigEndian.Uint64(b[8:]); magic {
	case magicNewstyle:
	case magicOldstyle:
		return false, ErrOldstyle
	default:
		return false, violation("magic number %#x of the negotiation", magic)
	}
	if _, err := io.ReadFull(s.conn, b[16:]); err != nil {
		return false, err
	}
	flags := binary.BigEndian.Uint16(b[16:]) & (flagFixedNewstyle | flagNoZeroes)
	s.noZeroes = flags&flagNoZeroes != 0
	// Section "Client flags": the same bits, and none that the server lacks.
	if _, err := s.conn.Write(binary.BigEndian.AppendUint32(nil, uint32(flags))); err != nil {
		return false, err
	}
	return flags&flagFixedNewstyle != 0, nil
}

// haggle negotiates options and chooses the export.
func (s *session) haggle(ctx context.Context, config *tls.Config, status bool) (e export, err error) {
	if config != nil {
		if err := s.startTLS(ctx, config); err != nil {
			return e, err
		}
	}
	err = s.option(optStructuredReply, nil, nil)
	e.structured = err == nil
	if err := tolerate(err); err != nil {
		return e, err
	}
	if status && e.structured {
		if err := s.setContext(&e); err != nil {
			return e, err
		}
	}
	return s.enter(e)
}

// tolerate drops the error of an option that the server may refuse.
func tolerate(err error) error {
	if e, ok := errors.AsType[*OptionError](err); ok && e.reply != repErrShutdown {
		return nil
	}
	return err
}

func (s *session) startTLS(ctx context.Context, config *tls.Config) error {
	err := s.option(optStartTLS, nil, nil)
	if refused, ok := errors.AsType[*OptionError](err); ok {
		return fmt.Errorf("%w: %w", ErrTLSRefused, refused)
	}
	if err != nil {
		return err
	}
	conn := tls.Client(s.raw, config)
	s.conn = conn
	err = conn.HandshakeContext(ctx)
	if _, network := errors.AsType[net.Error](err); err != nil && !network && !isEnd(err) {
		return &TLSError{err}
	}
	return err
}

// setContext asks for base:allocation. A server that does not have the export
// says so when it is chosen.
func (s *session) setContext(e *export) error {
	data := appendString(nil, s.name)
	data = binary.BigEndian.AppendUint32(data, 1) // queries
	data = appendString(data, contextAllocation)
	err := s.option(optSetMetaContext, data, func(reply uint32, data []byte) error {
		switch {
		case reply != repMetaContext || len(data) < 4:
			return violation("reply %d of %d bytes to the choice of a metadata context", reply, len(data))
		case e.hasContext || string(data[4:]) != contextAllocation:
			return violation("a metadata context %q that was not asked for", printable(data[4:]))
		}
		e.context, e.hasContext = binary.BigEndian.Uint32(data), true
		return nil
	})
	return tolerate(err)
}

// enter chooses the export and enters the transmission phase.
func (s *session) enter(e export) (export, error) {
	data := appendString(nil, s.name)
	data = binary.BigEndian.AppendUint16(data, 1) // requests for information
	data = binary.BigEndian.AppendUint16(data, infoBlockSize)
	var described bool
	var blocks *Blocks
	err := s.option(optGo, data, func(reply uint32, data []byte) error {
		if reply != repInfo || len(data) < 2 {
			return violation("reply %d of %d bytes to the choice of an export", reply, len(data))
		}
		kind, data := binary.BigEndian.Uint16(data), data[2:]
		switch {
		case kind == infoExport && len(data) == 10:
			described = true
			return e.describe(binary.BigEndian.Uint64(data), binary.BigEndian.Uint16(data[8:]))
		case kind == infoBlockSize && len(data) == 12:
			b, err := statedBlocks(binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:]))
			blocks = &b
			return err
		case kind == infoExport || kind == infoBlockSize:
			return violation("information %d of %d bytes", kind, len(data))
		}
		return nil // nobody asked
	})
	if refused, ok := errors.AsType[*OptionError](err); ok {
		switch refused.reply {
		case repErrUnsup:
			return s.exportName(e)
		case repErrUnknown:
			return e, s.unknown(refused.Message)
		}
	}
	switch {
	case err != nil:
		return e, err
	case !described:
		return e, violation("the size of the export is missing")
	case blocks == nil:
		return e, nil
	case e.size%blocks.Minimum != 0:
		// Section "Block size constraints": its end could not be reached.
		return e, fmt.Errorf("the export has %d bytes, which is not a multiple of its block size of %d", e.size, blocks.Minimum)
	}
	e.blocks = *blocks
	return e, nil
}

// describe sets size and flags, and what follows from them.
func (e *export) describe(size uint64, flags uint16) error {
	if size > math.MaxInt64 {
		return violation("an export of %d bytes", size)
	}
	e.size, e.flags = int64(size), flags
	e.blocks = defaultBlocks(e.size)
	return nil
}

// exportName chooses the export as servers without OPT_GO have it. They can't
// refuse; they close the connection.
func (s *session) exportName(e export) (export, error) {
	if err := s.sendOption(optExportName, []byte(s.name)); err != nil {
		return e, err
	}
	b := make([]byte, 10, 10+exportPadding)
	if !s.noZeroes {
		b = b[:cap(b)]
	}
	if _, err := io.ReadFull(s.conn, b); errors.Is(err, io.EOF) {
		return e, &ExportError{Name: s.name, Message: "the server closed the connection"}
	} else if err != nil {
		return e, err
	}
	err := e.describe(binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:]))
	return e, err
}

// maxListed is how many names of exports an error has.
const maxListed = 8

// unknown returns the error for an export that the server does not have, with
// the names of others if it tells them.
func (s *session) unknown(message string) error {
	e := &ExportError{Name: s.name, Message: message}
	err := s.option(optList, nil, func(reply uint32, data []byte) error {
		if reply != repServer || len(data) < 4 {
			return violation("reply %d of %d bytes to the list of exports", reply, len(data))
		}
		length, rest := binary.BigEndian.Uint32(data), data[4:]
		if uint64(length) > uint64(len(rest)) {
			return violation("an export's name of %d bytes in %d", length, len(rest))
		}
		name := printable(rest[:length])
		if len(e.Exports) < maxListed && !slices.Contains(e.Exports, name) {
			e.Exports = append(e.Exports, name)
		}
		return nil
	})
	if err != nil {
		e.Exports = nil // it does not tell, or not in a way to rely on
	}
	return e
}
