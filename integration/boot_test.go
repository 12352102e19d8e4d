package integration

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// bootSector is a PC's boot sector, which a BIOS loads to 0x7c00. It prints a
// line to the first serial port, reads the sector bootLBA, prints what that
// holds up to a zero byte, and ends QEMU through its isa-debug-exit device.
func bootSector() []byte {
	const (
		load     = 0x7c00
		buffer   = 0x7e00
		greeting = 0x80 // offsets in the sector
		failure  = 0xc0
		packet   = 0x100
	)
	low := func(n int) byte { return byte(n) }
	high := func(n int) byte { return byte(n >> 8) }
	code := []byte{
		0xfa,       // cli
		0xfc,       // cld
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0x8e, 0xc0, // mov es, ax
		0x8e, 0xd0, // mov ss, ax
		0xbc, low(load), high(load), // mov sp, load
		0xfb,                                              // sti
		0x52,                                              // push dx: dl is the drive
		0xbe, low(load + greeting), high(load + greeting), // mov si, greeting
		0xe8, 24, 0, // call print
		0x5a,                                          // pop dx
		0xbe, low(load + packet), high(load + packet), // mov si, packet
		0xb4, 0x42, // mov ah, 42h: extended read
		0xcd, 0x13, // int 13h
		0xbe, low(buffer), high(buffer), // mov si, buffer
		0x73, 3, // jnc over the next
		0xbe, low(load + failure), high(load + failure), // mov si, failure
		0xe8, 5, 0, // call print
		0xba, 0xf4, 0x00, // mov dx, f4h
		0xee, // out dx, al
		0xf4, // hlt
		// print: prints from ds:si up to a zero byte
		0xac,       // lodsb
		0x88, 0xc3, // mov bl, al
		0x84, 0xc0, // test al, al
		0x74, 16, // jz to the end
		0xba, 0xfd, 0x03, // wait: mov dx, 3fdh
		0xec,       // in al, dx
		0xa8, 0x20, // test al, 20h: is the port ready?
		0x74, 0xf8, // jz wait
		0xba, 0xf8, 0x03, // mov dx, 3f8h
		0x88, 0xd8, // mov al, bl
		0xee,       // out dx, al
		0xeb, 0xe9, // jmp print
		0xc3, // ret
	}
	sector := make([]byte, 512)
	copy(sector, code)
	copy(sector[greeting:], "flatimg booted\n")
	copy(sector[failure:], "the read failed\n")
	// Disk address packet of "extended read": its size, one sector, to 0:buffer.
	copy(sector[packet:], []byte{16, 0, 1, 0, low(buffer), high(buffer), 0, 0})
	binary.LittleEndian.PutUint64(sector[packet+8:], bootLBA)
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// bootLBA is the number of the sector that the boot sector reads.
const bootLBA = 12345

// TestBoot boots an export of each format, of a disk whose boot sector is in
// the base and whose other sector is in both, changed in the overlay.
func TestBoot(t *testing.T) {
	qemu := rig.Need(t, "qemu-system-x86_64")
	dir := t.TempDir()
	base := make([]byte, 16<<20)
	copy(base, bootSector())
	copy(base[bootLBA*512:], "the base\n")
	write := func(name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("base.raw", base)
	changed := make([]byte, 512)
	copy(changed, "the overlay\n")
	write("changed", changed)
	rig.RunIn(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
	rig.RunIn(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -s changed 6320640 512", "top.qcow2")

	for i, f := range exportFormats {
		if testing.Short() && i%3 > 0 {
			continue
		}
		t.Run(f.spec, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "disk"+f.extension)
			rig.MustFlatimg(t, "export", "-q", "--format", f.spec, filepath.Join(dir, "top.qcow2"), dest)
			disk := f.disk(t, dest)
			cmd := rig.Command(qemu,
				"-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
				"-device", "isa-debug-exit,iobase=0xf4,iosize=1",
				// Not written to: QEMU refuses to write to a compressed VMDK.
				"-snapshot", "-drive", "if=ide,file="+filepath.Base(disk)+",format="+f.qemu)
			cmd.Dir = filepath.Dir(disk) // has commas, which mean something there
			p := rig.Start(t, cmd)
			p.Wait(t, time.Minute)
			if out := strings.ReplaceAll(p.Output(), "\r", ""); !strings.HasSuffix(out, "flatimg booted\nthe overlay\n") {
				t.Errorf("the serial port says %q", out)
			}
		})
	}
}
