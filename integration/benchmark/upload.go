package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"flatimg/integration/rig"
)

// uploaded returns a side that times an upload to a file, which is not there
// before, and must have arrived after.
func (b *bench) uploaded(path string, upload func()) side {
	return func() float64 {
		os.Remove(path)
		// What the run before has left to be written must not slow this one.
		b.command("sync")
		seconds := timed(upload)
		if _, err := os.Stat(path); err != nil {
			b.Fatalf("%s has not arrived: %v", path, err)
		}
		return seconds
	}
}

// throughput is the figure of an upload of size bytes in the seconds of both
// sides.
func throughput(what string, size int64, m []float64, goal float64) figure {
	return figure{what: what, ours: float64(size) / m[0], peer: float64(size) / m[1], unit: bytesPerSecond, goal: goal, atLeast: true}
}

// scaled is a size in bytes, or an eighth of it in a quick run.
func (b *bench) scaled(size int64) int64 {
	if b.quick {
		size /= 8
	}
	return size
}

// randomFile returns the path of a file of size bytes: step bytes of data, and
// as much of a hole if holes is set, and so on.
func (b *bench) randomFile(size, step int64, holes bool) string {
	f, err := os.Create(b.TempDir() + "/ready.raw")
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer f.Close()
	for off := int64(0); off < size; off += step {
		if holes && off/step%2 == 1 {
			continue
		}
		if _, err := io.CopyN(io.NewOffsetWriter(f, off), rand.Reader, min(step, size-off)); err != nil {
			b.Fatalf("%v", err)
		}
	}
	if err := f.Truncate(size); err != nil {
		b.Fatalf("%v", err)
	}
	b.warm([]string{f.Name()})
	return f.Name()
}

// sshURL is the URL of a path on an ssh server.
func sshURL(s *rig.SSHServer, path string) string {
	return fmt.Sprintf("sftp://%s@%s:%d%s", s.User, s.Host, s.Port, path)
}

// exportMemory runs an export with more variables of the environment, and
// returns the largest resident set of the program in bytes; what it starts, as
// ssh, is not counted.
func (b *bench) exportMemory(env []string, args ...string) (peak float64) {
	cmd := rig.Command(rig.Binary(b), append([]string{"export", "--quiet"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	p := rig.Start(b, cmd)
	// The highest so far is there to be read until it ends.
	rig.Eventually(b, 5*time.Minute, "the export ends", func() bool {
		if now, ok := peakMemory(p.Cmd.Process.Pid); ok {
			peak = now
		}
		return !p.Running()
	})
	if code := p.Wait(b, time.Second); code != 0 {
		b.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), code, p.Output())
	}
	return peak
}
