package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// buildDir holds the binary of this process; Main removes it.
var buildDir string

// Main runs the tests of a package, stops the servers that they shared and
// removes what the rig built for them.
// Call it from TestMain; it does not return.
func Main(m *testing.M) {
	code := m.Run()
	endShared()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// Binary returns the path of the program under test. The first call of a
// process builds it, unless FLATIMG_BINARY names one.
func Binary(t T) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return path
}

var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("FLATIMG_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "flatimg-rig-")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "flatimg")
	args := []string{"build", "-o", path}
	if os.Getenv("FLATIMG_RACE") == "1" {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "flatimg/cmd/flatimg")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build flatimg/cmd/flatimg: %w\n%s", err, out)
	}
	return path, nil
})

// RemoveBinary removes the built binary, for programs that have no [Main].
func RemoveBinary() {
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
}

// Root returns the root folder of the module that holds the working folder.
func Root(t T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("%v", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatalf("no go.mod above the working folder")
		}
		dir = parent
	}
}
