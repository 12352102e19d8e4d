package servers

import (
	"bytes"
	"context"
	"os/exec"
	"path"
	"strings"
	"time"
)

// sshAnswer is how long ssh may take to say how it is configured.
const sshAnswer = 5 * time.Second

// withTimeouts returns t with options that make a silent host an error after a
// minute, not a hang: before the login, and after it. What the user has
// configured stays; on the command line it would lose against these.
func (t sshTarget) withTimeouts(ctx context.Context) sshTarget {
	if program, _, _ := strings.Cut(t.command, " "); path.Base(program) != "ssh" {
		return t
	}
	ctx, cancel := context.WithTimeout(ctx, sshAnswer)
	defer cancel()
	line := append(t.line("-G"), "--", t.host)
	// An error is that of the user's options, which will be told.
	out, _ := exec.CommandContext(ctx, "/bin/sh", line...).Output()
	t.timeouts = sshTimeouts(out)
	return t
}

// sshTimeouts returns the options that a configuration lacks, as ssh -G prints
// one (ssh_config(5)).
func sshTimeouts(config []byte) (options []string) {
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
