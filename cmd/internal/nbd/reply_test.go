package nbd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"
)

// Requests that are in flight in tests of the decoder, by their handles.
const (
	readHandle   = 1
	statusHandle = 2
	writeHandle  = 3
	testContext  = 7
	testOff      = 4096
	testLength   = 1024
)

// testDecoder decodes what is in b as replies to one request of each kind.
func testDecoder(b []byte, structured bool) (*decoder, map[uint64]*request) {
	flying := map[uint64]*request{
		readHandle:   newRequest(cmdRead, testOff, testLength),
		statusHandle: newRequest(cmdBlockStatus, testOff, testLength),
		writeHandle:  newRequest(cmdWrite, testOff, testLength),
	}
	flying[readHandle].data = bytes.Repeat([]byte{0xee}, testLength)
	return &decoder{
		r:          bufio.NewReader(bytes.NewReader(b)),
		structured: structured,
		context:    testContext,
		lookup:     func(handle uint64) *request { return flying[handle] },
	}, flying
}

// bin is values in their wire form.
func bin(values ...any) []byte {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, binary.BigEndian, v)
	}
	return b
}

// chunkOf is a chunk of a structured reply.
func chunkOf(handle uint64, flags, kind uint16, values ...any) []byte {
	payload := bin(values...)
	return append(bin(uint32(magicStructured), flags, kind, handle, uint32(len(payload))), payload...)
}

func simpleReply(handle uint64, code uint32) []byte {
	return bin(uint32(magicSimple), code, handle)
}

// replies are streams that end well, and with which error for their request.
var replies = []struct {
	name       string
	structured bool
	handle     uint64
	stream     [][]byte
	code       uint32
	off        int64
}{
	{name: "simple read", handle: readHandle, stream: [][]byte{simpleReply(readHandle, 0), make([]byte, testLength)}},
	{name: "simple error", handle: readHandle, stream: [][]byte{simpleReply(readHandle, 5)}, code: 5, off: testOff},
	{name: "simple write", handle: writeHandle, stream: [][]byte{simpleReply(writeHandle, 28)}, code: 28, off: testOff},
	{name: "unknown error value", handle: writeHandle, stream: [][]byte{simpleReply(writeHandle, 4711)}, code: 22, off: testOff},
	{name: "structured write", structured: true, handle: writeHandle, stream: [][]byte{chunkOf(writeHandle, 1, replyNone)}},
	{name: "simple among structured", structured: true, handle: writeHandle, stream: [][]byte{simpleReply(writeHandle, 0)}},
	{name: "data and hole", structured: true, handle: readHandle, stream: [][]byte{
		chunkOf(readHandle, 0, replyOffsetHole, uint64(testOff+512), uint32(512)),
		chunkOf(readHandle, 1, replyOffsetData, uint64(testOff), make([]byte, 512)),
	}},
	{name: "done by none", structured: true, handle: readHandle, stream: [][]byte{
		chunkOf(readHandle, 0, replyOffsetData, uint64(testOff), make([]byte, testLength)),
		chunkOf(readHandle, 1, replyNone),
	}},
	{name: "error with offset", structured: true, handle: readHandle, stream: [][]byte{
		chunkOf(readHandle, 0, replyOffsetData, uint64(testOff), make([]byte, 512)),
		chunkOf(readHandle, 0, replyErrorOffset, uint32(5), uint16(3), []byte("bad"), uint64(testOff+100)),
		chunkOf(readHandle, 1, replyErrorBit+1, uint32(22), uint16(0)),
	}, code: 5, off: testOff + 100},
	{name: "unknown error", structured: true, handle: writeHandle, stream: [][]byte{
		chunkOf(writeHandle, 1, replyErrorBit+99, uint32(12), uint16(2), []byte("no"), []byte("more")),
	}, code: 12, off: testOff},
	{name: "status", structured: true, handle: statusHandle, stream: [][]byte{
		chunkOf(statusHandle, 1, replyBlockStatus, uint32(testContext), uint32(512), uint32(0), uint32(512), uint32(3)),
	}},
}

