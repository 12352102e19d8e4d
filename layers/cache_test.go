package layers

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// owner returns a function that has one owner for all keys.
func owner[K comparable]() func(K) *usage {
	u := new(usage)
	return func(K) *usage { return u }
}

func TestLRUStaysWithinItsLimit(t *testing.T) {
	c := newLRU[int, int](100, owner[int]())
	builds := 0
	get := func(key int) {
		v, err := c.get(key, func() (int, int64, error) { builds++; return key * 2, 10, nil })
		if v != key*2 || err != nil {
			t.Fatalf("get(%d) = %d, %v", key, v, err)
		}
	}
	for key := range 50 {
		get(key)
		get(0) // used all the time, so it stays
	}
	if got, want := c.owner(0).stats(), c.total.stats(); got != want {
		t.Errorf("the owner has %+v, the cache %+v", got, want)
	}
	if s := c.total.stats(); s.Bytes != 100 || s.Entries != 10 || builds != 50 || s.Hits != 50 || s.Misses != 50 {
		t.Errorf("stats %+v after %d builds", s, builds)
	}
	c.forget(func(key int) bool { return key != 0 })
	if s := c.total.stats(); s.Bytes != 10 {
		t.Errorf("stats after forget: %+v", s)
	}
}

func TestLRUBuildsOnceAndKeepsNoErrors(t *testing.T) {
	c := newLRU[string, int](100, owner[string]())
	var builds atomic.Int32
	started, finish := make(chan struct{}), make(chan struct{})
	build := func() (int, int64, error) {
		if builds.Add(1) == 1 {
			close(started)
			<-finish
			return 0, 0, errors.New("first")
		}
		return 5, 1, nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.get("k", build); err == nil {
			t.Error("the builder gets no error")
		}
	})
	<-started
	wg.Go(func() {
		// Waits for the first build or comes after it: either is right.
		if v, err := c.get("k", build); err == nil && v != 5 {
			t.Errorf("got %d", v)
		}
	})
	close(finish)
	wg.Wait()
	if v, err := c.get("k", build); v != 5 || err != nil {
		t.Errorf("after the error: %d, %v", v, err)
	}
	if n := builds.Load(); n != 2 {
		t.Errorf("%d builds", n)
	}
}

// TestForgetWhileBuilding: what is forgotten while it is made is not kept.
func TestForgetWhileBuilding(t *testing.T) {
	c := newLRU[int, int](100, owner[int]())
	v, err := c.get(1, func() (int, int64, error) {
		c.forget(func(int) bool { return true })
		return 7, 10, nil
	})
	if v != 7 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
	if s := c.total.stats(); s.Bytes != 0 || len(c.entries) != 0 {
		t.Errorf("kept %+v", s)
	}
}

// TestPanicDoesNotHang: who waits for a value whose maker panics gets an error,
// and who comes later makes it anew.
func TestPanicDoesNotHang(t *testing.T) {
	c := newLRU[int, int](100, owner[int]())
	func() {
		defer func() { recover() }()
		c.get(1, func() (int, int64, error) { panic("broken") })
	}()
	if v, err := c.get(1, func() (int, int64, error) { return 3, 1, nil }); v != 3 || err != nil {
		t.Errorf("got %d, %v", v, err)
	}
}
