package convert

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zlib"

	"flatimg/layers"
)

// onceWriter is a file in memory of which no byte may be written twice.
type onceWriter struct {
	bytes   []byte
	written []Run
}

func (w *onceWriter) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(w.bytes) {
		w.bytes = append(w.bytes, make([]byte, need-len(w.bytes))...)
	}
	w.written = append(w.written, Run{off, int64(len(p))})
	return copy(w.bytes[off:], p), nil
}

func (w *onceWriter) check(t testing.TB) {
	t.Helper()
	slices.SortFunc(w.written, func(a, b Run) int { return cmp.Compare(a.Offset, b.Offset) })
	var end int64
	for _, r := range w.written {
		if r.Offset < end {
			t.Errorf("byte %#x is written twice", r.Offset)
		}
		end = r.Offset + r.Length
	}
}

// pack returns the file that a packer makes.
func pack(t testing.TB, src Disk, text string) []byte {
	t.Helper()
	spec, err := ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPacker(src, spec)
	if err != nil {
		t.Fatal(err)
	}
	w := new(onceWriter)
	var done int64
	size, err := p.Pack(context.Background(), w, func(n int64) { done += n })
	if err != nil {
		t.Fatal(err)
	}
	if size < int64(len(w.bytes)) || size > p.Bound() || done != p.Data() {
		t.Fatalf("size %d, written %d, bound %d; %d of %d bytes are done", size, len(w.bytes), p.Bound(), done, p.Data())
	}
	w.check(t)
	m, err := Measure(src, spec)
	if err != nil || m.Required != p.Bound() || !m.AtMost || m.FullyAllocated < m.Required || m.GuestSize != p.GuestSize() {
		t.Fatalf("measure = %+v, %v, bound %d", m, err, p.Bound())
	}
	return append(w.bytes, make([]byte, size-int64(len(w.bytes)))...)
}

// mixed is a disk of which one half compresses, and some is zeros though the
// map says that it is data.
type mixed struct{ *disk }

func (m mixed) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	first := len(dst)
	dst, err := m.disk.AppendSegments(dst, off, length)
	for i, s := range dst[first:] {
		if s.Origin == layers.Literal {
			dst[first+i].Bytes = m.mix(s.Bytes, off)
		}
		off += s.Length
	}
	return dst, err
}

func (m mixed) read(off, length int64) []byte { return m.mix(m.disk.read(off, length), off) }

func (m mixed) mix(p []byte, off int64) []byte {
	for rest := p; len(rest) > 0; {
		n := min(int64(len(rest)), off&^(128*kiB-1)+128*kiB-off)
		switch off >> 17 & 3 {
		case 0:
			for i, b := range rest[:n] {
				if b != 0 {
					rest[i] = byte((off+int64(i))>>9) | 1
				}
			}
		case 1:
			clear(rest[:n])
		}
		rest, off = rest[n:], off+n
	}
	return p
}

func packedDisks() []conformanceDisk {
	return append(smallDisks(),
		conformanceDisk{"two-L2-tables-512", newDisk(200*kiB+77, Run{3, 70000}, Run{150 * kiB, 50 * kiB})},
	)
}

var packedSpecs = []string{
	"qcow2,compression=deflate", "qcow2,compression=zstd", "qcow2,compression_type=zlib,cluster_size=4k,compat=0.10",
	"qcow2,compression_type=zstd,cluster_size=2M", "vmdk,subformat=streamOptimized", "ova",
}

// What is packed is the same with any number of processors, and QEMU reads it.
func TestPacked(t *testing.T) {
	tool(t, "qemu-img")
	for _, d := range packedDisks() {
		t.Run(d.name, func(t *testing.T) {
			src := mixed{d.disk}
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "disk.raw"), src.read(0, vmdkDiskSize(d.disk.size)))
			for _, spec := range packedSpecs {
				file := pack(t, src, spec)
				one := runtime.GOMAXPROCS(1)
				again := pack(t, src, spec)
				runtime.GOMAXPROCS(one)
				if !bytes.Equal(file, again) {
					t.Errorf("%s: a second file differs", spec)
				}
				if spec == "ova" {
					file = checkOVA(t, file, d.disk.size)
				}
				checkPacked(t, dir, spec, src, file)
			}
		})
	}
}