func TestReplies(t *testing.T) {
	for _, c := range replies {
		t.Run(c.name, func(t *testing.T) {
			stream := bytes.Join(c.stream, nil)
			d, flying := testDecoder(stream, c.structured)
			var handle uint64
			var r *request
			var err error
			for r == nil && err == nil {
				handle, r, err = d.next()
			}
			if err != nil || handle != c.handle || r != flying[handle] {
				t.Fatalf("%#x, %v", handle, err)
			}
			if c.code == 0 && r.err != nil {
				t.Fatal(r.err)
			}
			if e, ok := errors.AsType[*Error](r.err); c.code != 0 && (!ok || uint32(e.Code) != c.code || e.Offset != c.off) {
				t.Fatalf("%v, want code %d at %#x", r.err, c.code, c.off)
			}
			if c.handle == readHandle && c.code == 0 && bytes.Count(r.data, []byte{0}) != testLength {
				t.Error("not all is filled")
			}
			if _, _, err := d.next(); err != io.EOF {
				t.Errorf("then %v, want EOF", err)
			}
			// Each stream that is cut off is an error, but not between replies.
			for n := 1; n < len(stream); n++ {
				d, _ := testDecoder(stream[:n], c.structured)
				for err, r = nil, nil; r == nil && err == nil; {
					_, r, err = d.next()
				}
				if r != nil || !isEnd(err) {
					t.Fatalf("cut off at %d: %v", n, err)
				}
			}
		})
	}
}

// violations are streams that break the protocol.
var violations = []struct {
	name   string
	simple bool // structured replies were not negotiated
	stream []byte
}{
	{"magic", false, bin(uint32(4711))},
	{"simple, magic of structured", true, chunkOf(writeHandle, 1, replyNone)},
	{"handle", false, simpleReply(99, 0)},
	{"handle of a chunk", false, chunkOf(99, 1, replyNone)},
	{"simple reply to read", false, simpleReply(readHandle, 0)},
	{"simple reply to status", false, simpleReply(statusHandle, 0)},
	{"none without done", false, chunkOf(writeHandle, 0, replyNone)},
	{"none with payload", false, chunkOf(writeHandle, 1, replyNone, uint32(1))},
	{"type", false, chunkOf(readHandle, 1, 3, uint32(1))},
	{"data for a write", false, chunkOf(writeHandle, 1, replyOffsetData, uint64(testOff), uint32(1))},
	{"no data", false, chunkOf(readHandle, 1, replyOffsetData, uint64(testOff))},
	{"data before", false, chunkOf(readHandle, 1, replyOffsetData, uint64(testOff-1), uint32(1))},
	{"data after", false, chunkOf(readHandle, 1, replyOffsetData, uint64(testOff+testLength-3), uint32(1))},
	{"data far after", false, chunkOf(readHandle, 1, replyOffsetData, uint64(1<<63), uint32(1))},
	{"a little data", false, chunkOf(readHandle, 1, replyOffsetData, uint64(testOff), uint32(1))},
	{"endless data", false, bin(uint32(magicStructured), uint16(0), uint16(replyOffsetData), uint64(readHandle), uint32(1<<32-1), uint64(testOff))},
	{"no hole", false, chunkOf(readHandle, 1, replyOffsetHole, uint64(testOff), uint32(0))},
	{"long hole", false, chunkOf(readHandle, 1, replyOffsetHole, uint64(testOff), uint32(testLength+1))},
	{"hole of wrong size", false, chunkOf(readHandle, 1, replyOffsetHole, uint64(testOff))},
	{"data twice", false, append(
		chunkOf(readHandle, 0, replyOffsetHole, uint64(testOff), uint32(512)),
		chunkOf(readHandle, 0, replyOffsetHole, uint64(testOff+511), uint32(512))...)},
	{"read without data", false, chunkOf(readHandle, 1, replyNone)},
	{"status without status", false, chunkOf(statusHandle, 1, replyNone)},
	{"status for a read", false, chunkOf(readHandle, 1, replyBlockStatus, uint32(testContext), uint32(1), uint32(0))},
	{"status of another context", false, chunkOf(statusHandle, 1, replyBlockStatus, uint32(8), uint32(1), uint32(0))},
	{"status without runs", false, chunkOf(statusHandle, 1, replyBlockStatus, uint32(testContext))},
	{"status with half a run", false, chunkOf(statusHandle, 1, replyBlockStatus, uint32(testContext), uint32(1))},
	{"status with no bytes", false, chunkOf(statusHandle, 1, replyBlockStatus, uint32(testContext), uint32(0), uint32(0))},
	{"status twice", false, append(
		chunkOf(statusHandle, 0, replyBlockStatus, uint32(testContext), uint32(1), uint32(0)),
		chunkOf(statusHandle, 0, replyBlockStatus, uint32(testContext), uint32(1), uint32(0))...)},
	{"endless status", false, bin(uint32(magicStructured), uint16(0), uint16(replyBlockStatus), uint64(statusHandle), uint32(1<<32-4))},
	{"short error", false, chunkOf(writeHandle, 1, replyErrorBit+1, uint32(5))},
	{"no error", false, chunkOf(writeHandle, 1, replyErrorBit+1, uint32(0), uint16(0))},
	{"error's message too long", false, chunkOf(writeHandle, 1, replyErrorBit+1, uint32(5), uint16(1))},
	{"error's message over the offset", false, chunkOf(writeHandle, 1, replyErrorOffset, uint32(5), uint16(8), uint64(testOff))},
	{"error outside", false, chunkOf(writeHandle, 1, replyErrorOffset, uint32(5), uint16(0), uint64(testOff+testLength))},
	{"endless error", false, bin(uint32(magicStructured), uint16(0), uint16(replyErrorBit+1), uint64(writeHandle), uint32(1<<32-1))},
	{"errors without end", false, bytes.Repeat(chunkOf(writeHandle, 0, replyErrorBit+1, uint32(5), uint16(0)), maxErrorChunks+1)},
}

