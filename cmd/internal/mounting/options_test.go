package mounting

import (
	"slices"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/fs"
)

func TestApplyOptions(t *testing.T) {
	var o fs.Options
	if err := ApplyOptions(&o, []string{"direct_io,noexec", "", "fsname=a=b,allow_other,ro"}); err != nil {
		t.Fatal(err)
	}
	if !o.DirectIO || !o.AllowOther || o.FSName != "a=b" || !slices.Equal(o.Flags, []string{"noexec", "ro"}) {
		t.Errorf("%+v", o)
	}
	for _, bad := range []string{"rw", "suid", "noexec=1", "fsname", "fsname=", "direct_io=yes", "noexec,,bogus"} {
		err := ApplyOptions(new(fs.Options), []string{bad})
		if err == nil || cli.ExitCode(err) != cli.ExitUsage || cli.Hint(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := ApplyOptions(new(fs.Options), []string{"lazytime"}); !strings.Contains(cli.Hint(err), "noatime") {
		t.Errorf("the hint does not list what is known: %s", cli.Hint(err))
	}
}