// TestPackedLarge packs sparse disks of more than 4 GiB and 2 TiB.
func TestPackedLarge(t *testing.T) {
	tool(t, "qemu-img")
	for _, d := range largeDisks()[:3] {
		if testing.Short() && d.disk.size > 2*tiB {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			store(t, build(t, d.disk, "raw"), filepath.Join(dir, "disk.raw"))
			for _, text := range packedSpecs {
				file := pack(t, d.disk, text)
				qemu, _, _ := strings.Cut(text, ",")
				if qemu == "ova" {
					qemu, file = "vmdk", checkOVA(t, file, d.disk.size)
				}
				path := filepath.Join(dir, "target")
				writeFile(t, path, file)
				checkWithQemuAs(t, dir, path, qemu, d.disk.size)
				compareSome(t, dir, path, qemu, d.disk)
			}
		})
	}
}

func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// checkPacked checks a packed file with QEMU and a VMDK with our strict reader.
func checkPacked(t *testing.T, dir, spec string, src mixed, file []byte) {
	t.Helper()
	path := filepath.Join(dir, "target")
	writeFile(t, path, file)
	if strings.HasPrefix(spec, "qcow2") {
		out := run(t, dir, "qemu-img", "check", "--output=json", "-f", "qcow2", path)
		if !strings.Contains(out, fmt.Sprintf(`"image-end-offset": %d`, len(file))) || strings.Contains(out, "leaks") {
			t.Fatalf("%s: of %d bytes: %s", spec, len(file), out)
		}
		run(t, dir, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, "disk.raw")
		return
	}
	checkStream(t, file, src)
	run(t, dir, "qemu-img", "check", "-f", "vmdk", path)
	run(t, dir, "qemu-img", "compare", "-f", "vmdk", "-F", "raw", path, "disk.raw")
}

// checkStream reads a streamOptimized VMDK from its begin to its end, as from a
// tape, and then as a file.
func checkStream(t *testing.T, file []byte, src mixed) {
	t.Helper()
	le := binary.LittleEndian
	h := parseVMDKHeader(t, file[:512], file[512:21*512])
	if h.version != 3 || h.flags != 0x30001 || h.directory != -512 || h.redundant != 0 || file[77] != 1 || h.disk != vmdkDiskSize(src.size) {
		t.Fatalf("header %+v", h)
	}
	grains := map[int64]int64{} // number → offset
	tables := map[int64]bool{}  // offsets
	var directory int64
	end := false
	for at := h.overhead; !end; {
		value, size := le.Uint64(file[at:]), int64(le.Uint32(file[at+8:]))
		kind := le.Uint32(file[at+12:])
		switch {
		case size > 0:
			grain := int64(value) / 128
			z, err := zlib.NewReader(bytes.NewReader(file[at+12 : at+12+size]))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			if err != nil || !bytes.Equal(plain, src.read(grain<<16, 64*kiB)) || allZeros(plain) {
				t.Fatalf("grain %d: %v", grain, err)
			}
			grains[grain] = at
			at += roundUp(12+size, 512)
		case kind == 0 && value == 0:
			end = at+512 == int64(len(file))
			if !end {
				t.Fatalf("end at %#x of %#x", at, len(file))
			}
		case kind == 1 && value == 4:
			tables[at+512] = true
			at += 5 * 512
		case kind == 2:
			directory = at + 512
			at = directory + int64(value)*512
		case kind == 3 && value == 1:
			footer := parseVMDKHeader(t, file[at+512:at+1024], nil)
			if want := h; footer.directory != directory || footer.disk != want.disk || footer.flags != want.flags || footer.version != 3 {
				t.Fatalf("footer %+v", footer)
			}
			at += 1024
		default:
			t.Fatalf("marker at %#x: value %d, size %d, type %d", at, value, size, kind)
		}
	}
	for grain := range (src.size + 64*kiB - 1) / (64 * kiB) {
		var place int64
		if table := int64(le.Uint32(file[directory+grain/512*4:])) * 512; table != 0 {
			if !tables[table] {
				t.Fatalf("no grain table at %#x", table)
			}
			place = int64(le.Uint32(file[table+grain%512*4:])) * 512
		}
		if place != grains[grain] || place == 0 && !allZeros(src.read(grain<<16, 64*kiB)) {
			t.Fatalf("grain %d is at %#x, by its table at %#x", grain, grains[grain], place)
		}
	}
}

