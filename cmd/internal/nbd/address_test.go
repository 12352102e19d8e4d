package nbd

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("x", maxName)
	for _, c := range []struct {
		text string
		want Address
	}{
		{"nbd://host", Address{Host: "host", Port: "10809"}},
		{"nbd://host/", Address{Host: "host", Port: "10809"}},
		{"NBD://host:1/disk", Address{Host: "host", Port: "1", Export: "disk"}},
		{"nbd://host//disk", Address{Host: "host", Port: "10809", Export: "/disk"}},
		{"nbd://host/hello%20world%3F%23%2f", Address{Host: "host", Port: "10809", Export: "hello world?#/"}},
		{"nbd://[::1]/a", Address{Host: "::1", Port: "10809", Export: "a"}},
		{"nbd://[fe80::1%25eth0]:5/a", Address{Host: "fe80::1%eth0", Port: "5", Export: "a"}},
		{"nbd://host/" + long, Address{Host: "host", Port: "10809", Export: long}},
		{"nbds://host/a", Address{Host: "host", Port: "10809", Export: "a", TLS: true}},
		{
			"nbds://10.0.0.1/a?tls-certificates=/etc/pki%2Fx&tls-hostname=name&tls-type=x509&tls-verify-peer=1",
			Address{Host: "10.0.0.1", Port: "10809", Export: "a", TLS: true, Certificates: "/etc/pki/x", ServerName: "name"},
		},
		{"nbd+unix:///a/b?socket=/run/s", Address{Network: "unix", Socket: "/run/s", Export: "a/b"}},
		{"nbd+unix://?socket=s", Address{Network: "unix", Socket: "s"}},
		{"nbd+unix:///?socket=%00/abstract", Address{Network: "unix", Socket: "@/abstract"}},
		{"nbd+unix:///?socket=@here", Address{Network: "unix", Socket: "./@here"}},
		{"nbds+unix:///?socket=/run/a%20b%2Bc", Address{Network: "unix", Socket: "/run/a b+c", TLS: true}},
	} {
		if c.want.Network == "" {
			c.want.Network = "tcp"
		}
		got, err := Parse(c.text)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.text, got, err, c.want)
			continue
		}
		again, err := Parse(got.String())
		want := c.want
		want.Certificates, want.ServerName = "", ""
		if err != nil || again != want {
			t.Errorf("%s written as %s: %+v, %v", c.text, got, again, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{
		"", "disk", "http://host/a", "nbd:host/a", "nbd:///a", "nbd://:10/a", "nbd://host:0/a", "nbd://host:65536/a",
		"nbd://host:x/a", "nbd://user@host/a", "nbds://user:secret@host/a", "nbd://user:secret@host:x/a",
		"nbd://host/a#b", "nbd://host/a?b", "nbd://host/%00", "nbd://host/%ff", "nbd://host/%zz",
		"nbd://host/" + strings.Repeat("x", maxName+1), "nbd://host/a?socket=/run/s",
		"nbd://host/a?tls-certificates=/x", "nbds://host/?tls-type=psk", "nbds://host/?tls-verify-peer=0",
		"nbds://host/?tls-psk-file=/x", "nbds://host/?tls-username=me", "nbds://host/?tls-hostname=a&tls-hostname=b",
		"nbd+unix:///a", "nbd+unix://host/a?socket=/run/s", "nbd+unix:///a?socket=", "nbd+unix:///a?socket=/a%00b",
		"nbd+unix:///a?socket=" + strings.Repeat("x", maxSocket+1), "nbd+unix:///a?socket=%zz", "nbd+unix:///a?socket=b&x-c=d",
	} {
		a, err := Parse(text)
		if _, ok := errors.AsType[*AddressError](err); !ok || a != (Address{}) {
			t.Errorf("%s: %+v, %v", text, a, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", text, err)
		}
	}
}
