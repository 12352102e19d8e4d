package schemes

import (
	"errors"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
)

func TestUnknownScheme(t *testing.T) {
	_, err := Open(t.Context(), "gopher://host/a", servers.Options{})
	if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitUsage || !strings.Contains(e.Hint, "sftp://") {
		t.Errorf("%v, want an error that lists what there is", err)
	}
}

func TestIsURL(t *testing.T) {
	for dest, want := range map[string]bool{
		"sftp://host/a": true, "x://": true, "./x://y": false, "/x://y": false, "a/b://c": false, "://x": false, "disk.raw": false,
	} {
		if got := IsURL(dest); got != want {
			t.Errorf("IsURL(%s) = %v", dest, got)
		}
	}
}
