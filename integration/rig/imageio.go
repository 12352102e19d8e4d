package rig

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// ImageioOptions say what a stand-in for ovirt-imageio serves.
type ImageioOptions struct {
	// Size of the disk in bytes, 64 MiB if 0.
	Size int64
	// ReadOnly is a ticket for a download.
	ReadOnly bool
	// Without are features that it does not have: checksum, extents, flush or
	// zero.
	Without []string
	// MaxWriters is what it tells its clients, 8 if 0.
	MaxWriters int
}

// ImageioStats are what clients have asked for so far.
type ImageioStats struct {
	Puts, Zeros, Flushes, Gets, Checksums int
	// Written and Zeroed are bytes.
	Written, Zeroed int64
	// MaxWriters is the most PUTs that ran at once.
	MaxWriters int
}

// Imageio is a stand-in, in this process, for ovirt-imageio's daemon with one
// ticket. It follows the "Random I/O" part of ovirt-imageio's documentation,
// and the daemon in what it answers to a request that is wrong. It ends with
// the test.
type Imageio struct {
	// URL of the image: https://HOST:PORT/images/TICKET.
	URL string
	// Address is host:port.
	Address string
	// Certs hold the authority that a client must trust.
	Certs *Certs
	// Path of the raw disk; see [Imageio.FailNext] for what it holds.
	Path string
	Size int64

	options ImageioOptions
	disk    *imageioDisk

	mu      sync.Mutex
	stats   ImageioStats
	writers int
	fail    int
	expired bool
}

// imageioTicket is the one that it knows.
const imageioTicket = "5a0a6a4e-1f2c-4f0b-9a55-6d8f1c1b7e10"

// NewImageio starts a stand-in for ovirt-imageio.
func NewImageio(t T, options ImageioOptions) *Imageio {
	t.Helper()
	if options.Size == 0 {
		options.Size = 64 << 20
	}
	if options.MaxWriters == 0 {
		options.MaxWriters = 8
	}
	s := &Imageio{options: options, Size: options.Size, Certs: NewCerts(t), Path: filepath.Join(t.TempDir(), "disk.raw")}
	file, err := os.Create(s.Path)
	if err == nil {
		err = file.Truncate(s.Size)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.disk = &imageioDisk{file: file, size: s.Size}
	cert, err := tls.LoadX509KeyPair(s.Certs.Cert, s.Certs.Key)
	if err != nil {
		t.Fatalf("%v", err)
	}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.Address = loopback(ports[0])
	listener, err := net.Listen("tcp", s.Address)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s.URL = "https://" + s.Address + "/images/" + imageioTicket
	server := &http.Server{
		Handler:   s.handler(),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		// The daemon knows HTTP/1.1 alone.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ReadTimeout:  time.Minute,
	}
	ended := make(chan struct{})
	go func() {
		server.ServeTLS(listener, "", "")
		close(ended)
	}()
	t.Cleanup(func() {
		server.Close()
		<-ended
		file.Close()
	})
	return s
}

// FailNext answers the next n writes with 500, after half of the bytes, and
// loses what was written since the last flush, as a host that breaks down does.
func (s *Imageio) FailNext(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = n
}

// Expire makes the ticket invalid (403), or valid again.
func (s *Imageio) Expire(expired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = expired
}

// Stats returns what clients have asked for so far.
func (s *Imageio) Stats() ImageioStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

func (s *Imageio) count(f func(*ImageioStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

func (s *Imageio) has(feature string) bool { return !slices.Contains(s.options.Without, feature) }

// httpError is an answer that says what is wrong.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func (s *Imageio) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, write bool, f func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			err := s.authorize(r.PathValue("ticket"), write)
			if err == nil {
				err = f(w, r)
			}
			var failed *httpError
			switch {
			case errors.As(err, &failed):
				if failed.code == http.StatusForbidden {
					w.Header().Set("Connection", "close")
				}
				http.Error(w, failed.text, failed.code)
			case err != nil:
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	handle("OPTIONS /images/{ticket}", false, s.tell)
	handle("GET /images/{ticket}", false, s.get)
	handle("PUT /images/{ticket}", true, s.put)
	handle("PATCH /images/{ticket}", true, s.patch)
	handle("GET /images/{ticket}/extents", false, s.extents)
	handle("GET /images/{ticket}/checksum", false, s.checksum)
	return mux
}

func (s *Imageio) authorize(ticket string, write bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ticket != imageioTicket:
		return &httpError{http.StatusForbidden, "No such ticket: " + ticket}
	case s.expired:
		return &httpError{http.StatusForbidden, "Ticket " + ticket + " expired"}
	case write && s.options.ReadOnly:
		return &httpError{http.StatusForbidden, "Ticket " + ticket + " forbids write"}
	}
	return nil
}
