package ssh

import (
	"strings"
	"testing"
)

func TestCiphers(t *testing.T) {
	const usual = "port 22\nciphers chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com\nmacs x\n"
	for _, c := range []struct{ name, config, byDefault, want string }{
		{"default", usual, usual, "-o Ciphers=aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes256-gcm@openssh.com"},
		{"set by the user", "ciphers aes128-ctr,aes128-gcm@openssh.com\n", usual, ""},
		{"one of the user", "ciphers chacha20-poly1305@openssh.com\n", usual, ""},
		{"not among the defaults", "ciphers a,b\n", "ciphers a,b\n", ""},
		{"first already", "ciphers aes128-gcm@openssh.com,a\n", "ciphers aes128-gcm@openssh.com,a\n", ""},
		{"no answer", "", "", ""},
	} {
		if got := strings.Join(ciphers([]byte(c.config), []byte(c.byDefault)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
