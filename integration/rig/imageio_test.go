package rig_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"flatimg/integration/rig"
)

func TestImageioTransfers(t *testing.T) {
	s := rig.NewImageio(t, rig.ImageioOptions{Size: 10<<20 + 4096})
	client := trusting(t, s.Certs)
	mib := strings.Repeat("x", 1<<20)
	at := func(off, size int) []string {
		return []string{"Content-Range", fmt.Sprintf("bytes %d-%d/*", off, off+size-1)}
	}
	exchangeAll(t, client, []exchange{
		{"OPTIONS", s.URL, "", nil, 200},
		{"PUT", s.URL + "?flush=n", mib, at(5<<20, 1<<20), 200},
		{"PUT", s.URL, "head", nil, 200},
		{"PUT", s.URL, mib, at(int(s.Size), 1), 416},
		{"PUT", s.URL, "x", []string{"Content-Range", "bytes x"}, 400},
		{"PUT", s.URL + "?flush=maybe", "x", nil, 400},
		{"PUT", s.URL[:len(s.URL)-1], "x", nil, 403},
		{"PATCH", s.URL, fmt.Sprintf(`{"op": "zero", "offset": %d, "size": %d}`, 5<<20, 512<<10), nil, 200},
		{"PATCH", s.URL, fmt.Sprintf(`{"op": "zero", "offset": %d, "size": 1}`, s.Size), nil, 416},
		{"PATCH", s.URL, `{"op": "zero", "offset": 0}`, nil, 400},
		{"PATCH", s.URL, `{"op": "flush"}`, nil, 200},
		{"PATCH", s.URL, `{"op": "paint"}`, nil, 400},
		{"GET", s.URL, "", []string{"Range", fmt.Sprintf("bytes=0-%d", s.Size)}, 416},
		{"GET", s.URL + "/checksum?algorithm=md4", "", nil, 400},
	})
	if code, body := request(t, client, "GET", s.URL, "", "Range", "bytes=0-7"); code != 206 || body != "head\x00\x00\x00\x00" {
		t.Errorf("%d %q", code, body)
	}
	if _, body := request(t, client, "OPTIONS", s.URL, ""); body != `{"features":["checksum","extents","flush","zero"],"max_readers":8,"max_writers":8}` {
		t.Errorf("options %s", body)
	}
	_, body := request(t, client, "GET", s.URL+"/extents?context=zero", "")
	var extents []struct {
		Start, Length int64
		Zero, Hole    bool
	}
	if err := json.Unmarshal([]byte(body), &extents); err != nil || len(extents) != 4 ||
		extents[2].Start != 5<<20+512<<10 || extents[2].Length != 512<<10 || extents[2].Zero || !extents[3].Zero {
		t.Errorf("extents %s, %v", body, err)
	}
	want := rig.ImageioStats{Puts: 2, Zeros: 1, Flushes: 1, Gets: 1, Written: 1<<20 + 4, Zeroed: 512 << 10, MaxWriters: 1}
	if got := s.Stats(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	info, err := os.Stat(s.Path)
	if err != nil || info.Sys().(*syscall.Stat_t).Blocks*512 > 600<<10 {
		t.Errorf("the disk is not sparse: %v", err)
	}
}

// TestImageioChecksum compares with Python's hashes.
func TestImageioChecksum(t *testing.T) {
	s := rig.NewImageio(t, rig.ImageioOptions{Size: 10<<20 + 4096})
	client := trusting(t, s.Certs)
	exchangeAll(t, client, []exchange{{"PUT", s.URL, strings.Repeat("data", 1<<20), []string{"Content-Range", "bytes 5000000-9194303/*"}, 200}})
	const program = `
import hashlib, sys
name, size = sys.argv[2], int(sys.argv[3])
new = hashlib.sha256 if name == "sha256" else lambda b=b"": hashlib.blake2b(b, digest_size=32)
total = new()
with open(sys.argv[1], "rb") as f:
    while block := f.read(size):
        total.update(new(block).digest())
print(total.hexdigest())`
	for _, algorithm := range []string{"blake2b", "sha256"} {
		for _, size := range []string{"4194304", "65536"} {
			want := strings.TrimSpace(rig.Run(t, "python3", "-c", program, s.Path, algorithm, size))
			_, body := request(t, client, "GET", s.URL+"/checksum?algorithm="+algorithm+"&block_size="+size, "")
			var got struct{ Checksum string }
			if err := json.Unmarshal([]byte(body), &got); err != nil || got.Checksum != want {
				t.Errorf("%s %s: %s, %v; want %s", algorithm, size, body, err, want)
			}
		}
	}
}

// TestImageioLoses checks that a failure costs what was not flushed, alone.
func TestImageioLoses(t *testing.T) {
	s := rig.NewImageio(t, rig.ImageioOptions{Size: 1 << 20})
	client := trusting(t, s.Certs)
	exchangeAll(t, client, []exchange{
		{"PUT", s.URL, "kept", nil, 200},
		{"PUT", s.URL + "?flush=n", "lost", nil, 200},
		{"PUT", s.URL + "?flush=n", "lost", []string{"Content-Range", "bytes 8192-8195/*"}, 200},
		{"PATCH", s.URL, `{"op": "zero", "offset": 0, "size": 65536}`, nil, 200},
	})
	s.FailNext(1)
	exchangeAll(t, client, []exchange{{"PUT", s.URL + "?flush=n", "lost", nil, 500}})
	wantFile(t, s.Path, "kept"+strings.Repeat("\x00", 1<<20-4))
	exchangeAll(t, client, []exchange{{"PUT", s.URL, "new!", nil, 200}})
	s.Expire(true)
	exchangeAll(t, client, []exchange{{"PUT", s.URL, "x", nil, 403}, {"GET", s.URL, "", nil, 403}})
	wantFile(t, s.Path, "new!"+strings.Repeat("\x00", 1<<20-4))
}

func TestImageioOptions(t *testing.T) {
	s := rig.NewImageio(t, rig.ImageioOptions{Size: 1 << 20, ReadOnly: true, Without: []string{"extents"}})
	client := trusting(t, s.Certs)
	exchangeAll(t, client, []exchange{
		{"PUT", s.URL, "x", nil, 403},
		{"PATCH", s.URL, `{"op": "flush"}`, nil, 403},
		{"GET", s.URL + "/extents", "", nil, 404},
		{"GET", s.URL, "", nil, 200},
	})
	if _, body := request(t, client, "OPTIONS", s.URL, ""); !strings.Contains(body, `"features":["checksum"]`) {
		t.Errorf("options %s", body)
	}
}

func TestImageioRefusesChunks(t *testing.T) {
	s := rig.NewImageio(t, rig.ImageioOptions{})
	// A reader whose length is not known makes the client send chunks.
	req, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL, io.MultiReader(strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := trusting(t, s.Certs).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("%d", resp.StatusCode)
	}
}
