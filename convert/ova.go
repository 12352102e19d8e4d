package convert

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
)

// ova is a virtual machine with this one disk, as the Open Virtualization Format
// (DMTF DSP0243, "OVF package as a single file") has it: a tar with
//
//	NAME.ovf         the descriptor
//	NAME.mf          the manifest: SHA-256 of both others
//	NAME-disk1.vmdk  the disk, streamOptimized
//
// in this order. The disk is written first, behind the place of the others, for
// the descriptor has its size and the manifest its digest.
type ova struct {
	name, adapter string
	capacity      int64 // virtual size in bytes
	disk          *vmdkStream
}

var ovaFormat = format{
	name:      "ova",
	extension: ".ova",
	about:     "a virtual machine with the disk, as one file for VMware and VirtualBox",
	options:   []option{adapterOption("lsilogic", "ide", "buslogic"), nameOption, uuidOption},
	packs:     func(values) bool { return true },
	pack:      func(src Disk, v values) (Packer, error) { return newOVA(src, v) },
	full: func(size int64, v values) int64 {
		disk := values{"subformat": {text: vmdkStreamType}}
		o := &ova{v["name"].text, v["adapter_type"].text, vmdkDiskSize(size), nil}
		return o.size(vmdkFormat.full(size, disk))
	},
}

func newOVA(src Disk, v values) (*ova, error) {
	disk := values{
		"subformat":    {text: vmdkStreamType},
		"adapter_type": v["adapter_type"],
		"hwversion":    {text: strconv.Itoa(ovaHardware)},
		"name":         {text: v["name"].text + ovaDiskSuffix},
		"uuid":         v["uuid"],
	}
	stream, err := newVMDKStream(src, disk)
	if err != nil {
		return nil, err
	}
	return &ova{v["name"].text, v["adapter_type"].text, stream.descriptor.disk, stream}, nil
}

const (
	ovaDiskSuffix = "-disk1"
	// ovaHardware is VMware's virtual hardware version of ESXi 5.0 and
	// Workstation 8, which all later ones and VirtualBox take.
	ovaHardware = 8
)

// Bound implements [Packer].
func (o *ova) Bound() int64 { return o.size(o.disk.Bound()) }

// GuestSize implements [Packer].
func (o *ova) GuestSize() int64 { return o.capacity }

// Data implements [Packer].
func (o *ova) Data() int64 { return o.disk.Data() }

const (
	tarBlock = 512
	tarEnd   = 2 * tarBlock // of zeros
)

// entry is the size in the tar of a file of n bytes.
func tarEntry(n int64) int64 { return tarBlock + roundUp(n, tarBlock) }

// diskStart returns the offset of the disk's bytes. It does not depend on
// their number.
func (o *ova) diskStart() int64 {
	return tarEntry(int64(len(o.descriptor(0)))) + tarEntry(int64(len(o.manifest(nil, nil)))) + tarBlock
}

// size returns that of the file with a disk of n bytes.
func (o *ova) size(n int64) int64 { return o.diskStart() + roundUp(n, tarBlock) + tarEnd }

// Pack implements [Packer].
func (o *ova) Pack(ctx context.Context, w io.WriterAt, done func(int64)) (int64, error) {
	digest := sha256.New()
	start := o.diskStart()
	size, err := o.disk.stream(ctx, io.MultiWriter(io.NewOffsetWriter(w, start), digest), done)
	if err != nil {
		return 0, err
	}
	descriptor := o.descriptor(size)
	sum := sha256.Sum256(descriptor)
	var head bytes.Buffer
	archive := tar.NewWriter(&head)
	for _, f := range []struct {
		suffix  string
		content []byte
		size    int64
	}{
		{".ovf", descriptor, int64(len(descriptor))},
		{".mf", o.manifest(sum[:], digest.Sum(nil)), int64(len(o.manifest(nil, nil)))},
		{ovaDiskSuffix + ".vmdk", nil, size},
	} {
		if err := archive.WriteHeader(tarHeader(o.name+f.suffix, f.size)); err != nil {
			return 0, fmt.Errorf("target format ova: %w", err)
		}
		archive.Write(f.content) // into memory
	}
	if int64(head.Len()) != start {
		return 0, fmt.Errorf("target format ova: name %q is too long for a tar", o.name)
	}
	_, err = w.WriteAt(head.Bytes(), 0)
	return o.size(size), err
}

// tarHeader is that of a file, of one block.
func tarHeader(name string, size int64) *tar.Header {
	// OVF asks for USTAR, whose numbers end at 8 GiB. What is larger has its
	// size in binary, which all readers of OVAs know.
	h := &tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if size >= 8<<30 {
		h.Format = tar.FormatGNU
	}
	return h
}

// manifest returns the digests of the other files; their length is fixed.
func (o *ova) manifest(descriptor, disk []byte) []byte {
	digest := func(sum []byte) []byte { return append(sum, make([]byte, sha256.Size-len(sum))...) }
	return fmt.Appendf(nil, "SHA256(%s.ovf)= %x\nSHA256(%s%s.vmdk)= %x\n",
		o.name, digest(descriptor), o.name, ovaDiskSuffix, digest(disk))
}

// descriptor returns the descriptor for a disk file of size bytes. Its length
// does not depend on size: spaces behind the end tag fill it up.
func (o *ova) descriptor(size int64) []byte {
	const digits = 19 // of the largest size
	number := fmt.Sprint(size)
	return fmt.Appendf(nil, "%s%*s", o.xml(number), digits-len(number), "")
}

func (o *ova) xml(size string) string {
	var name bytes.Buffer
	xml.EscapeText(&name, []byte(o.name)) // a buffer has no errors
	// ResourceType of CIM: 5 is an IDE controller, 6 a parallel SCSI one.
	controller, kind, subtype := "SCSI", 6, "\n        <rasd:ResourceSubType>"+o.adapter+"</rasd:ResourceSubType>"
	if o.adapter == "ide" {
		controller, kind, subtype = "IDE", 5, ""
	}
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:id="file1" ovf:href="%[1]s%[2]s.vmdk" ovf:size="%[3]s"/>
  </References>
  <DiskSection>
    <Info>The virtual disk</Info>
    <Disk ovf:diskId="vmdisk1" ovf:capacity="%[4]d" ovf:capacityAllocationUnits="byte" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="%[1]s">
    <Info>A virtual machine</Info>
    <Name>%[1]s</Name>
    <OperatingSystemSection ovf:id="1">
      <Info>The guest operating system is not known</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>The virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>%[1]s</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-%02[8]d</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>1 CPU</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>1</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>1 GiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>%[5]s controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>%[7]s
        <rasd:ResourceType>%[6]d</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`, name.String(), ovaDiskSuffix, size, o.capacity, controller, kind, subtype, ovaHardware)
}
