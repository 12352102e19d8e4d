package ssh

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/cmd/internal/servers/transfer"
)

// TestSHA256Line runs the line where only some of the programs are.
func TestSHA256Line(t *testing.T) {
	file := filepath.Join(t.TempDir(), "it's a disk")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		programs map[string]string
		want     string // of its output
	}{
		{"both", map[string]string{"openssl": "echo $2 $(cat)", "sha256sum": "echo sum $(cat)"}, "-sha256 content"},
		{"no openssl", map[string]string{"sha256sum": "echo sum $(cat)"}, "sum content"},
		{"an openssl that fails", map[string]string{"openssl": "cat; exit 1", "sha256sum": "echo sum $(cat)"}, "contentsum content"},
		{"none", nil, ""},
	} {
		bin := t.TempDir()
		for name, script := range c.programs {
			// They find cat by the path that the test has.
			script = "#!/bin/sh\nPATH=" + transfer.ShellQuote(os.Getenv("PATH")) + "\n" + script + "\n"
			if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("/bin/sh", "-c", sha256Line(file))
		cmd.Env = []string{"PATH=" + bin}
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}
