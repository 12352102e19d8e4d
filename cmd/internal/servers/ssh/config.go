package ssh

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"

	"flatimg/cmd/internal/servers"
)

// answerTimeout is how long ssh may take to say how it is configured.
const answerTimeout = 5 * time.Second

// WithOptions returns t with the command line that o says, and with options for
// what the user's configuration leaves open. What it sets stays; on the command
// line it would lose against these.
func (t Target) WithOptions(ctx context.Context, o servers.Options) Target {
	t.command = commandLine(o)
	if program, _, _ := strings.Cut(t.command, " "); path.Base(program) != "ssh" {
		return t
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	config := t.config(ctx)
	t.defaults = timeouts(config)
	if hasFastAES() {
		// The last -F is the one that counts: no file at all.
		t.defaults = append(t.defaults, ciphers(config, t.config(ctx, "-F", "none"))...)
	}
	return t
}

// commandLine returns the one that starts ssh: that of the options, else that of
// the environment.
func commandLine(o servers.Options) string {
	if o.SSH != "" {
		return o.SSH
	}
	if env := os.Getenv("FLATIMG_SSH"); env != "" {
		return env
	}
	return "ssh"
}

// config returns ssh's configuration for the host (ssh(1), -G): keywords in
// lower case and their values, one a line. It is empty after an error, which is
// that of the user's options, and will be told.
func (t Target) config(ctx context.Context, options ...string) []byte {
	line := append(t.Line(append(options, "-G")...), "--", t.Host)
	out, _ := exec.CommandContext(ctx, "/bin/sh", line...).Output()
	return out
}

// timeouts returns the options that a configuration lacks for a silent host
// to be an error after a minute, not a hang: before the login, and after it
// (ssh_config(5)).
func timeouts(config []byte) (options []string) {
	set := map[string]bool{}
	for line := range bytes.Lines(config) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		set[key] = value != "none" && value != "0"
	}
	if !set["connecttimeout"] {
		options = append(options, "-o", "ConnectTimeout=60")
	}
	if !set["serveraliveinterval"] {
		options = append(options, "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
	}
	return options
}
