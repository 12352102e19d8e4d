package layers

import (
	"container/list"
	"errors"
	"sync"
	"sync/atomic"
)

// Limits of a [Cache] that is made with zeros.
const (
	// DefaultMapBytes holds the map of a fully fragmented disk of some 170
	// GiB at 64 KiB clusters, and that of a typical one of many TiB.
	DefaultMapBytes = 64 << 20
	// DefaultClusterBytes holds 512 clusters of 64 KiB, or 16 of 2 MiB.
	DefaultClusterBytes = 32 << 20
)

// Cache bounds the memory of what is kept about open images: resolved parts of
// offset maps, and inflated clusters. Several images may share one, and what
// was used least recently goes first. Safe for concurrent use.
type Cache struct {
	regions  *lru[regionKey, *region]
	clusters *lru[clusterKey, []byte]
}

// NewCache returns a cache of at most mapBytes for offset maps and
// clusterBytes for inflated clusters; 0 means the default. What is in use at
// the moment comes on top.
func NewCache(mapBytes, clusterBytes int64) *Cache {
	if mapBytes == 0 {
		mapBytes = DefaultMapBytes
	}
	if clusterBytes == 0 {
		clusterBytes = DefaultClusterBytes
	}
	return &Cache{
		regions:  newLRU[regionKey, *region](mapBytes, func(k regionKey) *usage { return &k.image.maps }),
		clusters: newLRU[clusterKey, []byte](clusterBytes, func(k clusterKey) *usage { return &k.image.clusters }),
	}
}

// CacheStats counts the look-ups of one kind.
type CacheStats struct {
	Hits   int64 `json:"hits"`
	Misses int64 `json:"misses"`
	// Entries are the regions or clusters that are kept at the moment, and
	// Bytes the memory that they take.
	Entries int64 `json:"entries"`
	Bytes   int64 `json:"bytes"`
}

// usage is what [CacheStats] is made of. Safe for concurrent use.
type usage struct{ hits, misses, entries, bytes atomic.Int64 }

func (u *usage) stats() CacheStats {
	return CacheStats{Hits: u.hits.Load(), Misses: u.misses.Load(), Entries: u.entries.Load(), Bytes: u.bytes.Load()}
}

// Stats of the offset maps and of the inflated clusters.
func (c *Cache) Stats() (maps, clusters CacheStats) {
	return c.regions.total.stats(), c.clusters.total.stats()
}

// lru keeps values up to a total cost. Two callers that miss the same key at
// the same time make the value once.
type lru[K comparable, V any] struct {
	limit int64
	// owner returns what counts the use of a key besides total.
	owner func(K) *usage
	total usage

	mu      sync.Mutex
	entries map[K]*list.Element // of *lruEntry
	order   *list.List          // most recently used first
	cost    int64
}

type lruEntry[K comparable, V any] struct {
	key   K
	ready chan struct{} // closed when value, cost and err are set
	value V
	cost  int64
	err   error
	// dropped while it was being made; under the lru's lock.
	dropped bool
}

func newLRU[K comparable, V any](limit int64, owner func(K) *usage) *lru[K, V] {
	return &lru[K, V]{limit: limit, owner: owner, entries: make(map[K]*list.Element), order: list.New()}
}

// get returns the value of key, which build makes, with its cost in bytes,
// when it is not there. Errors are returned to all who wait and not kept.
func (c *lru[K, V]) get(key K, build func() (V, int64, error)) (V, error) {
	c.mu.Lock()
	if elem, ok := c.entries[key]; ok {
		c.order.MoveToFront(elem)
		c.mu.Unlock()
		c.total.hits.Add(1)
		c.owner(key).hits.Add(1)
		e := elem.Value.(*lruEntry[K, V])
		<-e.ready
		return e.value, e.err
	}
	e := &lruEntry[K, V]{key: key, ready: make(chan struct{})}
	c.entries[key] = c.order.PushFront(e)
	c.mu.Unlock()
	c.total.misses.Add(1)
	c.owner(key).misses.Add(1)

	e.err = errNotBuilt // for those who wait, should build panic
	defer c.finish(e)
	e.value, e.cost, e.err = build()
	return e.value, e.err
}

// errNotBuilt is what those get who waited for a value whose maker panicked.
var errNotBuilt = errors.New("layers: internal error while resolving")

// finish gives the value to those who wait for it and makes room for it.
func (c *lru[K, V]) finish(e *lruEntry[K, V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(e.ready)
	if e.dropped {
		return
	}
	if e.err != nil {
		c.drop(c.entries[e.key])
		return
	}
	c.cost += e.cost
	c.count(e, 1)
	for elem := c.order.Back(); elem != nil && c.cost > c.limit; {
		prev := elem.Prev()
		// What is being made has no cost yet, and its maker needs it.
		if isReady(elem.Value.(*lruEntry[K, V]).ready) {
			c.drop(elem)
		}
		elem = prev
	}
}

func isReady(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// drop removes an entry; the caller holds mu.
func (c *lru[K, V]) drop(elem *list.Element) {
	e := elem.Value.(*lruEntry[K, V])
	c.order.Remove(elem)
	delete(c.entries, e.key)
	if isReady(e.ready) && e.err == nil {
		c.cost -= e.cost
		c.count(e, -1)
	} else {
		e.dropped = true
	}
}

// count adds n times an entry to what is kept.
func (c *lru[K, V]) count(e *lruEntry[K, V], n int64) {
	for _, u := range []*usage{&c.total, c.owner(e.key)} {
		u.entries.Add(n)
		u.bytes.Add(n * e.cost)
	}
}

// forget removes all entries whose key match says yes to.
func (c *lru[K, V]) forget(match func(K) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for elem := c.order.Front(); elem != nil; {
		next := elem.Next()
		if match(elem.Value.(*lruEntry[K, V]).key) {
			c.drop(elem)
		}
		elem = next
	}
}
