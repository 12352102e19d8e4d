package fs

import (
	"slices"
	"strings"
	"testing"

	"flatimg/convert"
	"flatimg/layers/volume"
)

func TestStem(t *testing.T) {
	for file, want := range map[string]string{
		"web.qcow2":     "web",
		"web.QCow2":     "web",
		"web.old.img":   "web.old",
		"web.snap1":     "web.snap1",
		"web":           "web",
		".img":          ".img",
		"disc.iso":      "disc",
		"a.qcow2.qcow2": "a.qcow2",
	} {
		if got, has := stem(file); got != want || has != (got != file) {
			t.Errorf("stem(%q) = %q, %v, want %q", file, got, has, want)
		}
	}
}

func TestAssignNames(t *testing.T) {
	raw := func(source int, file, snapshot string) nameWish { return nameWish{file, source, snapshot, ".raw"} }
	tests := map[string]struct {
		wishes []nameWish
		want   []string
	}{
		"plain":               {[]nameWish{raw(1, "web.qcow2", ""), raw(1, "db.img", "")}, []string{"web.raw", "db.raw"}},
		"snapshot":            {[]nameWish{raw(1, "web.qcow2", ""), raw(1, "web.qcow2", "@s")}, []string{"web.raw", "web@s.raw"}},
		"same stem":           {[]nameWish{raw(1, "web.qcow2", ""), raw(1, "web.img", "")}, []string{"web.qcow2.raw", "web.img.raw"}},
		"same file":           {[]nameWish{raw(1, "web.img", ""), raw(2, "web.img", ""), raw(2, "db.img", "")}, []string{"web.img~1.raw", "web.img~2.raw", "db.raw"}},
		"snapshot and file":   {[]nameWish{raw(1, "web@s.img", ""), raw(1, "web.img", "@s")}, []string{"web@s.img.raw", "web.img@s.raw"}},
		"step into a name":    {[]nameWish{raw(1, "a.img", ""), raw(1, "a.raw", ""), raw(1, "a.img.img", "")}, []string{"a.img~1.raw", "a.raw.raw", "a.img.img.raw"}},
		"nothing tells apart": {[]nameWish{raw(1, "a.img", ""), raw(1, "a.img", "")}, []string{"", ""}},
		"too long":            {[]nameWish{raw(1, strings.Repeat("x", 252), ""), raw(1, strings.Repeat("y", 251), "")}, []string{"", strings.Repeat("y", 251) + ".raw"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := assignNames(test.wishes); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			slices.Reverse(test.wishes)
			slices.Reverse(test.want)
			if got := assignNames(test.wishes); !slices.Equal(got, test.want) {
				t.Errorf("in reverse order: got %q, want %q", got, test.want)
			}
		})
	}
}

func TestSnapshotLabels(t *testing.T) {
	got := snapshotLabels([]volume.Snapshot{
		{ID: "1", Name: "daily"}, {ID: "2", Name: "a/b"}, {ID: "3", Name: "a\x00b"}, {ID: "4", Name: ""}, {ID: "5", Name: "\xff\n"},
	})
	want := []string{"@daily", "@a_b~2", "@a_b~3", "@4", "@__"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFormatSuffixes(t *testing.T) {
	formats := []convert.Spec{
		{Format: "raw"},
		{Format: "qcow2"},
		{Format: "qcow2", Options: map[string]string{"cluster_size": "2M", "compat": "v2"}},
		{Format: "qcow2"},
	}
	formats = uniqueFormats(formats)
	if got, want := formatSuffixes(formats), []string{".raw", ".qcow2", ",cluster_size=2M,compat=v2.qcow2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
