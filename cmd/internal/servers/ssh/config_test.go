package ssh

import (
	"strings"
	"testing"
)

func TestTimeouts(t *testing.T) {
	for config, want := range map[string]string{
		"connecttimeout none\nserveraliveinterval 0\n": "-o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
		"connecttimeout 5\nserveraliveinterval 0\n":    "-o ServerAliveInterval=15 -o ServerAliveCountMax=4",
		"connecttimeout 5\nserveraliveinterval 7":      "",
		"": "-o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
	} {
		if got := strings.Join(timeouts([]byte(config)), " "); got != want {
			t.Errorf("%q: %s", config, got)
		}
	}
}
