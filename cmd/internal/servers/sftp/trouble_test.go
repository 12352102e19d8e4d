package sftp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

// TestSFTPLeftover has a server that does not remove the name that the file had
// before it was published.
func TestSFTPLeftover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dest, o := destination(t, dir, "disk.raw", "deny 13")
	up, err := Open(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	log := &servertest.Log{}
	if err := errors.Join(publish(t, up, servertest.SmallSource(31), log), up.Close(false)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/disk.raw"); err != nil || len(log.Said) != 1 {
		t.Errorf("%v, told %q", err, log.Said)
	}
}

// TestSFTPReplaceWithout replaces files at servers that can't do so at once.
func TestSFTPReplaceWithout(t *testing.T) {
	t.Parallel()
	src := servertest.SmallSource(32)
	dir := t.TempDir()
	for _, fault := range []string{"plain", "plain 18"} {
		servertest.WriteFile(t, dir+"/disk.raw", "old")
		dest, o := destination(t, dir, "disk.raw", fault)
		o.Force = true
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		err = publish(t, up, src, &servertest.Log{})
		if err := up.Close(false); err != nil {
			t.Error(err)
		}
		if fault == "plain" && err == nil {
			servertest.CheckFile(t, dir, "disk.raw", src)
			continue
		}
		if b, e := os.ReadFile(dir + "/disk.raw"); err == nil || string(b) != "old" {
			t.Errorf("%s: %v; the old file is now %.10q, %v", fault, err, b, e)
		}
		servertest.CheckOnly(t, dir, "disk.raw")
	}
}

// TestSFTPReadBackFails gives up with a server that reads nothing any more.
func TestSFTPReadBackFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	faults := append([]string{"out 900000"}, slices.Repeat([]string{"out 300"}, 20)...)
	dest, o := destination(t, dir, "disk.raw", faults...)
	o.Retries = 2
	up, err := Open(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if err := publish(t, up, servertest.SmallSource(33), &servertest.Log{}); cli.ExitCode(err) != cli.ExitServer {
		t.Error(err)
	}
}

// TestSFTPSilent has a server that hangs, behind a connection that lives.
func TestSFTPSilent(t *testing.T) {
	t.Parallel()
	for _, connections := range []int{1, 3} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			src := servertest.SmallSource(34)
			dest, o := destination(t, dir, "disk.raw", append(slices.Repeat([]string{""}, connections-1), "hang 300000")...)
			o.Connections = connections
			up, err := Open(t.Context(), dest, o)
			if err != nil {
				t.Fatal(err)
			}
			// More than it takes to start the fake ssh of the other connections,
			// for which the first one waits.
			up.(*upload).server.silence = 5 * time.Second
			log := &servertest.Log{}
			if err := errors.Join(publish(t, up, src, log), up.Close(false)); err != nil {
				t.Error(err)
			}
			if said := strings.Join(log.Said, "\n"); !strings.Contains(said, "no answer") {
				t.Errorf("told %q", said)
			}
			servertest.CheckFile(t, dir, "disk.raw", src)
		})
	}
}

// TestSFTPLaneHangs interrupts an upload of which one connection hangs.
func TestSFTPLaneHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := servers.Options{SSH: fakeSSHIn(t, dir, "", "", "hang 300000"), Connections: 3}
	up, err := Open(t.Context(), "sftp://host"+dir+"/disk.raw", o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- up.Send(ctx, servertest.SmallSource(35), &servertest.Log{}) }()
	rig.Eventually(t, time.Minute, "the server hangs", func() bool {
		_, err := os.Stat(dir + "/faults.hung")
		return err == nil
	})
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(time.Minute): // what is silent is hung up on after 10
		t.Fatal("it still sends")
	}
	up.Close(false)
}

// TestSFTPChecksumLost tells a server that is gone from one without checksums.
func TestSFTPChecksumLost(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		dir := t.TempDir()
		servertest.WriteFile(t, dir+"/disk.raw", "content")
		dest, o := destination(t, dir, "disk.raw", append([]string{""}, slices.Repeat([]string{"refuse"}, 20)...)...)
		o.Retries = 1
		down, err := OpenSource(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		if gone {
			down.(*download).server.close()
		}
		_, err = down.(servers.Summer).Checksum(t.Context())
		if errors.Is(err, errors.ErrUnsupported) == gone || err == nil {
			t.Errorf("gone: %v: %v", gone, err)
		}
		down.Close()
	}
}

// TestSFTPElsewhere has an account whose SFTP server begins in another folder
// than its shell, where a file of the same name is.
func TestSFTPElsewhere(t *testing.T) {
	t.Parallel()
	server := "/usr/lib/openssh/sftp-server"
	if _, err := os.Stat(server); err != nil {
		server = rig.Need(t, "sftp-server")
	}
	dir, home, there := t.TempDir(), t.TempDir(), t.TempDir()
	script := filepath.Join(dir, "account")
	servertest.WriteFile(t, script, `case " $*" in
*" -s "*) exec `+server+` -d "`+there+`" ;;
*" -G "*) exit 1 ;;
esac
cd "`+home+`"
for command; do :; done
eval "$command"
`)
	servertest.WriteFile(t, home+"/disk.raw", "another file")
	o := servers.Options{SSH: "sh " + transfer.ShellQuote(script)}
	up, err := Open(t.Context(), "sftp://host/~/disk.raw", o)
	if err != nil {
		t.Fatal(err)
	}
	src := servertest.SmallSource(36)
	sum := sha256.Sum256(servertest.Content(t, src))
	if err := up.Send(t.Context(), src, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	if by, err := up.(servers.Verifier).Verify(t.Context(), sum[:]); err != nil || by != ssh.ByServer {
		t.Errorf("verified %q, %v", by, err)
	}
	if err := errors.Join(up.Publish(t.Context()), up.Close(false)); err != nil {
		t.Error(err)
	}
	down, err := OpenSource(t.Context(), "sftp://host/~/disk.raw", o)
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	if got, err := down.(servers.Summer).Checksum(t.Context()); err != nil || !bytes.Equal(got.Sum, sum[:]) {
		t.Errorf("checksum %x, %v, want %x", got.Sum, err, sum)
	}
}
