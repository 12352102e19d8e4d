package web

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"flatimg/cmd/internal/servers"
)

// The time that a server may think begins anew with what it redirects.
func TestSlowAfterRedirect(t *testing.T) {
	t.Parallel()
	// In time that passes only while all wait, with a line that is a pipe.
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Second) // until all goroutines have ended
		var sent []byte
		handler := func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/b" {
				sent, _ = io.ReadAll(r.Body)
				return
			}
			http.Redirect(w, r, "/b", http.StatusTemporaryRedirect)
		}
		line := make(pipeListener)
		server := &http.Server{Handler: http.HandlerFunc(handler)}
		go server.Serve(line)
		defer server.Close()
		a, _ := ParseAddress("http://host/a")
		c, err := NewClient(t.Context(), a, servers.Options{Retries: -1}, false)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.http.Transport.(*http.Transport).DialContext = line.dial
		bodies := 0
		r := Request{Method: "PUT", To: a, Length: 3, Limit: 100 * time.Millisecond, Body: func() io.ReadCloser {
			bodies++
			slow := iotest.OneByteReader(strings.NewReader("abc"))
			return io.NopCloser(readerFunc(func(p []byte) (int, error) {
				if bodies > 1 {
					time.Sleep(100 * time.Millisecond)
				}
				return slow.Read(p)
			}))
		}}
		if _, err := c.Do(t.Context(), "send", r); err != nil || string(sent) != "abc" {
			t.Errorf("%v; sent %q", err, sent)
		}
	})
}

// pipeListener is where connections in memory arrive.
type pipeListener chan net.Conn

func (l pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	l <- server
	return client, nil
}

func (l pipeListener) Accept() (net.Conn, error) {
	if conn, ok := <-l; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error {
	close(l)
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{} }

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
