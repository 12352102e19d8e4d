package rig_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// echo returns the address of a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// send sends n bytes through the proxy and returns how many came back.
func send(t *testing.T, c *rig.Cutter, n int) (int, error) {
	t.Helper()
	conn, err := net.Dial("tcp", c.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		conn.Write(bytes.Repeat([]byte{1}, n))
		conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.Copy(io.Discard, conn)
	return int(got), err
}

func TestCutterPasses(t *testing.T) {
	c := rig.NewCutter(t, echo(t))
	if n, err := send(t, c, 1<<20); n != 1<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if c.Sent() != 1<<20 || c.Received() != 1<<20 || c.Cuts() != 0 {
		t.Errorf("sent %d, received %d, %d cuts", c.Sent(), c.Received(), c.Cuts())
	}
}

func TestCutterCuts(t *testing.T) {
	for name, cutAfter := range map[string]func(*rig.Cutter, ...int64){
		"sent": (*rig.Cutter).CutAfter, "received": (*rig.Cutter).CutRepliesAfter,
	} {
		t.Run(name, func(t *testing.T) {
			c := rig.NewCutter(t, echo(t))
			cutAfter(c, 100_000, 200_000)
			for i, limit := range []int{100_000, 200_000} {
				if n, err := send(t, c, 1<<20); n > limit || err == nil {
					t.Errorf("%d bytes, %v; want at most %d and an error", n, err, limit)
				}
				if c.Cuts() != i+1 {
					t.Errorf("%d cuts, want %d", c.Cuts(), i+1)
				}
			}
			if n, err := send(t, c, 1<<20); n != 1<<20 || err != nil {
				t.Errorf("after all cuts: %d bytes, %v", n, err)
			}
		})
	}
	t.Run("exactly", func(t *testing.T) {
		c := rig.NewCutter(t, echo(t))
		c.CutAfter(1000)
		if n, err := send(t, c, 1000); n != 1000 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if n, err := send(t, c, 1); n != 0 || err == nil || c.Cuts() != 1 {
			t.Errorf("%d bytes, %v, %d cuts", n, err, c.Cuts())
		}
	})
}

func TestCutterRefuses(t *testing.T) {
	c := rig.NewCutter(t, echo(t))
	c.Refuse(t, true)
	if conn, err := net.Dial("tcp", c.Address); err == nil {
		conn.Close()
		t.Error("a connection is taken")
	}
	c.Refuse(t, false)
	if n, err := send(t, c, 10); n != 10 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestCutterStalls(t *testing.T) {
	c := rig.NewCutter(t, echo(t))
	conn, err := net.Dial("tcp", c.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c.Stall(true)
	conn.Write([]byte("x"))
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a byte passes")
	}
	c.Stall(false)
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := conn.Read(make([]byte, 1)); n != 1 {
		t.Errorf("no byte passes: %v", err)
	}
	c.Stall(true) // must not keep the test from its end
	conn.Write([]byte("x"))
}
