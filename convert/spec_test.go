package convert

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestParseSpec(t *testing.T) {
	for _, c := range []struct {
		text, format, extension string
		options                 map[string]string
	}{
		{"raw", "raw", ".raw", nil},
		{"qcow2", "qcow2", ".qcow2", nil},
		{"qcow2,cluster_size=2M,compat=0.10", "qcow2", ".qcow2", map[string]string{"cluster_size": "2M", "compat": "0.10"}},
		{"qcow2,cluster_size=512", "qcow2", ".qcow2", map[string]string{"cluster_size": "512"}},
		{"vdi,static=on,subformat=static", "vdi", ".vdi", map[string]string{"static": "on", "subformat": "static"}},
		{"qcow2,cluster_size=64K,compat=v3", "qcow2", ".qcow2", map[string]string{"cluster_size": "64K", "compat": "v3"}},
	} {
		s, err := ParseSpec(c.text)
		if err != nil || s.Format != c.format || s.Extension() != c.extension || !maps.Equal(s.Options, c.options) {
			t.Errorf("ParseSpec(%q) = %+v, %v", c.text, s, err)
		}
		if s.String() != c.text {
			t.Errorf("%q is written as %q", c.text, s)
		}
	}
}

func TestParseSpecErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "use one of raw, qcow2"},
		{"qcow", "use one of raw, qcow2"},
		{"QCOW2", "use one of raw, qcow2"},
		{"qcow2,compression=zstd,compat=v2", "not possible with compat=v2"},
		{"vdi,subformat=dynamic,static=on", "contradict each other"},
		{"vdi,static=off,subformat=static", "contradict each other"},
		{"raw,cluster_size=64k", "it has none at all"},
		{"qcow2,", "write NAME=VALUE"},
		{"qcow2,compat", "write NAME=VALUE"},
		{"qcow2,=1", `no option ""`},
		{"qcow2,size=1G", "use cluster_size=512..2M, compat=0.10|1.1|v2|v3"},
		{"qcow2,compat=1.0", "use compat=0.10|1.1|v2|v3"},
		{"qcow2,compat=v2,compat=v2", "given twice"},
		{"qcow2,cluster_size=", "power of two in 512..2M"},
		{"qcow2,cluster_size=k", "power of two in 512..2M"},
		{"qcow2,cluster_size=-512", "power of two in 512..2M"},
		{"qcow2,cluster_size=0", "power of two in 512..2M"},
		{"qcow2,cluster_size=256", "power of two in 512..2M"},
		{"qcow2,cluster_size=65535", "power of two in 512..2M"},
		{"qcow2,cluster_size=96k", "power of two in 512..2M"},
		{"qcow2,cluster_size=4M", "power of two in 512..2M"},
		{"qcow2,cluster_size=16E", "power of two in 512..2M"},
		{"qcow2,cluster_size=18014398509481984k", "power of two in 512..2M"},
		{"qcow2,cluster_size=1kk", "power of two in 512..2M"},
	} {
		s, err := ParseSpec(c.text)
		if _, ok := errors.AsType[*SpecError](err); !ok || !strings.Contains(err.Error(), c.want) || s.Format != "" {
			t.Errorf("ParseSpec(%q) = %+v, %v, want an error with %q", c.text, s, err, c.want)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for file, want := range map[string]string{
		"a.qcow2": "qcow2", "a/b.VPC": "vhd", "x.vhd": "vhd", "sftp://h/x.y.OVA": "ova", ".vdi": "vdi",
		"": "", "qcow2": "", "a.img": "", "a.qcow2/b": "", "a.": "", "a.qcow2,compat=v2": "",
	} {
		if got := FormatOf(file); got != want {
			t.Errorf("%q is of %q, want %q", file, got, want)
		}
	}
}

// A spec that was not parsed is checked before it is used.
func TestUncheckedSpec(t *testing.T) {
	for _, s := range []Spec{
		{},
		{Format: "vmdk2"},
		{Format: "raw", Options: map[string]string{"x": "y"}},
		{Format: "qcow2", Options: map[string]string{"cluster_size": "3"}},
	} {
		if _, err := New(newDisk(1), s); err == nil {
			t.Errorf("%+v makes a target", s)
		}
		if _, err := Measure(newDisk(1), s); err == nil {
			t.Errorf("%+v is measured", s)
		}
	}
	if ext := (Spec{}).Extension(); ext != "" {
		t.Errorf("no format has extension %q", ext)
	}
}

func TestSizeText(t *testing.T) {
	for text, bytes := range map[string]int64{
		"0": 0, "1": 1, "1023": 1023, "1k": 1 << 10, "1025": 1025, "64k": 64 << 10, "2M": 2 << 20, "3G": 3 << 30, "2048T": 0, "7E": 7 << 60,
	} {
		if got, ok := parseSize(text); !ok || bytes != 0 && got != bytes {
			t.Errorf("parseSize(%q) = %d, %v", text, got, ok)
		} else if text != "2048T" && sizeText(got) != text {
			t.Errorf("sizeText(%d) = %q", got, sizeText(got))
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	for _, s := range []string{"raw", "qcow2", "qcow2,cluster_size=2M,compat=0.10", "qcow2,,=,", "vmdk"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpec(text)
		if err != nil {
			if s.Format != "" || s.Options != nil {
				t.Fatalf("%+v with error %v", s, err)
			}
			return
		}
		again, err := ParseSpec(s.String())
		if err != nil || again.Format != s.Format || !maps.Equal(again.Options, s.Options) {
			t.Fatalf("%q is written as %q, read as %+v, %v", text, s, again, err)
		}
		build(t, newDisk(1000, Run{0, 1}), s.String())
	})
}
