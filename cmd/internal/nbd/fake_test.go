package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// fake is a server whose every byte a test decides. Its methods are called in a
// goroutine of the server; they return quietly when the client is gone.
type fake struct {
	net.Conn
	t *testing.T
}

// fakeServer serves each connection with serve, and returns its address.
func fakeServer(t *testing.T, serve func(f fake)) Address {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(time.Minute))
			serve(fake{conn, t})
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	host, port, _ := net.SplitHostPort(l.Addr().String())
	return Address{Network: "tcp", Host: host, Port: port, Export: "disk"}
}

// put sends numbers, big-endian, in the size of their type, and bytes.
func (f fake) put(values ...any) {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, binary.BigEndian, v)
	}
	f.Write(b)
}

// greet sends the greeting and reads the client's flags.
func (f fake) greet(flags uint16) {
	f.put(uint64(magicServer), uint64(magicNewstyle), flags)
	io.ReadFull(f, make([]byte, 4))
}

// option reads an option; 0 when the client is gone.
func (f fake) option() (option uint32, data []byte) {
	var b [optionHeader]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return 0, nil
	}
	data = make([]byte, binary.BigEndian.Uint32(b[12:]))
	io.ReadFull(f, data)
	return binary.BigEndian.Uint32(b[8:]), data
}

func (f fake) reply(option, reply uint32, values ...any) {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, binary.BigEndian, v)
	}
	f.put(uint64(magicOptReply), option, reply, uint32(len(b)), b)
}

// handshake is a whole one, with structured replies, base:allocation as context
// 7, and an export of size bytes.
func (f fake) handshake(size uint64, flags uint16) {
	f.greet(flagFixedNewstyle | flagNoZeroes)
	for {
		option, _ := f.option()
		switch option {
		case optSetMetaContext:
			f.reply(option, repMetaContext, uint32(7), []byte(contextAllocation))
		case optGo:
			f.reply(option, repInfo, uint16(infoExport), size, flags)
		case 0:
			return
		}
		f.reply(option, repAck)
		if option == optGo {
			return
		}
	}
}

// sent is a request as a server sees it.
type sent struct {
	flags, command uint16
	handle, off    uint64
	length         uint32
	data           []byte
}

// request reads a request; its command is cmdDisc when the client is gone.
func (f fake) request() sent {
	var b [requestSize]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return sent{command: cmdDisc}
	}
	s := sent{
		flags:   binary.BigEndian.Uint16(b[4:]),
		command: binary.BigEndian.Uint16(b[6:]),
		handle:  binary.BigEndian.Uint64(b[8:]),
		off:     binary.BigEndian.Uint64(b[16:]),
		length:  binary.BigEndian.Uint32(b[24:]),
	}
	if s.command == cmdWrite {
		s.data = make([]byte, s.length)
		io.ReadFull(f, s.data)
	}
	return s
}

func (f fake) simple(s sent, code uint32) { f.put(uint32(magicSimple), code, s.handle) }

// chunk sends a chunk of a structured reply.
func (f fake) chunk(s sent, flags, kind uint16, values ...any) {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, binary.BigEndian, v)
	}
	f.put(uint32(magicStructured), flags, kind, s.handle, uint32(len(b)), b)
}

// dialFake connects to a fake server, for as long as the test runs.
func dialFake(t testing.TB, a Address, o Options) *Client {
	t.Helper()
	c, err := Dial(t.Context(), a, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dialPipe is a client of serve over a pipe in memory, for tests with a clock of
// their own.
func dialPipe(t *testing.T, o Options, serve func(f fake)) *Client {
	t.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(fake{theirs, t})
		theirs.Close()
	}()
	t.Cleanup(func() {
		ours.Close()
		<-ended
	})
	s := &session{raw: ours, conn: ours, name: "disk"}
	e, err := s.negotiate(t.Context(), nil, o.Status)
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{export: e, conns: []*conn{newConn(s, e, o.withDefaults())}, edges: make(chan struct{}, 1)}
	t.Cleanup(func() { c.Close() })
	return c
}
