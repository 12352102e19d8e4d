package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
)

const (
	// connectTimeout bounds what comes before a request.
	connectTimeout = 30 * time.Second
	// answerTimeout is how long a server may think after it has got a whole
	// request; a body's own time is not counted.
	answerTimeout = 5 * time.Minute
	// maxAnswer is the most that is read of an answer that is no file.
	maxAnswer = 16 << 20
)

// newTransport returns the transport that all protocols over HTTP share. A line
// that carries nothing for a minute or two is broken.
func newTransport(o Options) (*http.Transport, error) {
	tlsConfig, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: connectTimeout}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           idleDialer{dialer, idleTimeout}.DialContext,
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: answerTimeout,
		ExpectContinueTimeout: 5 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   max(o.Connections, 16),
		// A file that the transport unpacked would be another one.
		DisableCompression: true,
		WriteBufferSize:    256 << 10,
		ReadBufferSize:     256 << 10,
	}, nil
}

// tlsConfig is nil for the system's own certificates.
func tlsConfig(o Options) (*tls.Config, error) {
	if o.CACert == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.CACert)
	if err != nil {
		return nil, usage(fmt.Errorf("certificates: %w", err), "--cacert FILE names a file of PEM certificates")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usage(fmt.Errorf("%s: no PEM certificate in it", o.CACert), "--cacert FILE names a file of PEM certificates")
	}
	return &tls.Config{RootCAs: pool}, nil
}

// password returns that of the options or of FLATIMG_PASSWORD; empty: none.
func password(o Options) (string, error) {
	if o.PasswordFile == "" {
		return os.Getenv("FLATIMG_PASSWORD"), nil
	}
	f, err := os.Open(o.PasswordFile)
	if err != nil {
		return "", usage(err, "--password-file FILE names a file whose first line is the password")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// passwordOf returns the password of a user at a host: that of [password], else
// what the user types; empty: none.
func passwordOf(ctx context.Context, user, host string, o Options) (string, error) {
	secret, err := password(o)
	if err != nil || secret != "" || o.PasswordFile != "" || o.Ask == nil {
		return secret, err
	}
	return o.Ask(ctx, user+" at "+host)
}

// httpError is an answer that is not the one that was hoped for.
type httpError struct {
	Status int
	// Text of the answer, one line at most.
	Text string
}

func (e *httpError) Error() string {
	text := fmt.Sprintf("HTTP status %d %s", e.Status, http.StatusText(e.Status))
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// statusError returns the error that an answer is, and closes it. Whether it may
// pass follows from the status (RFC 9110, section 15).
func statusError(resp *http.Response) error {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	var err error = &httpError{resp.StatusCode, oneLine(resp.Header.Get("Content-Type"), string(b))}
	switch resp.StatusCode {
	// 423: what a request that was cut off has locked (RFC 4918, section 11.3).
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusTooEarly, http.StatusLocked,
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &retryLater{err, retryAfter(resp)}
	case http.StatusInsufficientStorage:
		return &cli.Error{Err: err, Hint: "free space on the server", Code: cli.ExitNoSpace}
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return &cli.Error{Err: err, Hint: "check user and password", Code: cli.ExitServer}
	}
	return lasting{err}
}

// hasStatus says whether err is an answer with one of these statuses.
func hasStatus(err error, statuses ...int) bool {
	e, ok := errors.AsType[*httpError](err)
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

// oneLine returns the first line of a text that people can read; a page of HTML
// is none.
func oneLine(contentType, text string) string {
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

// drain reads the rest of a short answer, so that its connection is used again,
// and closes it.
func drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10)
	resp.Body.Close()
}
