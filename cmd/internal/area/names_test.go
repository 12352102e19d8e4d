package area

import (
	"testing"

	"flatimg/convert"
)

func TestTargetName(t *testing.T) {
	raw, qcow2 := convert.Spec{Format: "raw"}, convert.Spec{Format: "qcow2"}
	for _, c := range []struct {
		image, snapshot string
		spec            convert.Spec
		want            string
	}{
		{"/images/web.qcow2", "", raw, "web.raw"},
		{"web.QCOW2", "", qcow2, "web.qcow2"},
		{"web", "", raw, "web.raw"},
		{"web.v2", "", raw, "web.v2.raw"},
		{".qcow2", "", raw, ".qcow2.raw"},
		{"web.img", "before/after", raw, "web@before_after.raw"},
	} {
		if got := targetName(c.image, c.snapshot, c.spec); got != c.want {
			t.Errorf("%s, snapshot %q: %s, want %s", c.image, c.snapshot, got, c.want)
		}
	}
}

func TestTargetSpec(t *testing.T) {
	for _, c := range []struct{ format, dest, want string }{
		{"", "web.qcow2", "qcow2"},
		{"", "web.QCOW2", "qcow2"},
		{"", "sftp://host/images/web.qcow2", "qcow2"},
		{"", "web.raw", "raw"},
		{"", "web.img", "raw"},
		{"", "web.vpc", "vhd"},
		{"", "web.qcow2,compat=0.10", "raw"},
		{"", "web", "raw"},
		{"", "/images/", "raw"},
		{"raw", "web.qcow2", "raw"},
		{"qcow2,compat=0.10", "web", "qcow2,compat=0.10"},
	} {
		spec, err := targetSpec(c.format, c.dest)
		if err != nil || spec.String() != c.want {
			t.Errorf("%q to %s: %v, %v; want %s", c.format, c.dest, spec, err, c.want)
		}
	}
	if _, err := targetSpec("floppy", "web"); err == nil {
		t.Error("an unknown format is accepted")
	}
}
