package convert

import (
	"fmt"
	"iter"
	"math/bits"
	"sort"
)

const (
	// pageBits are the bits of a page: 4 KiB of them, so that an empty or a
	// full range of 2 GiB of disk in clusters of 64 KiB costs a pointer.
	pageBits  = 1 << 15
	pageWords = pageBits / 64
	// blockWords are the words that a rank has to count at most: one line of
	// the processor's cache, for a directory of a 32nd of the bits.
	blockWords = 8
)

// page is a part of a bitmap.
type page struct {
	words [pageWords]uint64
	// before counts the ones of this page before each block.
	before [pageWords / blockWords]uint16
}

// Pages without an own content are shared. They are never written to.
var (
	emptyPage = new(page)
	fullPage  = newFullPage()
)

func newFullPage() *page {
	p := new(page)
	for i := range p.words {
		p.words[i] = ^uint64(0)
	}
	p.index()
	return p
}

// bitmap is a sequence of bits that counts its ones. It is built by set, then
// index, and is safe for concurrent use after that.
type bitmap struct {
	n     int64 // bits
	pages []*page
	// before counts the ones before each page, and at the end those of all.
	before []int64
	// owned is the number of pages that are not shared.
	owned int
}

// newBitmap returns n zero bits.
func newBitmap(n int64) *bitmap {
	b := &bitmap{n: n, pages: make([]*page, (n+pageBits-1)/pageBits)}
	for i := range b.pages {
		b.pages[i] = emptyPage
	}
	return b
}

// set sets the bits [from, to). It owns at most two more pages afterwards.
func (b *bitmap) set(from, to int64) {
	if from < 0 || to > b.n {
		panic(fmt.Sprintf("convert: internal error: bits [%d, %d) of %d", from, to, b.n))
	}
	for from < to {
		i := from / pageBits
		start := i * pageBits
		end := min(to, start+pageBits)
		switch p := &b.pages[i]; {
		case *p == fullPage:
		case end-from == pageBits:
			if *p != emptyPage {
				b.owned--
			}
			*p = fullPage
		default:
			if *p == emptyPage {
				*p = new(page)
				b.owned++
			}
			(*p).set(int(from-start), int(end-start))
		}
		from = end
	}
}

// set sets the bits [from, to) of the page, a word at a time.
func (p *page) set(from, to int) {
	for from < to {
		word := from / 64
		end := min(to, (word+1)*64)
		ones := ^uint64(0) >> (64 - (end - from))
		p.words[word] |= ones << (from % 64)
		from = end
	}
}

// index counts the ones; no bit may be set after it.
func (b *bitmap) index() {
	b.before = make([]int64, len(b.pages)+1)
	var sum int64
	for i, p := range b.pages {
		b.before[i] = sum
		switch p {
		case emptyPage:
		case fullPage:
			sum += pageBits
		default:
			ones := p.index()
			if ones == pageBits {
				b.pages[i] = fullPage
				b.owned--
			}
			sum += ones
		}
	}
	b.before[len(b.pages)] = sum
}

// index fills before and returns the number of ones.
func (p *page) index() int64 {
	sum := 0
	for i, w := range p.words {
		if i%blockWords == 0 {
			p.before[i/blockWords] = uint16(sum)
		}
		sum += bits.OnesCount64(w)
	}
	return int64(sum)
}

// count returns the number of ones.
func (b *bitmap) count() int64 { return b.before[len(b.pages)] }

// has tells whether bit i is set, for i in [0, n).
func (b *bitmap) has(i int64) bool {
	return b.pages[i/pageBits].words[i%pageBits/64]>>(i%64)&1 != 0
}

// rank returns the number of ones in [0, i), for i in [0, n].
func (b *bitmap) rank(i int64) int64 {
	number := i / pageBits
	if number == int64(len(b.pages)) {
		return b.count()
	}
	p, word := b.pages[number], int(i%pageBits/64)
	block := word / blockWords
	ones := int(p.before[block])
	for _, w := range p.words[block*blockWords : word] {
		ones += bits.OnesCount64(w)
	}
	ones += bits.OnesCount64(p.words[word] & (1<<(i%64) - 1))
	return b.before[number] + int64(ones)
}

// selectOne returns the position of the one that has k ones before it, for k in
// [0, count).
func (b *bitmap) selectOne(k int64) int64 {
	number := sort.Search(len(b.pages), func(i int) bool { return b.before[i+1] > k })
	p, rest := b.pages[number], int(k-b.before[number])
	block := sort.Search(len(p.before), func(i int) bool { return int(p.before[i]) > rest }) - 1
	rest -= int(p.before[block])
	word := block * blockWords
	for ones := bits.OnesCount64(p.words[word]); rest >= ones; ones = bits.OnesCount64(p.words[word]) {
		rest -= ones
		word++
	}
	w := p.words[word]
	for ; rest > 0; rest-- {
		w &= w - 1
	}
	return int64(number)*pageBits + int64(word*64+bits.TrailingZeros64(w))
}

// nextOne returns the position of the first one at or after i, for i in [0, n];
// n when there is none.
func (b *bitmap) nextOne(i int64) int64 {
	if k := b.rank(i); k < b.count() {
		return b.selectOne(k)
	}
	return b.n
}

// nextZero returns the position of the first zero in [i, limit), for limit up
// to n; limit when there is none.
func (b *bitmap) nextZero(i, limit int64) int64 {
	for i < limit {
		zeros := ^b.pages[i/pageBits].words[i%pageBits/64] >> (i % 64)
		if zeros != 0 {
			return min(limit, i+int64(bits.TrailingZeros64(zeros)))
		}
		i = (i/64 + 1) * 64
	}
	return limit
}

// runs yields the runs of ones, [from, to), in order.
func (b *bitmap) runs() iter.Seq2[int64, int64] {
	return func(yield func(from, to int64) bool) {
		for i := b.nextOne(0); i < b.n; {
			end := b.nextZero(i, b.n)
			if !yield(i, end) {
				return
			}
			i = b.nextOne(end)
		}
	}
}

// groups returns the bitmap in which bit i says whether any of the 1<<shift
// bits of b from i<<shift on is set.
func (b *bitmap) groups(shift uint) *bitmap {
	g := newBitmap((b.n + 1<<shift - 1) >> shift)
	for i := b.nextOne(0); i < b.n; {
		group := i >> shift
		g.set(group, group+1)
		i = b.nextOne(min(b.n, (group+1)<<shift))
	}
	g.index()
	return g
}
