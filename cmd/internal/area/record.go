package area

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"flatimg/cmd/internal/servers"
)

// recordName is the file in a job's folder that says what the job is about.
const recordName = ".flatimg-job.json"

// recordVersion is that of the record's layout; others are left alone.
const recordVersion = 1

// maxRecord in bytes is more than any record takes.
const maxRecord = 64 << 20

// Request says what a job is to do. Two jobs with the same one are the same.
type Request struct {
	// Import: from the server; else to it.
	Import bool `json:"import,omitempty"`
	// Image is the absolute path of the image here, and URL its place there.
	Image string `json:"image"`
	URL   string `json:"url"`
	// What is exported, and how.
	Snapshot    string `json:"snapshot,omitempty"`
	Since       string `json:"since,omitempty"`
	Format      string `json:"format,omitempty"`
	VirtualSize int64  `json:"virtual_size,omitempty"`
	DropZeros   bool   `json:"drop_zeros,omitempty"`
}

// key names the request in the name of a job's folder.
func (r Request) key() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic("area: internal error: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// record is what is on disk of a job.
type record struct {
	Version int       `json:"version"`
	Begun   time.Time `json:"begun"`
	Request Request   `json:"request"`
	// Access says how the server is reached; it names files with secrets, but
	// holds none.
	Access access `json:"access"`
	// Fingerprint of the source's state: what was sent is of this one.
	Fingerprint string `json:"fingerprint"`
	// Files by their role: one, or two that belong together.
	Files map[string]*fileRecord `json:"files"`
}

// access is the part of [servers.Options] that a later removal needs.
type access struct {
	SSH          string `json:"ssh,omitempty"`
	CACert       string `json:"cacert,omitempty"`
	User         string `json:"user,omitempty"`
	PasswordFile string `json:"password_file,omitempty"`
}

func (a access) options() servers.Options {
	return servers.Options{SSH: a.SSH, CACert: a.CACert, User: a.User, PasswordFile: a.PasswordFile}
}

// fileRecord is how far one file is.
type fileRecord struct {
	// Name of the file in the job's folder; empty: there is none.
	Name string `json:"name,omitempty"`
	// Dest is where an export sends the file to, a path or a URL; As is its
	// name there if that is a folder.
	Dest string `json:"dest,omitempty"`
	As   string `json:"as,omitempty"`
	// Size of the file and Data of it in bytes; an import may not know them: -1
	// and 0.
	Size int64 `json:"size"`
	Data int64 `json:"data"`
	// Made is the modification time, in nanoseconds, of the complete file in
	// the area; 0: there is none.
	Made int64 `json:"made,omitempty"`
	// Done is how many bytes of the data have arrived, to tell people.
	Done int64 `json:"done"`
	// State is what the protocol needs to go on; nil: nothing.
	State json.RawMessage `json:"state,omitempty"`
	// Hash is how far the file was hashed.
	Hash *hashState `json:"hash,omitempty"`
	// Fetched is, of an import, the offset before which all has arrived.
	Fetched int64 `json:"fetched,omitempty"`
}

// hashState is a SHA-256 of the bytes before an offset.
type hashState struct {
	Offset int64  `json:"offset"`
	State  []byte `json:"state"`
}

// readRecord reads the record of the job in the folder dir.
func readRecord(dir string) (*record, error) {
	path := filepath.Join(dir, recordName)
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxRecord {
		return nil, fmt.Errorf("%s: not the record of a job", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("%s: of another version of the program", path)
	}
	if r.Files == nil {
		r.Files = map[string]*fileRecord{}
	}
	for role, f := range r.Files {
		if f == nil || !f.isSound() {
			return nil, fmt.Errorf("%s: what it says of the file %s is damaged", path, role)
		}
	}
	return r, nil
}

// isSound says whether a record can be one that was written.
func (f *fileRecord) isSound() bool {
	isName := f.Name == "" || f.Name == filepath.Base(f.Name) && filepath.IsLocal(f.Name) && f.Name != "."
	return isName && f.Size >= -1 && f.Data >= 0 && f.Fetched >= 0 && (f.Hash == nil || f.Hash.Offset >= 0)
}

// write replaces the record on disk, whole or not at all.
func (r *record) write(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, recordName), b, 0o600, renameio.WithTempDir(dir), renameio.WithStaticPermissions(0o600))
}
