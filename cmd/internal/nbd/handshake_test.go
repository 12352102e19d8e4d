package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestOldServer has neither OPT_GO nor structured replies.
func TestOldServer(t *testing.T) {
	for _, flags := range []uint16{0, flagFixedNewstyle, flagFixedNewstyle | flagNoZeroes} {
		a := fakeServer(t, func(f fake) {
			f.greet(flags)
			for {
				option, data := f.option()
				if option == 0 {
					return
				}
				if option != optExportName {
					f.reply(option, repErrUnsup)
					continue
				}
				if string(data) != "disk" {
					t.Errorf("export %q", data)
				}
				f.put(uint64(4096), uint16(all))
				if flags&flagNoZeroes == 0 {
					f.put(make([]byte, exportPadding))
				}
				break
			}
			s := f.request()
			f.simple(s, 0)
			f.put(make([]byte, s.length))
			f.request()
		})
		c := dialFake(t, a, Options{Status: true})
		if err := c.ReadAt(t.Context(), make([]byte, 512), 0); err != nil || c.Size() != 4096 {
			t.Errorf("%d bytes, %v", c.Size(), err)
		}
		runs, err := c.BlockStatus(t.Context(), 512, 1024)
		if err != nil || len(runs) != 1 || runs[0] != (Run{Offset: 512, Length: 1024}) {
			t.Errorf("%v, %v", runs, err)
		}
	}
}

// handshakeFailures are servers that don't get as far as an export, and how the
// error can be told from others.
var handshakeFailures = []struct {
	name  string
	serve func(f fake)
	tls   bool
	is    func(err error) bool
}{
	{"no NBD", func(f fake) { f.put([]byte("SSH-2.0-OpenSSH_9.2p1 Debian")) }, false, isErr(ErrNotNBD)},
	{"oldstyle", func(f fake) { f.put(uint64(magicServer), uint64(magicOldstyle), make([]byte, 136)) }, false, isErr(ErrOldstyle)},
	{"negotiation", func(f fake) { f.put(uint64(magicServer), uint64(1)) }, false, isType[*ProtocolError]},
	{"closed", func(f fake) {}, false, IsConnectionError},
	{"closed later", func(f fake) { f.greet(flagFixedNewstyle); f.option() }, false, IsConnectionError},
	{"TLS required", func(f fake) {
		f.greet(flagFixedNewstyle)
		f.refuseAll(repErrTLSReqd)
	}, false, isErr(ErrTLSRequired)},
	{"TLS refused", func(f fake) {
		f.greet(flagFixedNewstyle)
		f.refuseAll(repErrPolicy)
	}, true, isErr(ErrTLSRefused)},
	{"too old for TLS", func(f fake) { f.greet(0); f.option() }, true, isErr(ErrTLSRefused)},
	{"no TLS handshake", func(f fake) {
		f.greet(flagFixedNewstyle)
		option, _ := f.option()
		f.reply(option, repAck)
		f.put(make([]byte, 100))
		io.Copy(io.Discard, f)
	}, true, isType[*TLSError]},
	{"shutdown", func(f fake) {
		f.greet(flagFixedNewstyle)
		f.refuseAll(repErrShutdown)
	}, false, IsConnectionError},
	{"policy", func(f fake) {
		f.greet(flagFixedNewstyle)
		f.refuseAll(repErrPolicy)
	}, false, func(err error) bool {
		e, ok := errors.AsType[*OptionError](err)
		return ok && e.Policy() && e.Message == "no way"
	}},
	{"no such export for an old server", func(f fake) {
		f.greet(flagFixedNewstyle)
		for {
			if option, _ := f.option(); option == optExportName || option == 0 {
				return
			} else {
				f.reply(option, repErrUnsup)
			}
		}
	}, false, isType[*ExportError]},
	{"magic of a reply", func(f fake) {
		f.greet(flagFixedNewstyle)
		f.option()
		f.put(make([]byte, optReplySize))
	}, false, isType[*ProtocolError]},
	{"reply to another option", func(f fake) {
		f.greet(flagFixedNewstyle)
		option, _ := f.option()
		f.reply(option+1, repAck)
	}, false, isType[*ProtocolError]},
	{"huge reply", func(f fake) {
		f.greet(flagFixedNewstyle)
		option, _ := f.option()
		f.put(uint64(magicOptReply), option, uint32(repErrUnsup), uint32(math.MaxUint32))
	}, false, isType[*ProtocolError]},
	{"information without end", goReplies(func(f fake) {
		for range maxOptReplies {
			f.reply(optGo, repInfo, uint16(4711))
		}
	}), false, isType[*ProtocolError]},
	{"no information", goReplies(func(f fake) {}), false, isType[*ProtocolError]},
	{"short information", goReplies(func(f fake) { f.reply(optGo, repInfo, uint8(0)) }), false, isType[*ProtocolError]},
	{"information of wrong size", goReplies(func(f fake) { f.reply(optGo, repInfo, uint16(infoExport), uint32(0)) }), false, isType[*ProtocolError]},
	{"negative size", goReplies(func(f fake) {
		f.reply(optGo, repInfo, uint16(infoExport), uint64(1<<63), uint16(1))
	}), false, isType[*ProtocolError]},
	{"block sizes", goReplies(func(f fake) {
		f.reply(optGo, repInfo, uint16(infoBlockSize), uint32(3), uint32(0), uint32(7))
	}), false, isType[*ProtocolError]},
	{"size and block size", goReplies(func(f fake) {
		f.reply(optGo, repInfo, uint16(infoBlockSize), uint32(4096), uint32(4096), uint32(4096))
		f.reply(optGo, repInfo, uint16(infoExport), uint64(512), uint16(1))
	}), false, func(err error) bool { return strings.Contains(err.Error(), "not a multiple") }},
}

