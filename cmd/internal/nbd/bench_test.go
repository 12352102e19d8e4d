package nbd

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"flatimg/integration/rig"
)

// BenchmarkWrite sends a file to nbdkit's memory: from the file, from memory
// after reading it, and by nbdcopy for comparison.
func BenchmarkWrite(b *testing.B) {
	const size, chunk, workers = 256 << 20, 1 << 20, 16
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("content"), size/7+1)[:size], 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	address := nbdkit(b, "memory", "256M")
	// each calls write for all chunks, by several workers.
	each := func(b *testing.B, write func(c *Client, buf []byte, off int64) error) {
		c := dialURL(b, address, Options{Connections: 4})
		b.SetBytes(size)
		for b.Loop() {
			var group sync.WaitGroup
			chunks := make(chan int64)
			for range workers {
				group.Go(func() {
					buf := make([]byte, chunk)
					for off := range chunks {
						if err := write(c, buf, off); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for off := int64(0); off < size; off += chunk {
				chunks <- off
			}
			close(chunks)
			group.Wait()
		}
	}
	b.Run("from=file", func(b *testing.B) {
		each(b, func(c *Client, _ []byte, off int64) error {
			return c.WriteFrom(b.Context(), f, off, off, chunk)
		})
	})
	b.Run("from=memory", func(b *testing.B) {
		each(b, func(c *Client, buf []byte, off int64) error {
			if _, err := f.ReadAt(buf, off); err != nil {
				return err
			}
			return c.WriteAt(b.Context(), buf, off)
		})
	})
	b.Run("by=nbdcopy", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			rig.Run(b, "nbdcopy", path, address)
		}
	})
}
