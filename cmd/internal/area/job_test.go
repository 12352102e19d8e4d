package area

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
)

// testRequest is what the jobs of these tests are about.
func testRequest() Request {
	return Request{Image: "/images/web.qcow2", URL: "sftp://host/web.raw", Format: "raw"}
}

func mustJob(t *testing.T, area string, r Request) *job {
	t.Helper()
	j, err := newJob(area, r, "state", access{})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestFindJob(t *testing.T) {
	area := t.TempDir()
	j := mustJob(t, area, testRequest())
	if err := j.update(mainFile, true, func(f *fileRecord) { f.Size, f.State = 7, json.RawMessage(`{"part":"x"}`) }); err != nil {
		t.Fatal(err)
	}
	if found, err := findJob(area, testRequest()); found != nil || err != nil {
		t.Errorf("a job that is worked on: %v, %v", found, err)
	}
	if _, err := openJob(j.dir); !errors.Is(err, ErrBusy) {
		t.Errorf("a job that is worked on is opened: %v", err)
	}
	if jobs, err := Jobs(area); err != nil || len(jobs) != 1 || !jobs[0].Running {
		t.Errorf("jobs: %+v, %v", jobs, err)
	}
	j.close()
	for _, change := range []func(r *Request){
		func(r *Request) { r.Import = true }, func(r *Request) { r.Image += "x" }, func(r *Request) { r.URL += "x" },
		func(r *Request) { r.Snapshot = "s" }, func(r *Request) { r.Since = "1" }, func(r *Request) { r.Format = "qcow2" },
		func(r *Request) { r.VirtualSize = 1 << 30 }, func(r *Request) { r.DropZeros = true },
	} {
		other := testRequest()
		change(&other)
		if found, err := findJob(area, other); found != nil || err != nil {
			t.Errorf("%+v: found %v, %v", other, found, err)
		}
	}
	found, err := findJob(area, testRequest())
	if err != nil || found == nil {
		t.Fatalf("found %v, %v", found, err)
	}
	if f := found.file(mainFile); found.dir != j.dir || f.Size != 7 || !found.resumable() {
		t.Errorf("found %s: %+v", found.dir, f)
	}
	if err := found.remove(); err != nil {
		t.Error(err)
	}
	checkEmpty(t, area)
}

// TestFindJobWaits: who only looks at the jobs does not make an export begin
// anew.
func TestFindJobWaits(t *testing.T) {
	area := t.TempDir()
	mustJob(t, area, testRequest()).close()
	end := make(chan struct{})
	done := make(chan error)
	go func() {
		for {
			select {
			case <-end:
				done <- nil
				return
			default:
				if _, err := Jobs(area); err != nil {
					<-end
					done <- err
					return
				}
			}
		}
	}()
	for range 50 {
		j, err := findJob(area, testRequest())
		if j == nil || err != nil {
			t.Fatalf("found %v, %v", j, err)
		}
		j.close()
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestJobsMeet makes, finds and removes jobs of one request in many goroutines:
// none is had by two, and none is lost.
func TestJobsMeet(t *testing.T) {
	checkLeaks(t)
	area := t.TempDir()
	results := make(chan error)
	const workers = 8
	for range workers {
		go func() {
			for range 20 {
				j, err := findJob(area, testRequest())
				if j == nil && err == nil {
					j, err = newJob(area, testRequest(), "state", access{})
				}
				if err == nil {
					err = j.update(mainFile, true, func(f *fileRecord) { f.Size++ })
				}
				if err == nil && j.file(mainFile).Size%3 == 0 {
					err = j.remove()
				} else if err == nil {
					err = j.close()
				}
				if err != nil {
					results <- err
					return
				}
			}
			results <- nil
		}()
	}
	for range workers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	dirs, err := os.ReadDir(area)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if _, err := readRecord(filepath.Join(area, d.Name())); err != nil {
			t.Error(err)
		}
	}
}

// TestForeignJobs: in a shared area others can make folders of any name, whose
// records name commands.
func TestForeignJobs(t *testing.T) {
	checkLeaks(t)
	for _, c := range []struct {
		name string
		make func(t *testing.T, dir string) error
	}{
		{"others may write to it", func(t *testing.T, dir string) error { return os.Chmod(dir, 0o777) }},
		{"its group may write to it", func(t *testing.T, dir string) error { return os.Chmod(dir, 0o720) }},
		{"another owner", func(t *testing.T, dir string) error {
			if os.Geteuid() != 0 {
				t.Skip("not root: can't give a folder to another user")
			}
			return os.Chown(dir, 12345, -1)
		}},
		{"a link", func(t *testing.T, dir string) error {
			elsewhere := filepath.Join(t.TempDir(), "job")
			return errors.Join(os.Rename(dir, elsewhere), os.Symlink(elsewhere, dir))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			area := t.TempDir()
			j := mustJob(t, area, testRequest())
			j.update(mainFile, true, func(f *fileRecord) { f.Dest, f.State = "sftp://host/x", json.RawMessage(`{}`) })
			j.close()
			if err := c.make(t, j.dir); err != nil {
				t.Fatal(err)
			}
			if found, err := findJob(area, testRequest()); found != nil || err != nil {
				t.Errorf("found %v, %v", found, err)
			}
			if jobs, err := Jobs(area); len(jobs) != 0 || err != nil {
				t.Errorf("jobs %+v, %v", jobs, err)
			}
			if err := RemoveJob(t.Context(), area, j.id()); err == nil || errors.Is(err, ErrNoJob) {
				t.Errorf("removed: %v", err)
			}
			if _, err := os.Lstat(j.dir); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDamagedRecord(t *testing.T) {
	checkLeaks(t)
	const head = `{"version": 1, "request": {"image": "/images/web.qcow2", "url": "sftp://host/web.raw", "format": "raw"}`
	for text, sound := range map[string]bool{
		head + `}`:                true,
		head + `, "files": null}`: true,
		head + `, "files": {"main": {"size": -1}}}`:                 true,
		head + `, "files": {"main": null}}`:                         false,
		head + `, "files": {"main": {"name": "../../etc/passwd"}}}`: false,
		head + `, "files": {"main": {"name": "/etc/passwd"}}}`:      false,
		head + `, "files": {"main": {"name": ".."}}}`:               false,
		head + `, "files": {"main": {"name": "."}}}`:                false,
		head + `, "files": {"main": {"size": -2}}}`:                 false,
		head + `, "files": {"main": {"data": -1}}}`:                 false,
		head + `, "files": {"main": {"fetched": -1}}}`:              false,
		head + `, "files": {"main": {"hash": {"offset": -5}}}}`:     false,
		`{"version": 2}`: false,
		`{"version": `:   false,
		`null`:           false,
		``:               false,
	} {
		area := t.TempDir()
		j := mustJob(t, area, testRequest())
		j.close()
		if err := os.WriteFile(j.path(recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := findJob(area, testRequest())
		if (found != nil) != sound || err != nil {
			t.Errorf("%s: found %v, %v", text, found, err)
		}
		if found != nil {
			if err := found.update("other", true, func(f *fileRecord) { f.Size = 1 }); err != nil {
				t.Errorf("%s: %v", text, err)
			}
			found.close()
		}
	}
}

func TestRecordIsNoFile(t *testing.T) {
	area := t.TempDir()
	j := mustJob(t, area, testRequest())
	j.close()
	elsewhere := filepath.Join(t.TempDir(), "record")
	if err := errors.Join(os.Rename(j.path(recordName), elsewhere), os.Symlink(elsewhere, j.path(recordName))); err != nil {
		t.Fatal(err)
	}
	if found, err := findJob(area, testRequest()); found != nil || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestMade(t *testing.T) {
	j := mustJob(t, t.TempDir(), testRequest())
	defer j.remove()
	if f := j.made(mainFile); f != nil {
		t.Error("a file that nobody has made")
	}
	f, err := j.create("web.raw")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("content")
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	j.update(mainFile, true, func(f *fileRecord) { f.Name, f.Size, f.Made = "web.raw", 7, fi.ModTime().UnixNano() })
	if f := j.made(mainFile); f == nil {
		t.Error("the complete file is not found")
	} else {
		f.Close()
	}
	for _, spoil := range []func() error{
		func() error { return os.Truncate(j.path("web.raw"), 6) },
		func() error { return os.WriteFile(j.path("web.raw"), []byte("CONTENT"), 0o600) },
		func() error { return os.Chtimes(j.path("web.raw"), time.Time{}, time.Unix(1, 1)) },
		func() error { return os.Remove(j.path("web.raw")) },
		func() error { return os.Symlink(os.DevNull, j.path("web.raw")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if f := j.made(mainFile); f != nil {
			t.Errorf("%s is taken for the complete file", f.Name())
			f.Close()
		}
	}
}

func TestRemoveJob(t *testing.T) {
	checkLeaks(t)
	area := t.TempDir()
	for _, id := range []string{"", "x", "../x", "..", "x\x00y"} {
		if err := RemoveJob(t.Context(), area, id); err == nil {
			t.Errorf("%q is removed", id)
		}
	}
	j := mustJob(t, area, testRequest())
	if err := RemoveJob(t.Context(), area, j.id()); !errors.Is(err, ErrBusy) || cli.ExitCode(err) != cli.ExitRefused {
		t.Errorf("a job that is worked on: %v", err)
	}
	j.close()
	if err := RemoveJob(t.Context(), area, j.id()); err != nil {
		t.Error(err)
	}
	checkEmpty(t, area)

	// A job whose server can't be asked stays.
	j = mustJob(t, area, testRequest())
	j.update(mainFile, true, func(f *fileRecord) { f.Dest, f.State = "nothing://host/x", json.RawMessage(`{}`) })
	j.close()
	err := RemoveJob(t.Context(), area, j.id())
	if err == nil || !strings.Contains(cli.Hint(err), j.dir) || cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("%v, hint %q, exit code %d", err, cli.Hint(err), cli.ExitCode(err))
	}
	if jobs, err := Jobs(area); err != nil || len(jobs) != 1 || jobs[0].Running {
		t.Errorf("%+v, %v", jobs, err)
	}
}

func TestJobsWithoutArea(t *testing.T) {
	if _, err := Jobs(filepath.Join(t.TempDir(), "missing")); cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("%v", err)
	}
}

// checkEmpty fails the test when something is left in a folder.
func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v, %v", dir, left, err)
	}
}