func isErr(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) && !IsConnectionError(err) }
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok && !IsConnectionError(err)
}

// refuseAll refuses each option.
func (f fake) refuseAll(reply uint32) {
	for {
		option, _ := f.option()
		if option == 0 {
			return
		}
		f.reply(option, reply, []byte("no way\n"))
	}
}

// goReplies refuses all options but OPT_GO, which it acknowledges after replies.
func goReplies(replies func(f fake)) func(f fake) {
	return func(f fake) {
		f.greet(flagFixedNewstyle)
		for {
			option, _ := f.option()
			switch option {
			case 0:
				return
			case optGo:
				replies(f)
				f.reply(option, repAck)
			default:
				f.reply(option, repErrUnsup)
			}
		}
	}
}

func TestHandshakeFailures(t *testing.T) {
	for _, c := range handshakeFailures {
		t.Run(c.name, func(t *testing.T) {
			a := fakeServer(t, c.serve)
			a.TLS = c.tls
			client, err := Dial(t.Context(), a, Options{Status: true})
			if err == nil {
				client.Close()
			}
			if err == nil || !c.is(err) {
				t.Errorf("%T: %v", err, err)
			}
		})
	}
}

// TestUnknownExport lists what there is.
func TestUnknownExport(t *testing.T) {
	a := fakeServer(t, func(f fake) {
		f.greet(flagFixedNewstyle)
		for {
			option, _ := f.option()
			switch option {
			case 0:
				return
			case optList:
				for range 100 {
					for _, name := range []string{"a", "b\x1b[31m"} {
						f.reply(option, repServer, uint32(len(name)), []byte(name), []byte("about it"))
					}
				}
				f.reply(option, repAck)
			default:
				f.reply(option, repErrUnknown, []byte("who?"))
			}
		}
	})
	_, err := Dial(t.Context(), a, Options{})
	e, ok := errors.AsType[*ExportError](err)
	if !ok || e.Name != "disk" || e.Message != "who?" || !slices.Equal(e.Exports, []string{"a", "b [31m"}) {
		t.Errorf("%v", err)
	}
}

// TestDialEnds gives up on a server that says nothing.
func TestDialEnds(t *testing.T) {
	a := fakeServer(t, func(f fake) { io.Copy(io.Discard, f) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, a, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want %v", err, context.DeadlineExceeded)
	}
	d := dialer{address: a}
	_, _, err := d.dial(t.Context(), 50*time.Millisecond)
	if !IsConnectionError(err) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("%v, want a timeout", err)
	}
}

// TestOneConnectionOnly asks for several where the server can serve one.
func TestOneConnectionOnly(t *testing.T) {
	a := fakeServer(t, func(f fake) {
		f.handshake(4096, 1)
		f.request()
	})
	if c := dialFake(t, a, Options{Connections: 4}); c.Connections() != 1 {
		t.Errorf("%d connections without multi-conn", c.Connections())
	}
}

// script is a connection whose peer says what is in it, whatever it is told.
type script struct {
	net.Conn
	io.Reader
}

func (s script) Read(p []byte) (int, error)  { return s.Reader.Read(p) }
func (s script) Write(p []byte) (int, error) { return len(p), nil }

// FuzzHandshake negotiates with a server that says anything. What comes out must
// make sense, and the memory is bounded by that of one reply.
func FuzzHandshake(f *testing.F) {
	greeting := bin(uint64(magicServer), uint64(magicNewstyle))
	reply := func(option, reply uint32, values ...any) []byte {
		payload := bin(values...)
		return append(bin(uint64(magicOptReply), option, reply, uint32(len(payload))), payload...)
	}
	size := reply(optGo, repInfo, uint16(infoExport), uint64(4096), uint16(1))
	blocks := reply(optGo, repInfo, uint16(infoBlockSize), uint32(512), uint32(4096), uint32(1<<20))
	for _, seed := range [][][]byte{
		{greeting, bin(uint16(0)), bin(uint64(512), uint16(1)), make([]byte, exportPadding)},
		{greeting, bin(uint16(3)), reply(optStructuredReply, repErrUnsup), reply(optGo, repErrUnsup), bin(uint64(512), uint16(1))},
		{greeting, bin(uint16(1)), reply(optStructuredReply, repAck), reply(optSetMetaContext, repMetaContext, uint32(7), []byte(contextAllocation)),
			reply(optSetMetaContext, repAck), size, blocks, reply(optGo, repAck)},
		{greeting, bin(uint16(1)), reply(optStructuredReply, repErrPolicy), reply(optGo, repErrUnknown),
			reply(optList, repServer, uint32(1), []byte("a")), reply(optList, repAck)},
	} {
		f.Add(bytes.Join(seed, nil))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		conn := script{Reader: bytes.NewReader(stream)}
		s := &session{raw: conn, conn: conn, name: "disk"}
		e, err := s.negotiate(t.Context(), nil, true)
		if err != nil {
			return
		}
		b := e.blocks
		if e.size < 0 || b.Minimum <= 0 || e.size%b.Minimum != 0 || b.Maximum < b.Minimum || b.Maximum > maxPayload || b.Maximum%b.Minimum != 0 {
			t.Errorf("%+v", e)
		}
	})
}
