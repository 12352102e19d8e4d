package area

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// TestSendLog: the first note is on disk at once, later ones soon.
func TestSendLog(t *testing.T) {
	j := mustJob(t, t.TempDir(), testRequest())
	defer j.remove()
	log := &sendLog{job: j, role: mainFile}
	onDisk := func() *fileRecord {
		r, err := readRecord(j.dir)
		if err != nil {
			t.Fatal(err)
		}
		return r.Files[mainFile]
	}
	type state struct {
		Part string `json:"part"`
	}
	log.Kept(100)
	log.Sent(50)
	log.Keep(state{"first"})
	if f := onDisk(); f.Done != 150 || string(bytes.Join(bytes.Fields(f.State), nil)) != `{"part":"first"}` {
		t.Errorf("on disk: %+v", f)
	}
	log.Sent(-20)
	log.Keep(state{"second"})
	if f := j.file(mainFile); f.Done != 130 || string(f.State) != `{"part":"second"}` {
		t.Errorf("record: %+v", f)
	}
	if err := j.flush(); err != nil || onDisk().Done != 130 {
		t.Errorf("%v, on disk: %+v", err, onDisk())
	}
	meter, text := said()
	(&sendLog{job: j, role: mainFile, meter: meter}).Say("%d of %s", 1, "it")
	if !strings.Contains(text.String(), "1 of it") {
		t.Errorf("said %s", text)
	}
}

// fakeUpload has received something.
type fakeUpload struct {
	servers.Upload
	has []byte
}

func (u fakeUpload) String() string { return "fake://host/web.raw" }

// verifyingUpload computes a checksum, or says why not.
type verifyingUpload struct {
	fakeUpload
	err error
}

func (u verifyingUpload) Verify(_ context.Context, sum []byte) (string, error) {
	if u.err != nil {
		return "", u.err
	}
	got := sha256.Sum256(u.has)
	if sum == nil || !bytes.Equal(sum, got[:]) {
		return "", transfer.Differs(u.String(), got[:], "fake", sum)
	}
	return "fake", nil
}

// readableUpload can be read.
type readableUpload struct{ fakeUpload }

func (u readableUpload) ReadBack(_ context.Context, w io.Writer, off, length int64) error {
	_, err := w.Write(u.has[off : off+length])
	return err
}

func TestVerifySent(t *testing.T) {
	src := newMemorySource(3<<20, [2]int64{1000, 5000}, [2]int64{2 << 20, 2<<20 + 10})
	sum := sha256.Sum256(src.bytes())
	right := fakeUpload{has: src.bytes()}
	spoilt := fakeUpload{has: src.bytes()}
	spoilt.has[2<<20+5]++
	broken := errors.New("broken")
	for _, c := range []struct {
		name     string
		up       servers.Upload
		sum      []byte
		readBack bool
		by       string
		err      error // nil: none
	}{
		{"nothing to verify with", right, sum[:], false, "", nil},
		{"nothing, but asked", right, sum[:], true, "", errors.ErrUnsupported},
		{"the server", verifyingUpload{right, nil}, sum[:], false, "fake", nil},
		{"the server, asked", verifyingUpload{right, nil}, sum[:], true, "fake", nil},
		{"the server differs", verifyingUpload{spoilt, nil}, sum[:], false, "", transfer.ErrDiffers},
		{"the server can't", verifyingUpload{right, errors.ErrUnsupported}, sum[:], false, "", nil},
		{"the server can't, asked", verifyingUpload{right, errors.ErrUnsupported}, sum[:], true, "", errors.ErrUnsupported},
		{"the server fails", verifyingUpload{right, broken}, sum[:], false, "", broken},
		{"not read unless asked", readableUpload{spoilt}, sum[:], false, "", nil},
		{"read back", readableUpload{right}, sum[:], true, "read back", nil},
		{"read back, no sum", readableUpload{right}, nil, true, "read back", nil},
		{"read back differs", readableUpload{spoilt}, sum[:], true, "", transfer.ErrDiffers},
		{"read back differs, no sum", readableUpload{spoilt}, nil, true, "", transfer.ErrDiffers},
	} {
		by, err := verifySent(t.Context(), c.up, src, c.sum, c.readBack, nil)
		if c.err == nil && (err != nil || by != c.by) || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, by, err, c.by, c.err)
		}
		if errors.Is(c.err, transfer.ErrDiffers) && (cli.ExitCode(err) != cli.ExitServer || !strings.HasPrefix(err.Error(), "fake://host/web.raw")) {
			t.Errorf("%s: %v, exit code %d", c.name, err, cli.ExitCode(err))
		}
	}
}

// TestAccess: a later removal reaches the server in the same way.
func TestAccess(t *testing.T) {
	b, err := json.Marshal(record{Access: access{SSH: "ssh -p 1", CACert: "/ca.pem", User: "me", PasswordFile: "/secret"}})
	if err != nil {
		t.Fatal(err)
	}
	var again record
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if o := again.Access.options(); o.SSH != "ssh -p 1" || o.CACert != "/ca.pem" || o.User != "me" || o.PasswordFile != "/secret" {
		t.Errorf("%+v", o)
	}
}
