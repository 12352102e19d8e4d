package rig

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// startCommand starts cmd so that it is killed when this process ends, also by
// the time limit of its tests, which runs no cleanup. A parent's death is that
// of the thread which started the child (PR_SET_PDEATHSIG(2const)), so one
// thread, which never ends, starts all of them.
func startCommand(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

var starter = sync.OnceValue(func() chan<- func() {
	calls := make(chan func())
	go func() {
		runtime.LockOSThread()
		for call := range calls {
			call()
		}
	}()
	return calls
})
