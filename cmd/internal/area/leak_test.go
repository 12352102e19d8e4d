package area

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// checkLeaks fails the test when, at its end, there are more descriptors or
// goroutines than now.
func checkLeaks(t *testing.T) {
	t.Helper()
	files, routines := descriptors(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			f, r := descriptors(t), runtime.NumGoroutine()
			if f <= files && r <= routines {
				return
			}
			if time.Since(begin) > 30*time.Second {
				buf := make([]byte, 64<<10)
				t.Errorf("%d descriptors, were %d; %d goroutines, were %d\n%s", f, files, r, routines, buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}
