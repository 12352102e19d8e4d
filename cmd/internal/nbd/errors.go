package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"
)

var (
	// ErrNotNBD is the error for a server that speaks another protocol.
	ErrNotNBD = errors.New("not an NBD server")
	// ErrOldstyle is the error for a server with the oldstyle negotiation.
	ErrOldstyle = errors.New("the server speaks the oldstyle protocol, which has no export names and no TLS")
	// ErrTLSRequired is the error for an nbd:// URL of a server that wants TLS.
	ErrTLSRequired = errors.New("the server requires TLS")
	// ErrTLSRefused is the error for an nbds:// URL of a server without TLS.
	ErrTLSRefused = errors.New("the server offers no TLS")
)

// AddressError says what is wrong with a URL. It does not quote the URL, which
// can have a password in it.
type AddressError struct{ Err error }

func (e *AddressError) Error() string { return "NBD URL: " + e.Err.Error() }
func (e *AddressError) Unwrap() error { return e.Err }

// TLSError is a failed TLS handshake, or certificates that can't be loaded.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return "TLS: " + e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// ExportError says that the server has no such export.
type ExportError struct {
	Name string
	// Exports are some of the names that the server has; empty: it doesn't
	// tell, or there are none.
	Exports []string
	// Message of the server; may be empty.
	Message string
}

func (e *ExportError) Error() string {
	text := fmt.Sprintf("no export %q", e.Name)
	if e.Message != "" {
		text += ": " + e.Message
	}
	if len(e.Exports) > 0 {
		text += fmt.Sprintf("; the server has %q", e.Exports)
	}
	return text
}

// OptionError is a server's refusal during the handshake.
type OptionError struct {
	option, reply uint32
	// Message of the server; may be empty.
	Message string
}

func (e *OptionError) Error() string {
	text := fmt.Sprintf("the server refuses option %d: ", e.option)
	switch e.reply {
	case repErrUnsup:
		text += "not supported"
	case repErrPolicy:
		text += "forbidden by its policy"
	case repErrInvalid:
		text += "invalid"
	case repErrPlatform:
		text += "not supported on its platform"
	case repErrShutdown:
		text += "it is shutting down"
	case repErrBlockSize:
		text += "it wants its block sizes to be obeyed"
	case repErrTooBig:
		text += "too big"
	case repErrExtHeaders:
		text += "it wants extended headers"
	default:
		text += fmt.Sprintf("error %d", e.reply&^repError)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Policy says whether the server's configuration forbids what was asked for.
func (e *OptionError) Policy() bool { return e.reply == repErrPolicy }

// Error is a server's refusal of a request. [errors.Is] compares it with values
// of [syscall.Errno], such as ENOSPC.
type Error struct {
	// Command that failed: read, write, flush, write zeroes or block status.
	Command string
	Code    syscall.Errno
	// Message of the server; may be empty.
	Message string
	// Offset in bytes at which it failed if the server told, else where the
	// request began.
	Offset int64
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s at offset %#x: %v", e.Command, e.Offset, e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

func (e *Error) Unwrap() error { return e.Code }

// ProtocolError says how a server broke the protocol.
type ProtocolError struct{ Err error }

func (e *ProtocolError) Error() string { return "the server breaks the NBD protocol: " + e.Err.Error() }
func (e *ProtocolError) Unwrap() error { return e.Err }

// violation returns a ProtocolError.
func violation(format string, args ...any) error {
	return &ProtocolError{fmt.Errorf(format, args...)}
}

// ConnectionError says that a connection could not be made, or broke.
type ConnectionError struct{ Err error }

func (e *ConnectionError) Error() string { return "NBD connection: " + e.Err.Error() }
func (e *ConnectionError) Unwrap() error { return e.Err }

// IsConnectionError says whether connecting again may help: the connection was
// refused or broke, or the server is shutting down.
func IsConnectionError(err error) bool {
	if _, ok := errors.AsType[*ConnectionError](err); ok {
		return true
	}
	if e, ok := errors.AsType[*OptionError](err); ok {
		return e.reply == repErrShutdown
	}
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == syscall.ESHUTDOWN
}

// IsServerError says whether an error is about the server or the connection to
// it, and not about a file of the caller.
func IsServerError(err error) bool {
	if _, ok := errors.AsType[*ProtocolError](err); ok {
		return true
	}
	return isServerError(err) || IsConnectionError(err) || errors.Is(err, net.ErrClosed)
}

// errno returns the error for a value that a server sent (section "Error
// values"; a value that is not listed there is taken for EINVAL). Linux has the
// same numbers.
func errno(value uint32) syscall.Errno {
	switch e := syscall.Errno(value); e {
	case syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC,
		syscall.EOVERFLOW, syscall.ENOTSUP, syscall.ESHUTDOWN:
		return e
	}
	return syscall.EINVAL
}

// maxShown is how many bytes of a server's text are shown.
const maxShown = 400

// printable returns a server's text without what a terminal would obey.
func printable(text []byte) string {
	if len(text) > maxShown {
		text = append(text[:maxShown:maxShown], "..."...)
	}
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, string(text))
	return strings.TrimSpace(clean)
}

// closedByPeer names the end of a connection in words.
func closedByPeer(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return errors.New("closed")
	}
	return fmt.Errorf("the server closed it: %w", err)
}

// isEnd says whether err is the end of a stream.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
