package web

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// ConnectTimeout bounds what comes before a request.
	ConnectTimeout = 30 * time.Second
	// AnswerTimeout is how long a server may think after it has got a whole
	// request; a body's own time is not counted.
	AnswerTimeout = 5 * time.Minute
	// MaxAnswer is the most that is read of an answer that is no file.
	MaxAnswer = 16 << 20
)

// NewTransport returns the transport that all protocols over HTTP share. A line
// that carries nothing for a minute or two is broken.
func NewTransport(o servers.Options) (*http.Transport, error) {
	tlsConfig, err := transfer.TLSConfig(o)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: ConnectTimeout}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           idleDialer{dialer, IdleTimeout}.DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   ConnectTimeout,
		ResponseHeaderTimeout: AnswerTimeout,
		ExpectContinueTimeout: 5 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   max(o.Connections, 16),
		// A file that the transport unpacked would be another one.
		DisableCompression: true,
		WriteBufferSize:    256 << 10,
		ReadBufferSize:     256 << 10,
	}, nil
}

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
