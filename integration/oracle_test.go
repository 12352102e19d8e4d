package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flatimg/integration/rig"
)

// oracleSeeds is the number of random chains on which the program is compared
// with qemu-img.
const oracleSeeds = 40

// mapEntry is MapEntry of QEMU's qapi/block-core.json.
type mapEntry struct {
	Start, Length       int64
	Depth               int
	Present, Zero, Data bool
	Offset              *int64
}

// plain returns a map without what says nothing about the guest's bytes: the
// mark of data that is zeros because the file has a hole there, for which QEMU
// looks when it guesses, from reference counts, that clusters were allocated in
// advance; and the place where bytes would be that no layer has.
func plain(entries []mapEntry) []mapEntry {
	var out []mapEntry
	for _, e := range entries {
		if e.Data {
			e.Zero = false
		}
		if !e.Present {
			e.Offset = nil
		}
		if n := len(out); n > 0 && continues(out[n-1], e) {
			out[n-1].Length += e.Length
			continue
		}
		out = append(out, e)
	}
	return out
}

// continues says whether b is of the same kind as a and follows it in the file.
func continues(a, b mapEntry) bool {
	if a.Depth != b.Depth || a.Present != b.Present || a.Zero != b.Zero || a.Data != b.Data || (a.Offset == nil) != (b.Offset == nil) {
		return false
	}
	return a.Offset == nil || *a.Offset+a.Length == *b.Offset
}

// decode parses what a command has printed as JSON.
func decode[V any](t *testing.T, text string) V {
	t.Helper()
	var v V
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

// onRandomChains calls f with one random image after the other.
func onRandomChains(t *testing.T, f func(t *testing.T, im *rig.Image)) {
	rig.Need(t, "qemu-img")
	seeds := uint64(oracleSeeds)
	if testing.Short() {
		seeds /= 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f(t, rig.RandomChain(seed).Build(t, t.TempDir()))
		})
	}
}

func TestMapMatchesQEMU(t *testing.T) {
	onRandomChains(t, func(t *testing.T, im *rig.Image) {
		want := decode[[]mapEntry](t, rig.Run(t, "qemu-img", "map", "--output=json", im.Top))
		got := decode[[]mapEntry](t, rig.MustFlatimg(t, "map", "--json", im.Top))
		if diff := cmp.Diff(plain(want), plain(got)); diff != "" {
			t.Errorf("map (-qemu-img +flatimg):\n%s", diff)
		}
	})
}

func TestInfoMatchesQEMU(t *testing.T) {
	onRandomChains(t, func(t *testing.T, im *rig.Image) {
		ask := func() any {
			return decode[any](t, rig.Run(t, "qemu-img", "info", "--backing-chain", "--output=json", im.Top))
		}
		before := ask()
		got := decode[any](t, rig.MustFlatimg(t, "info", "--json", im.Top))
		if cmp.Equal(before, got) {
			return
		}
		// A file takes a block more when the file system writes it to its disk.
		if diff := cmp.Diff(ask(), got); diff != "" {
			t.Errorf("info (-qemu-img +flatimg):\n%s", diff)
		}
	})
}