func TestViolations(t *testing.T) {
	for _, c := range violations {
		t.Run(c.name, func(t *testing.T) {
			d, _ := testDecoder(c.stream, !c.simple)
			var r *request
			var err error
			for r == nil && err == nil {
				_, r, err = d.next()
			}
			if _, ok := errors.AsType[*ProtocolError](err); !ok || r != nil {
				t.Errorf("%v, want a ProtocolError", err)
			}
		})
	}
}

// TestStatusIsBounded sends as many runs as a chunk may have.
func TestStatusIsBounded(t *testing.T) {
	r := newRequest(cmdBlockStatus, 0, maxStatus)
	var payload []byte
	for i := range uint32(maxStatusChunk / 8) {
		payload = binary.BigEndian.AppendUint32(payload, 512)
		payload = binary.BigEndian.AppendUint32(payload, i%2)
	}
	d, _ := testDecoder(append(bin(uint32(testContext)), payload...), true)
	if err := d.status(r, 4+int64(len(payload))); err != nil {
		t.Fatal(err)
	}
	off := int64(0)
	for _, run := range r.runs {
		if run.Offset != off {
			t.Fatalf("a run at %#x, want %#x", run.Offset, off)
		}
		off += run.Length
	}
	if len(r.runs) != maxRuns || off != maxRuns*512 {
		t.Errorf("%d runs of %d bytes", len(r.runs), off)
	}
}

func TestClip(t *testing.T) {
	runs := []Run{{Offset: 0, Length: 100, Zero: true}, {Offset: 100, Length: 100}, {Offset: 200, Length: 100, Hole: true}}
	got := clip(runs, 50, 220)
	want := []Run{{50, 50, true, false}, {100, 100, false, false}, {200, 20, false, true}}
	if len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("%v, want %v", got, want)
	}
	if got := clip(runs[:1], 150, 220); len(got) != 1 || got[0] != (Run{Offset: 150, Length: 70}) {
		t.Errorf("%v, want no knowledge", got)
	}
}

// FuzzReplies decodes any stream. Whatever is finished must be complete, and
// nothing outside of the reads' memory is touched, which would panic.
func FuzzReplies(f *testing.F) {
	seeds := 0
	for _, c := range replies {
		f.Add(bytes.Join(c.stream, nil), c.structured)
		seeds++
	}
	for _, c := range violations {
		if len(c.stream) < 1<<12 {
			f.Add(c.stream, !c.simple)
			seeds++
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, stream []byte, structured bool) {
		d, flying := testDecoder(stream, structured)
		for {
			handle, r, err := d.next()
			if err != nil {
				return
			}
			if r == nil {
				continue
			}
			delete(flying, handle)
			if r.err != nil {
				continue
			}
			if r.command == cmdRead && !r.covered.whole(testLength) {
				t.Error("a read is finished without its data")
			}
			off := int64(testOff)
			for _, run := range r.runs {
				if run.Offset != off || run.Length <= 0 {
					t.Errorf("run %+v after %#x", run, off)
				}
				off += run.Length
			}
			if off > testOff+testLength {
				t.Errorf("runs end at %#x", off)
			}
		}
	})
}

func TestErrorText(t *testing.T) {
	e := &Error{"write", errno(28), printable([]byte("full\x1b[31m\n")), 0x1000}
	if got, want := e.Error(), "write at offset 0x1000: no space left on device: full [31m"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := printable(bytes.Repeat([]byte("x"), 5000)); len(got) > maxShown+3 {
		t.Errorf("%d bytes are shown", len(got))
	}
	if !errors.Is(&Error{Code: errno(1)}, os.ErrPermission) {
		t.Error("EPERM is no permission error")
	}
}
