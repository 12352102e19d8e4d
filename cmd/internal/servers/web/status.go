package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
)

// Error is an answer that is not the one that was hoped for.
type Error struct {
	Status int
	// Text of the answer, one line at most.
	Text string
}

// Error implements the error interface.
func (e *Error) Error() string {
	text := fmt.Sprintf("HTTP status %d %s", e.Status, http.StatusText(e.Status))
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// StatusError returns the error that an answer is, and closes it. Whether it may
// pass follows from the status (RFC 9110, section 15).
func StatusError(resp *http.Response) error {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var err error = &Error{resp.StatusCode, OneLine(resp.Header.Get("Content-Type"), string(b))}
	switch resp.StatusCode {
	// 423: what a request that was cut off has locked (RFC 4918, section 11.3).
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly, http.StatusLocked,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return transfer.RetryLater(err, retryAfter(resp))
	case http.StatusInsufficientStorage:
		return &cli.Error{Err: err, Hint: "free space on the server", Code: cli.ExitNoSpace}
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return &cli.Error{Err: err, Hint: "check user and password", Code: cli.ExitServer}
	}
	return transfer.Lasting(err)
}

// HasStatus says whether err is an answer with one of these statuses.
func HasStatus(err error, statuses ...int) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	for _, s := range statuses {
		if e.Status == s {
			return true
		}
	}
	return false
}

// OneLine returns the first line of a text that people can read; a page of HTML
// is none.
func OneLine(contentType, text string) string {
	if strings.Contains(contentType, "html") {
		return ""
	}
	const most = 300 // bytes
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return -1
		}
		return r
	}, text)
	return strings.TrimSpace(strings.ToValidUTF8(text[:min(len(text), most)], ""))
}

// retryAfter returns what the server asks for (RFC 9110, section 10.2.3); 0:
// nothing.
func retryAfter(resp *http.Response) time.Duration {
	text := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 && seconds < 1<<20 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// Drain reads the rest of a short answer, so that its connection is used again,
// and closes it.
func Drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}
