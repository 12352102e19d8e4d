package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// all are the transmission flags of a server that can do everything.
const all = 1 | flagSendFlush | flagSendWriteZeroes | flagCanMultiConn

func TestRequestsOnTheWire(t *testing.T) {
	const size = 8 << 30
	got := make(chan sent, 100)
	a := fakeServer(t, func(f fake) {
		f.handshake(size, all)
		for {
			s := f.request()
			got <- s
			if s.command == cmdDisc {
				return
			}
			f.simple(s, 0)
		}
	})
	c := dialFake(t, a, Options{})
	ctx := t.Context()
	if c.Size() != size || c.Flags() != (Flags{Flush: true, WriteZeroes: true, MultiConn: true}) {
		t.Errorf("%d bytes, %+v", c.Size(), c.Flags())
	}
	data := bytes.Repeat([]byte("data"), maxPayload/4+128)
	f := fileOf(t, append([]byte("before"), data...))
	for _, step := range []struct {
		do   func() error
		want []sent
	}{
		{func() error { return c.WriteAt(ctx, data, 512) }, []sent{
			{command: cmdWrite, off: 512, length: maxPayload},
			{command: cmdWrite, off: 512 + maxPayload, length: 512},
		}},
		{func() error { return c.WriteFrom(ctx, f, 6, 512, int64(len(data))) }, []sent{
			{command: cmdWrite, off: 512, length: maxPayload},
			{command: cmdWrite, off: 512 + maxPayload, length: 512},
		}},
		{func() error { return c.WriteZeroes(ctx, 0, maxZeroes+4096, true) }, []sent{
			{command: cmdWriteZeroes, length: maxZeroes},
			{command: cmdWriteZeroes, off: maxZeroes, length: 4096},
		}},
		{func() error { return c.WriteZeroes(ctx, 4096, 512, false) }, []sent{
			{command: cmdWriteZeroes, flags: cmdFlagNoHole, off: 4096, length: 512},
		}},
		{func() error { return c.Flush(ctx) }, []sent{{command: cmdFlush}}},
		{c.Close, []sent{{command: cmdDisc}}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		for _, want := range step.want {
			s := <-got
			if s.command != want.command || s.flags != want.flags || s.off != want.off || s.length != want.length {
				t.Errorf("%+v, want %+v", s, want)
			}
			if n := int64(s.off) - 512; s.command == cmdWrite && !bytes.Equal(s.data, data[n:n+int64(s.length)]) {
				t.Errorf("the data at %#x differs", s.off)
			}
		}
	}
	if err := c.Flush(ctx); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// fileOf returns an open file with a content.
func fileOf(t *testing.T, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestOutOfOrder answers many requests in the reverse order, in pieces.
func TestOutOfOrder(t *testing.T) {
	const n = 8
	a := fakeServer(t, func(f fake) {
		f.handshake(n*512, all)
		var requests []sent
		for range n {
			requests = append(requests, f.request())
		}
		for i := range requests {
			s := requests[n-1-i]
			f.chunk(s, 0, replyOffsetData, s.off+256, bytes.Repeat([]byte{byte(s.off >> 9)}, 256))
		}
		for _, s := range requests {
			f.chunk(s, replyFlagDone, replyOffsetData, s.off, bytes.Repeat([]byte{byte(s.off >> 9)}, 256))
		}
		f.request()
	})
	c := dialFake(t, a, Options{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			p := make([]byte, 512)
			if err := c.ReadAt(t.Context(), p, int64(i)*512); err != nil {
				t.Error(err)
			} else if !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, 512)) {
				t.Errorf("block %d is %x...", i, p[:4])
			}
		})
	}
	group.Wait()
}

// TestServerError is a refusal, after which the connection lives on.
func TestServerError(t *testing.T) {
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<20, all)
		s := f.request()
		f.chunk(s, replyFlagDone, replyErrorOffset, uint32(28), uint16(4), []byte("full"), uint64(0x1100))
		f.simple(f.request(), 0)
		f.simple(f.request(), 108)
		f.request()
	})
	c := dialFake(t, a, Options{})
	err := c.WriteAt(t.Context(), make([]byte, 4096), 0x1000)
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, syscall.ENOSPC) || e.Message != "full" || e.Offset != 0x1100 || IsConnectionError(err) {
		t.Errorf("%v", err)
	}
	if err := c.Flush(t.Context()); err != nil {
		t.Errorf("after an error: %v", err)
	}
	if err := c.Flush(t.Context()); !IsConnectionError(err) || !errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("%v, want that the server is shutting down", err)
	}
}

// TestBrokenConnection closes the connection while requests are in flight.
func TestBrokenConnection(t *testing.T) {
	const n = 5
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<20, all)
		for range n {
			f.request()
		}
	})
	c := dialFake(t, a, Options{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := c.WriteAt(t.Context(), make([]byte, 512), int64(i)*512); !IsConnectionError(err) {
				t.Errorf("%v, want a connection error", err)
			}
		})
	}
	group.Wait()
	if err := c.Flush(t.Context()); !IsConnectionError(err) {
		t.Errorf("afterwards: %v", err)
	}
}

// TestViolationBreaks answers a request that nobody sent.
func TestViolationBreaks(t *testing.T) {
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<20, all)
		s := f.request()
		s.handle += 4711
		f.simple(s, 0)
		f.request()
	})
	c := dialFake(t, a, Options{})
	err := c.Flush(t.Context())
	if _, ok := errors.AsType[*ProtocolError](err); !ok || IsConnectionError(err) {
		t.Errorf("%v, want a ProtocolError", err)
	}
}

// silent takes requests and answers none.
func silent(f fake) {
	f.handshake(1<<30, all)
	for f.request().command != cmdDisc {
	}
}

