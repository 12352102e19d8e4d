package area

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// jobPrefix begins the names of the jobs' folders in an area.
const jobPrefix = "flatimg-"

// saveEvery is how much of a transfer a kill can cost: what was sent since the
// record was last written.
const saveEvery = time.Second

// job is a folder of its own in an area, with a record and files. It is locked
// while it is worked on. Its methods are safe for concurrent use, but for close
// and remove, which come last.
type job struct {
	dir string   // read only
	fd  *os.File // of the folder, with the lock

	mu     sync.Mutex
	record *record
	saved  time.Time // when the record was last written
	err    error     // of the last writing
}

// newJob makes a job in the area. Only its user can read what is in it.
func newJob(area string, r Request, fingerprint string, a access) (*job, error) {
	dir, err := os.MkdirTemp(area, jobPrefix+r.key()+"-") // mode 0700
	if err != nil {
		return nil, err
	}
	j, err := lockJob(dir)
	if err != nil {
		os.Remove(dir)
		return nil, err
	}
	j.record = &record{
		Version: recordVersion, Begun: time.Now().Round(time.Second), Request: r, Access: a,
		Fingerprint: fingerprint, Files: map[string]*fileRecord{},
	}
	if err := errors.Join(j.flush(), syncFolder(area)); err != nil {
		return nil, errors.Join(err, j.remove())
	}
	return j, nil
}

// syncFolder makes the names in a folder durable, where that can be done.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // others may only write there
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return syncNames(f)
}

func syncNames(folder *os.File) error {
	err := folder.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL) {
		return nil // as on some network file systems
	}
	return err
}

// findJob returns the unfinished job in the area for a request; nil when there
// is none, or another process works on it.
func findJob(area string, r Request) (*job, error) {
	dirs, err := filepath.Glob(filepath.Join(escapeGlob(area), jobPrefix+r.key()+"-*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		j, err := openJob(dir)
		if err != nil {
			continue // somebody else's, or no job
		}
		if j.record.Request == r {
			return j, nil
		}
		j.close()
	}
	return nil, nil
}

// escapeGlob quotes what a pattern of [filepath.Glob] would take for more than
// a name.
func escapeGlob(path string) string {
	var b []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// ErrBusy says that another process works on a job.
var ErrBusy = errors.New("another process works on it")

// errForeign says that a folder in the area may be of somebody else: its record
// could name any command as ssh.
var errForeign = errors.New("not a folder that only its user, who is you, can write to")

// openJob opens the job in a folder, which has a record, and locks it.
func openJob(dir string) (*job, error) {
	j, err := lockJob(dir)
	if err != nil {
		return nil, err
	}
	// Read under the lock, which another process may have had until now. It may
	// have removed the job.
	if j.record, err = readRecord(dir); err != nil {
		j.close()
		return nil, err
	}
	return j, nil
}

// lockTries and lockPause: who only looks whether a job is busy has the lock for
// a moment.
const (
	lockTries = 20
	lockPause = 10 * time.Millisecond
)

// lockJob opens a folder that is the user's own and locks it (flock(2)).
func lockJob(dir string) (*job, error) {
	fd, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = checkOwn(fd)
	for try := 1; err == nil; try++ {
		if err = unix.Flock(int(fd.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return &job{dir: dir, fd: fd}, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && try < lockTries {
			time.Sleep(lockPause)
			err = nil
		}
	}
	fd.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	return nil, fmt.Errorf("%s: %w", dir, err)
}

// checkOwn fails unless a folder belongs to the user, and nobody else can write
// to it.
func checkOwn(folder *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(folder.Fd()), &st); err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return errForeign
	}
	return nil
}

// id is what users call the job.
func (j *job) id() string { return filepath.Base(j.dir)[len(jobPrefix):] }

// removal is the command that removes the job, in the area that was named; empty:
// none was.
func (j *job) removal(named string) string {
	if named != "" {
		named = " --area " + named
	}
	return "flatimg jobs" + named + " --remove " + j.id()
}

// close leaves the job to a later run.
func (j *job) close() error { return j.fd.Close() }

// remove removes the job with all that is in its folder.
func (j *job) remove() error { return errors.Join(os.RemoveAll(j.dir), j.fd.Close()) }

// path of the file name in the job's folder.
func (j *job) path(name string) string { return filepath.Join(j.dir, name) }

// file returns a copy of the record of the file with that role; a zero one for
// one that is new.
func (j *job) file(role string) fileRecord {
	j.mu.Lock()
	defer j.mu.Unlock()
	if f := j.record.Files[role]; f != nil {
		return *f
	}
	return fileRecord{}
}

// update changes the record of a file. It is written when it was not for a
// while, or at once.
func (j *job) update(role string, atOnce bool, change func(f *fileRecord)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.record.Files[role]
	if f == nil {
		f = &fileRecord{}
		j.record.Files[role] = f
	}
	change(f)
	if !atOnce && time.Since(j.saved) < saveEvery {
		return j.err
	}
	return j.save()
}

// save writes the record, which is durable then; j.mu is held.
func (j *job) save() error {
	j.err = errors.Join(j.record.write(j.dir), syncNames(j.fd))
	j.saved = time.Now()
	return j.err
}

// flush writes what update has left for later.
func (j *job) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.save()
}

// resumable says whether a later run can go on with anything.
func (j *job) resumable() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, f := range j.record.Files {
		if f.State != nil || f.Fetched > 0 {
			return true
		}
	}
	return false
}

// create creates the file name anew in the job's folder.
func (j *job) create(name string) (*os.File, error) {
	if err := os.Remove(j.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(j.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
}

// made returns the complete file with that role that an earlier run has made;
// nil when there is none, or it was changed since.
func (j *job) made(role string) *os.File {
	r := j.file(role)
	if r.Made == 0 {
		return nil
	}
	f, err := os.OpenFile(j.path(r.Name), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != r.Size || fi.ModTime().UnixNano() != r.Made {
		f.Close()
		return nil
	}
	return f
}
