package layers

import (
	"errors"
	"fmt"
)

var (
	// ErrSource is wrapped by all errors that lie in a source image: it is
	// missing, unreadable, broken or of a kind that is not supported.
	ErrSource = errors.New("source image")
	// ErrRefused is wrapped by errors about what would be possible, but is
	// not done unless the user allows it.
	ErrRefused = errors.New("refused")
	// ErrOptions is wrapped by errors about [Options] themselves.
	ErrOptions = errors.New("options")
)

// marked is err, with a mark that errors.Is finds.
type marked struct {
	error
	mark error
}

func (m marked) Unwrap() []error { return []error{m.error, m.mark} }

// sourceError marks err as one of a source image.
func sourceError(err error) error {
	if err == nil || errors.Is(err, ErrSource) || errors.Is(err, ErrOptions) {
		return err
	}
	return marked{err, ErrSource}
}

// hintedError is an error of a source image with a way out.
type hintedError struct {
	error
	hint string
}

func (e hintedError) Unwrap() error { return e.error }

// Hint says what helps.
func (e hintedError) Hint() string { return e.hint }

func withHint(err error, format string, args ...any) error {
	return hintedError{err, fmt.Sprintf(format, args...)}
}
