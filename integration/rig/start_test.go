package rig_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// TestStartedEndWithTheTests kills a test binary, this one, and looks for what
// it had started.
func TestStartedEndWithTheTests(t *testing.T) {
	if os.Getenv("RIG_TEST_CHILD") == "1" {
		p := rig.Start(t, rig.Command(rig.Need(t, "sleep"), "60"))
		fmt.Println("started", p.Cmd.Process.Pid)
		p.Wait(t, time.Minute)
		return
	}
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), "RIG_TEST_CHILD=1")
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, _ := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "started ")))
	if err != nil || pid <= 0 {
		t.Fatalf("%q, %v", line, err)
	}
	child.Process.Kill()
	child.Wait()
	rig.Eventually(t, time.Minute, "the process has ended", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ") || syscall.Kill(pid, 0) != nil
	})
}
