package area

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// survey is what a target takes, in bytes.
type survey struct {
	// data is all that is not a hole; need is what of it takes space of its
	// own, since it can't be shared with a source file.
	data, need int64
}

// survey walks the target once, without reading data.
func (f *filler) survey(ctx context.Context) (survey, error) {
	var sum survey
	var segments []layers.Segment
	for s, err := range spans(f.target) {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return sum, err
		}
		if segments, err = f.target.AppendSegments(segments[:0], s.off, s.length); err != nil {
			return sum, err
		}
		for p := range pieces(s.off, segments) {
			if err := f.surveyPiece(&sum, p); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

func (f *filler) surveyPiece(sum *survey, p piece) error {
	if p.Origin != layers.InFile {
		sum.data += p.Length
		sum.need += p.Length
		return nil
	}
	if f.canClone(p.File) {
		from, to := alignedPart(p.at, p.Offset, p.Length, f.block)
		sum.data += p.Length
		sum.need += p.Length - (to - from)
		return nil
	}
	for d, err := range dataOf(p) {
		if err != nil {
			return err
		}
		sum.data += d.Length
		sum.need += d.Length
	}
	return nil
}

// canClone says whether the file can share blocks with file. The first call for
// a source file tries it with a block; what that leaves behind is cut off
// before the file is filled.
func (f *filler) canClone(file *volume.File) bool {
	if !f.tried[file] {
		f.tried[file] = true
		if file.Size() < f.block {
			return false
		}
		if err := f.out.clone(0, file, 0, f.block); err != nil {
			f.methods.failed(file, methodClone, err)
		}
	}
	return f.methods.of(file) == methodClone
}

// checkSpace fails when need bytes are more than this process may still write
// to the file system, where that can be known.
func (f *filler) checkSpace(need int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return nil // the write that finds no space will tell
	}
	if free := int64(st.Bavail) * st.Bsize; need > free {
		return &cli.Error{
			Err:  fmt.Errorf("%w: %s needed, %s free", unix.ENOSPC, cli.FormatSize(need), cli.FormatSize(free)),
			Code: cli.ExitNoSpace,
		}
	}
	return nil
}
