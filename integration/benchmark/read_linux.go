package main

import (
	"math/rand/v2"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// dropCache drops what the kernel has cached of a view, and makes sure of it.
func (b *bench) dropCache(view string) {
	f, err := os.Open(view)
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatalf("%s: drop the page cache: %v", view, err)
	}
	var stat unix.Cachestat_t
	if err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &stat, 0); err == nil && stat.Cache > 0 {
		b.Fatalf("%s: %d pages stay in the page cache", view, stat.Cache)
	}
}

// sequentialRead returns a side that reads a whole view as dd does.
func (b *bench) sequentialRead(view string) side {
	return func() float64 {
		b.dropCache(view)
		return timed(func() { b.command("dd", "if="+view, "of=/dev/null", "bs=1M", "status=none") })
	}
}

// randomRead returns a side that reads count blocks of 4 KiB at random places
// of a view, in jobs threads at once.
func (b *bench) randomRead(view string, jobs, count int) side {
	const block = 4096
	run := uint64(0)
	return func() float64 {
		run++
		b.dropCache(view)
		var readers sync.WaitGroup
		errs := make(chan error, jobs)
		elapsed := timed(func() {
			for job := range jobs {
				readers.Go(func() { errs <- readBlocks(view, block, count/jobs, run<<32|uint64(job)) })
			}
			readers.Wait()
		})
		for range jobs {
			if err := <-errs; err != nil {
				b.Fatalf("%v", err)
			}
		}
		return elapsed
	}
}

// readBlocks reads count blocks at places that follow from seed. The kernel is
// told not to read ahead, so that each block is a request to the server.
func readBlocks(path string, block int64, count int, seed uint64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, block)
	for range count {
		if _, err := unix.Pread(fd, p, r.Int64N(fi.Size()/block)*block); err != nil {
			return &os.PathError{Op: "pread", Path: path, Err: err}
		}
	}
	return nil
}