// checkOVA checks the parts of an OVA and returns the disk.
func checkOVA(t *testing.T, file []byte, size int64) []byte {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(file))
	var names, contents []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names, contents = append(names, h.Name), append(contents, string(content))
	}
	if strings.Join(names, " ") != "disk.ovf disk.mf disk-disk1.vmdk" {
		t.Fatalf("files %q", names)
	}
	want := fmt.Sprintf("SHA256(disk.ovf)= %x\nSHA256(disk-disk1.vmdk)= %x\n", sha256.Sum256([]byte(contents[0])), sha256.Sum256([]byte(contents[2])))
	if contents[1] != want {
		t.Fatalf("manifest\n%swant\n%s", contents[1], want)
	}
	var ovf struct {
		File struct {
			Href string `xml:"href,attr"`
			Size int    `xml:"size,attr"`
		} `xml:"References>File"`
		Disk struct {
			Capacity int64 `xml:"capacity,attr"`
		} `xml:"DiskSection>Disk"`
		Name string `xml:"VirtualSystem>Name"`
	}
	if err := xml.Unmarshal([]byte(contents[0]), &ovf); err != nil {
		t.Fatal(err)
	}
	if ovf.File.Href != names[2] || ovf.File.Size != len(contents[2]) || ovf.Disk.Capacity != vmdkDiskSize(size) || ovf.Name != "disk" {
		t.Fatalf("descriptor %+v", ovf)
	}
	return []byte(contents[2])
}

