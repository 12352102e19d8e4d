package imageio

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

// overTLS is the URL of a stand-in for ovirt-imageio, at another address unless
// that is empty.
func overTLS(s *rig.Imageio, address string) string {
	if address != "" {
		return "imageio+" + strings.Replace(s.URL, s.Address, address, 1)
	}
	return "imageio+" + s.URL
}

func TestImageioServer(t *testing.T) {
	t.Parallel()
	src := servertest.SparseSource(20<<20, 51)
	data, _ := transfer.DataSize(src)
	for _, c := range []struct {
		what    string
		options rig.ImageioOptions
		fail    int
	}{
		{what: "all features"},
		{what: "one writer", options: rig.ImageioOptions{MaxWriters: 1}},
		{what: "no zeroing", options: rig.ImageioOptions{Without: []string{"zero"}}},
		{what: "no features", options: rig.ImageioOptions{Without: []string{"zero", "flush", "extents", "checksum"}}},
		{what: "breaks down", fail: 3},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			c.options.Size = 20 << 20
			s := rig.NewImageio(t, c.options)
			o := servers.Options{CACert: s.Certs.CA}
			// A disk that was used before.
			if err := os.WriteFile(s.Path, bytes.Repeat([]byte("used"), 5<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			s.FailNext(c.fail)
			log := &servertest.Log{}
			if err := export(t, t.Context(), overTLS(s, ""), o, src, log); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(s.Path); err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
				t.Errorf("other bytes arrived: %v", err)
			}
			stats := s.Stats()
			if log.SentBytes.Load() != data || c.options.MaxWriters > 0 && stats.MaxWriters > c.options.MaxWriters {
				t.Errorf("%d bytes counted of %d; %+v", log.SentBytes.Load(), data, stats)
			}
			if len(c.options.Without) == 0 && (stats.Flushes == 0 || stats.Checksums == 0 || c.fail == 0 && stats.Written > data+data/2) {
				t.Errorf("%d bytes of data, %+v", data, stats)
			}
			got, err := fetch(t, overTLS(s, ""), o)
			if err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
				t.Errorf("fetched %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestImageioServerResume(t *testing.T) {
	t.Parallel()
	src := servertest.SparseSource(32<<20, 52)
	data, _ := transfer.DataSize(src)
	s := rig.NewImageio(t, rig.ImageioOptions{Size: src.Size()})
	cut := rig.NewCutter(t, s.Address)
	random := rand.New(rand.NewPCG(53, 54))
	var state []byte
	var sent int64
	// Whether something was flushed before a cut depends on how the connections
	// share the line.
	for run := 0; run < 6 || sent == 0; run++ {
		if run == 60 {
			t.Fatal("nothing was kept")
		}
		up, err := Open(t.Context(), overTLS(s, cut.Address), servers.Options{CACert: s.Certs.CA, Resume: state, Retries: -1, Connections: 2})
		if err != nil {
			t.Fatal(err)
		}
		up.(*upload).flushEvery = 1 << 20
		cut.CutAfter(random.Int64N(1<<20) + 2<<20)
		log := &servertest.Log{}
		err = up.Send(t.Context(), src, log)
		sent += log.SentBytes.Load()
		if log.State != nil {
			state = log.State
		}
		if err == nil {
			t.Fatal("not cut")
		}
		if err := up.Close(true); err != nil {
			t.Error(err)
		}
	}
	// Lines that break now and then.
	cut.CutAfter(2<<20, 9<<20, 5<<20)
	log := &servertest.Log{}
	if err := export(t, t.Context(), overTLS(s, cut.Address), servers.Options{CACert: s.Certs.CA, Resume: state}, src, log); err != nil {
		t.Fatal(err)
	}
	if kept := log.KeptBytes.Load(); kept != sent || kept+log.SentBytes.Load() != data || kept == 0 {
		t.Errorf("%d bytes sent before, %d kept, %d sent of %d", sent, kept, log.SentBytes.Load(), data)
	}
	if got, err := os.ReadFile(s.Path); err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
		t.Errorf("other bytes arrived: %v", err)
	}
}

func TestImageioServerRefuses(t *testing.T) {
	t.Parallel()
	s := rig.NewImageio(t, rig.ImageioOptions{Size: 1 << 20})
	o := servers.Options{CACert: s.Certs.CA}
	if _, err := Open(t.Context(), overTLS(s, ""), servers.Options{}); !strings.Contains(cli.Hint(err), "--cacert") {
		t.Errorf("unknown certificate: %v", err)
	}
	small := export(t, t.Context(), overTLS(s, ""), o, servertest.NewSource(2<<20, servertest.Data(0, 2<<20)), &servertest.Log{})
	if cli.ExitCode(small) != cli.ExitNoSpace {
		t.Errorf("too small: %v", small)
	}
	s.Expire(true)
	_, err := OpenSource(t.Context(), overTLS(s, ""), o)
	ticket := s.URL[strings.LastIndexByte(s.URL, '/')+1:]
	if !strings.Contains(cli.Hint(err), "expired") || strings.Contains(err.Error(), ticket) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("expired: %v, hint %q", err, cli.Hint(err))
	}
	read := rig.NewImageio(t, rig.ImageioOptions{Size: 1 << 20, ReadOnly: true})
	if _, err := Open(t.Context(), overTLS(read, ""), servers.Options{CACert: read.Certs.CA}); !strings.Contains(cli.Hint(err), "direction=upload") {
		t.Errorf("for reading: %v", err)
	}
	d, err := OpenSource(t.Context(), overTLS(read, ""), servers.Options{CACert: read.Certs.CA})
	if err != nil || d.Version() == "" || d.Size() != 1<<20 {
		t.Fatalf("for reading: %v", err)
	}
	if start, end, err := d.(servers.Sparse).NextData(t.Context(), 0); start != 1<<20 || end != 1<<20 || err != nil {
		t.Errorf("an empty disk has data: %d, %d, %v", start, end, err)
	}
	d.Close()
}

func export(t *testing.T, ctx context.Context, dest string, o servers.Options, src servers.Source, log servers.Log) error {
	t.Helper()
	return servertest.Send(t, ctx, Open, dest, o, src, log)
}

func fetch(t *testing.T, url string, o servers.Options) ([]byte, error) {
	t.Helper()
	d, err := OpenSource(t.Context(), url, o)
	return servertest.Fetch(t, d, err)
}
