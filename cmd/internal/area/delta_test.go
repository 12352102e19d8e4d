package area

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBackingName(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, base, want string }{
		{"/images", "/images/base.qcow2", "base.qcow2"},
		{"/images/", "/images/old/base.qcow2", "old/base.qcow2"},
		{"/images/new", "/images/base.qcow2", "/images/base.qcow2"},
		{"/images", "/other/base.qcow2", "/other/base.qcow2"},
		{"/", "/base.qcow2", "base.qcow2"},
		{".", "base.qcow2", "base.qcow2"},
		{"/images", "base.qcow2", filepath.Join(here, "base.qcow2")},
		{"/images", "/images-old/base.qcow2", "/images-old/base.qcow2"},
	} {
		if got, err := backingName(c.dir, c.base); got != c.want || err != nil {
			t.Errorf("backingName(%q, %q) = %q, %v; want %q", c.dir, c.base, got, err, c.want)
		}
	}
}
