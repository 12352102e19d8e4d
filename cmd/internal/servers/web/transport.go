package web

import (
	"net"
	"net/http"
	"time"

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
