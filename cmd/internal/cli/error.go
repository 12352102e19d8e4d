// Package cli holds what all verbs of the command share: errors with a hint
// and an exit code, and sizes as people write them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"flatimg/convert"
	"flatimg/layers"
)

// Exit codes of the command; README.md has the table.
const (
	ExitOK          = 0
	ExitFailure     = 1 // anything without a code of its own
	ExitUsage       = 2 // wrong flags or arguments
	ExitSource      = 3 // a source image is missing, unreadable, broken or not supported
	ExitRefused     = 4 // refused for safety; a flag allows it
	ExitExists      = 5 // the target exists
	ExitNoSpace     = 6 // the area or the target is full, or its format too small for the disk
	ExitServer      = 7 // the server can't be reached, or it refused
	ExitMount       = 8 // mounting or unmounting failed
	ExitPartial     = 9 // some of several images failed
	ExitInterrupted = 130
)

// Error is an error with what the user can do about it.
type Error struct {
	Err error
	// Hint says the flag or the command that helps; empty: none.
	Hint string
	// Code is the exit code; 0 means that of the wrapped error.
	Code int
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Usagef returns an error in the arguments.
func Usagef(format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Code: ExitUsage}
}

// hinter is implemented by errors of other packages that know what helps.
type hinter interface{ Hint() string }

// Report prints err and its hint to w and returns the exit code.
func Report(w io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	err = interrupted(err)
	fmt.Fprintf(w, "flatimg: error: %v\n", err)
	if h := Hint(err); h != "" {
		fmt.Fprintf(w, "flatimg: hint: %s\n", h)
	}
	return ExitCode(err)
}

// interrupted replaces the error of what a signal has ended: where it happened to
// be says nothing.
func interrupted(err error) error {
	if errors.Is(err, context.Canceled) {
		return &Error{Err: errors.New("interrupted"), Code: ExitInterrupted}
	}
	return err
}

// Fields are those of an error for programs.
type Fields struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"exit_code"`
}

// FieldsOf returns what [Report] prints and returns, for err that is not nil.
func FieldsOf(err error) Fields {
	err = interrupted(err)
	return Fields{err.Error(), Hint(err), ExitCode(err)}
}

// Hint returns what the user can do about err, or an empty string.
func Hint(err error) string {
	var e *Error
	if errors.As(err, &e) && e.Hint != "" {
		return e.Hint
	}
	var h hinter
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// ExitCode returns the exit code for err, which is not nil.
func ExitCode(err error) int {
	var e *Error
	if errors.As(err, &e) && e.Code != 0 {
		return e.Code
	}
	switch {
	case is[*convert.SpecError](err), is[*convert.PackedError](err):
		return ExitUsage
	case is[*convert.LimitError](err):
		return ExitNoSpace
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ExitNoSpace
	case errors.Is(err, layers.ErrOptions):
		return ExitUsage
	case errors.Is(err, layers.ErrRefused):
		return ExitRefused
	case errors.Is(err, layers.ErrSource):
		return ExitSource
	}
	return ExitFailure
}

// is says whether err is of a type, or wraps one that is.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