func TestPackedErrors(t *testing.T) {
	d := newDisk(1*miB, Run{0, 1 * miB})
	for _, text := range packedSpecs {
		spec, _ := ParseSpec(text)
		if !spec.Packed() {
			t.Errorf("%s is not packed", text)
		}
		_, err := New(d, spec)
		if packed, ok := errors.AsType[*PackedError](err); !ok || !strings.Contains(packed.Hint(), "export --format "+spec.String()) {
			t.Errorf("%s: a target gives %v", text, err)
		}
		broken := broken{d, 1 * miB, 500 * kiB}
		if p, err := NewPacker(broken, spec); err != nil {
			t.Error(err)
		} else if _, err := p.Pack(context.Background(), new(onceWriter), func(int64) {}); !errors.Is(err, errBroken) {
			t.Errorf("%s: a broken disk gives %v", text, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if p, err := NewPacker(d, spec); err != nil {
			t.Error(err)
		} else if _, err := p.Pack(ctx, new(onceWriter), func(int64) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: after the end of its context Pack gives %v", text, err)
		}
	}
	for _, text := range []string{"vmdk", "raw"} {
		spec, err := ParseSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewPacker(d, spec); err == nil {
			t.Errorf("%s can be packed", text)
		}
	}
	for _, text := range []string{"qcow2,compression=zstd,compression_type=zstd", "qcow2,compression=zstd,compat=0.10", "qcow2,compression=lz4", `vmdk,name=a"b`, "vmdk,name=", "vmdk,name=a/b"} {
		if spec, err := ParseSpec(text); err == nil {
			t.Errorf("%+v is possible", spec)
		}
	}
}

func TestNames(t *testing.T) {
	spec, _ := ParseSpec("vmdk")
	target, err := New(newDisk(miB), spec.Named("web ü.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	if h := parseVMDKHeader(t, read(t, target, 0, 512), read(t, target, 512, 20*512)); !strings.Contains(h.descriptor, `SPARSE "web ü.vmdk"`) {
		t.Errorf("descriptor\n%s", h.descriptor)
	}
	if _, err := New(newDisk(miB), spec.Named(`a"b.vmdk`)); err == nil {
		t.Error("a quote is possible in a descriptor")
	}
	if named := spec.Named(".vmdk").Options["name"]; named != ".vmdk" {
		t.Errorf("name %q", named)
	}
	given, _ := ParseSpec("vmdk,name=x")
	if named := given.Named("y").Options["name"]; named != "x" {
		t.Errorf("name %q", named)
	}
	if len(spec.Options) > 0 {
		t.Errorf("Named has changed the spec to %v", spec)
	}
}

func TestVMDKFlat(t *testing.T) {
	for _, d := range smallDisks() {
		t.Run(d.name, func(t *testing.T) {
			target := build(t, d.disk, "vmdk,subformat=monolithicFlat,name=web")
			text := string(read(t, target, 0, target.Size()))
			if want := fmt.Sprintf("RW %d FLAT \"web-flat.vmdk\" 0\n", vmdkDiskSize(d.disk.size)/512); !strings.Contains(text, want) {
				t.Errorf("not %s in\n%s", want, text)
			}
			checkRanges(t, target, []byte(text), []int64{0, target.Size()})
			checkRuns(t, target)
			companions := Companions(target)
			if len(companions) != 1 || companions[0].Suffix != "-flat.vmdk" {
				t.Fatalf("companions %+v", companions)
			}
			data := companions[0].Target
			if !bytes.Equal(read(t, data, 0, data.Size()), d.disk.read(0, vmdkDiskSize(d.disk.size))) {
				t.Error("the data differs")
			}
			checkRuns(t, data)
			spec, _ := ParseSpec("vmdk,subformat=monolithicFlat,name=web")
			size := target.Size() + data.Size()
			if m, err := Measure(d.disk, spec); err != nil || m.Required != size || m.FullyAllocated != size || m.GuestSize != data.Size() {
				t.Errorf("measure = %+v, %v, the files have %d bytes", m, err, size)
			}
			dir := t.TempDir()
			store(t, target, filepath.Join(dir, "web.vmdk"))
			store(t, data, filepath.Join(dir, "web-flat.vmdk"))
			writeFile(t, filepath.Join(dir, "disk.raw"), d.disk.read(0, data.Size()))
			run(t, dir, "qemu-img", "compare", "-f", "vmdk", "-F", "raw", "web.vmdk", "disk.raw")
		})
	}
}

func TestVMDKFlatLarge(t *testing.T) {
	tool(t, "qemu-img")
	for _, d := range largeDisks()[:3] {
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			store(t, build(t, d.disk, "raw"), filepath.Join(dir, "disk.raw"))
			target := build(t, d.disk, "vmdk,subformat=monolithicFlat")
			store(t, target, filepath.Join(dir, "disk.vmdk"))
			store(t, Companions(target)[0].Target, filepath.Join(dir, "disk-flat.vmdk"))
			path := filepath.Join(dir, "disk.vmdk")
			checkWithQemuAs(t, dir, path, "vmdk", GuestSize(target))
			compareSome(t, dir, path, "vmdk", d.disk)
		})
	}
}

func TestVMDKLimitFile(t *testing.T) {
	// 2 TiB of data and no room for the metadata.
	_, err := New(newDisk(3*tiB, Run{0, 2 * tiB}), Spec{Format: "vmdk"})
	if limit, ok := errors.AsType[*LimitError](err); !ok || !strings.Contains(limit.Limit, "grain tables address 2T") {
		t.Fatalf("%v", err)
	}
	build(t, newDisk(3*tiB, Run{tiB, tiB + 500*giB}), "vmdk")
}

func TestDropZeros(t *testing.T) {
	for _, d := range append(smallDisks(), conformanceDisk{"large", newDisk(tiB, Run{5, 100}, Run{tiB - miB, miB})}) {
		t.Run(d.name, func(t *testing.T) {
			src := mixed{d.disk}
			var done int64
			dropped, err := DropZeros(context.Background(), src, func(n int64) { done += n })
			if err != nil {
				t.Fatal(err)
			}
			if d.disk.size > giB {
				for _, r := range d.disk.dataRuns() {
					if got := read(t, build(t, dropped, "raw"), r.Offset, r.Length); !bytes.Equal(got, src.read(r.Offset, r.Length)) {
						t.Errorf("%d bytes at %#x differ", r.Length, r.Offset)
					}
				}
				return
			}
			target := build(t, dropped, "raw")
			whole := src.read(0, d.disk.size)
			if !bytes.Equal(read(t, target, 0, target.Size()), whole) {
				t.Fatal("the disk differs")
			}
			checkRanges(t, target, whole, []int64{0, 4096, 128 * kiB, 256 * kiB})
			checkRuns(t, target)
			for r, err := range DataRuns(target, 0) {
				if err != nil {
					t.Fatal(err)
				}
				for at := r.Offset; at < r.Offset+r.Length; at = at&^4095 + 4096 {
					if unit := at &^ 4095; allZeros(whole[unit:min(unit+4096, d.disk.size)]) {
						t.Fatalf("zeros at %#x are stored", unit)
					}
				}
			}
		})
	}
	if _, err := DropZeros(context.Background(), broken{newDisk(miB, Run{0, miB}), miB, 1000}, func(int64) {}); !errors.Is(err, errBroken) {
		t.Errorf("a broken disk gives %v", err)
	}
}

// FuzzPacked packs disks of random content and has QEMU's rules hold: see the
// strict reader of streams.
func FuzzPacked(f *testing.F) {
	f.Add(uint32(100000), uint64(1))
	f.Add(uint32(1<<20), uint64(2))
	f.Add(uint32(0), uint64(3))
	f.Fuzz(func(t *testing.T, size uint32, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := randomDisk(int64(size)%(4<<20), seed, 1+r.Int64N(200000), 1+r.Int64N(200000))
		checkStream(t, pack(t, mixed{d}, "vmdk,subformat=streamOptimized"), mixed{d})
		pack(t, mixed{d}, "qcow2,compression=deflate,cluster_size=4k")
	})
}