func TestTimeout(t *testing.T) {
	c := dialFake(t, fakeServer(t, silent), Options{Timeout: 50 * time.Millisecond})
	err := c.ReadAt(t.Context(), make([]byte, 512), 0)
	if !IsConnectionError(err) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("%v, want a timeout", err)
	}
}

// TestTimeoutOfSending fills the buffers of a server that reads nothing.
func TestTimeoutOfSending(t *testing.T) {
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<30, all)
		<-t.Context().Done()
	})
	c, err := Dial(t.Context(), a, Options{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteAt(t.Context(), make([]byte, maxPayload), 0); !IsConnectionError(err) {
		t.Errorf("%v, want a timeout", err)
	}
}

// TestProgressIsNoTimeout sends an answer in drops, which takes longer than the
// timeout in all. The clock is one that no busy machine makes late.
func TestProgressIsNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 200 * time.Millisecond
		c := dialPipe(t, Options{Timeout: timeout}, func(f fake) {
			f.handshake(1<<20, all)
			s := f.request()
			f.put(uint32(magicStructured), uint16(replyFlagDone), uint16(replyOffsetData), s.handle, uint32(8+512), s.off)
			for range 16 {
				time.Sleep(timeout / 2)
				f.put(make([]byte, 32))
			}
			f.request()
		})
		if err := c.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Error(err)
		}
	})
}

// TestCancel cancels a request in flight; those beside it fail with an error
// that is not about their own context.
func TestCancel(t *testing.T) {
	began := make(chan struct{}, 2)
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<20, all)
		for range 2 {
			f.request()
			began <- struct{}{}
		}
		f.request()
	})
	c := dialFake(t, a, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	other := make(chan error, 1)
	go func() { other <- c.Flush(t.Context()) }()
	go func() {
		<-began
		<-began
		cancel()
	}()
	if err := c.ReadAt(ctx, make([]byte, 512), 0); err != context.Canceled {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if err := <-other; !IsConnectionError(err) || errors.Is(err, context.Canceled) {
		t.Errorf("the request beside it: %v", err)
	}
	if err := c.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// TestCancelInQueue cancels a request that waits for a place; the connection
// does not break.
func TestCancelInQueue(t *testing.T) {
	began, answer := make(chan struct{}), make(chan struct{})
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<20, all)
		s := f.request()
		close(began)
		<-answer
		f.simple(s, 0)
		f.request()
	})
	c := dialFake(t, a, Options{InFlight: 1})
	first := make(chan error, 1)
	go func() { first <- c.Flush(t.Context()) }()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Flush(ctx); err != context.DeadlineExceeded {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
	close(answer)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestReadOnly(t *testing.T) {
	c := dialFake(t, fakeServer(t, func(f fake) {
		f.handshake(1<<20, all|flagReadOnly)
		f.request()
	}), Options{})
	ctx := t.Context()
	for _, err := range []error{c.WriteAt(ctx, []byte{1}, 0), c.WriteZeroes(ctx, 0, 1, true)} {
		if !errors.Is(err, syscall.EPERM) {
			t.Errorf("%v, want EPERM", err)
		}
	}
}

func TestOutside(t *testing.T) {
	c := dialFake(t, fakeServer(t, func(f fake) {
		f.handshake(4096, all)
		f.request()
	}), Options{Status: true})
	ctx := t.Context()
	f := fileOf(t, make([]byte, 512))
	for _, off := range []int64{-1, 3585, 4096, 1 << 62} {
		p := make([]byte, 512)
		_, status := c.BlockStatus(ctx, off, 512)
		for i, err := range []error{c.ReadAt(ctx, p, off), c.WriteAt(ctx, p, off), c.WriteZeroes(ctx, off, 512, true), c.WriteFrom(ctx, f, 0, off, 512), status} {
			if err == nil {
				t.Errorf("offset %#x, method %d: no error", off, i)
			}
		}
	}
}

// TestShortFile sends more than a file has: known before, and found meanwhile.
func TestShortFile(t *testing.T) {
	a := fakeServer(t, silent)
	f := fileOf(t, make([]byte, 1<<20))
	c := dialFake(t, a, Options{})
	if err := c.WriteFrom(t.Context(), f, 0, 0, 2<<20); !errors.Is(err, io.ErrUnexpectedEOF) || c.conns[0].why() != nil {
		t.Errorf("%v, the connection: %v", err, c.conns[0].why())
	}
	// As if the file was cut off after its size was looked at.
	err := c.write(t.Context(), 0, 2<<20, fileRange{f, 0, 2 << 20})
	if !errors.Is(err, io.ErrUnexpectedEOF) || IsConnectionError(err) {
		t.Errorf("%v, want an unexpected EOF", err)
	}
	if err := c.Flush(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) || IsConnectionError(err) {
		t.Errorf("afterwards: %v, want the reason", err)
	}
}

// TestZeroLimit is a server that refuses more than 32 MiB of zeros.
func TestZeroLimit(t *testing.T) {
	lengths := make(chan uint32, 100)
	a := fakeServer(t, func(f fake) {
		f.handshake(1<<30, all)
		for {
			s := f.request()
			switch {
			case s.command == cmdDisc:
				return
			case s.length > maxPayload:
				f.simple(s, uint32(syscall.EOVERFLOW))
			default:
				lengths <- s.length
				f.simple(s, 0)
			}
		}
	})
	c := dialFake(t, a, Options{})
	if err := c.WriteZeroes(t.Context(), 0, 1<<30, true); err != nil {
		t.Fatal(err)
	}
	if len(lengths) != 32 {
		t.Errorf("%d requests, want 32", len(lengths))
	}
}
