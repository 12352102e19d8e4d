package servertest

import (
	"net"
	"net/http"
	"time"
)

// Hangs is longer than what ends by itself takes on the busiest machine, and
// shorter than the minutes after which a line that stands still is given up.
const Hangs = 45 * time.Second

// Reset resets the connection of a request, and returns true: it was answered.
func Reset(w http.ResponseWriter) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	return true
}
