package area

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
)

// sendLog is the log of one file that is sent.
type sendLog struct {
	meter *progress.Meter
	job   *job
	role  string // of the file in the job

	sent, kept atomic.Int64
	hasKept    atomic.Bool
}

var _ = (servers.Log)((*sendLog)(nil))

// Sent implements [servers.Log].
func (l *sendLog) Sent(n int64) {
	l.sent.Add(n)
	l.meter.Add(n)
}

// Kept implements [servers.Log].
func (l *sendLog) Kept(n int64) {
	l.kept.Add(n)
	l.meter.Skip(n)
}

// Keep implements [servers.Log]. A record that can't be written costs what an
// interrupt would have kept, not the transfer.
func (l *sendLog) Keep(state any) {
	b, err := json.Marshal(state)
	if err != nil {
		panic("area: internal error: state of an upload: " + err.Error())
	}
	l.job.update(l.role, !l.hasKept.Swap(true), func(f *fileRecord) {
		f.State = b
		f.Done = l.sent.Load() + l.kept.Load()
	})
}

// Say implements [servers.Log].
func (l *sendLog) Say(format string, args ...any) { l.meter.Say(fmt.Sprintf(format, args...)) }

// faultySource is a source that says whether it was it that failed.
type faultySource interface {
	servers.Source
	fault() error
}

// transfer sends a file and verifies what arrived. hashed is the same as src, or
// another view of it, which is read by itself.
func (e *export) transfer(ctx context.Context, up servers.Upload, role string, src, hashed faultySource, data int64) error {
	if err := e.job.update(role, true, func(f *fileRecord) {
		f.Dest, f.As = e.destination(role)
		f.Size, f.Data = src.Size(), data
	}); err != nil {
		return fillError("area "+e.areaDir, err, "--area DIR chooses another area")
	}
	log := &sendLog{meter: e.Meter, job: e.job, role: role}
	e.Meter.Start("sending", data)
	group, groupCtx := errgroup.WithContext(ctx)
	var sum []byte
	if e.wantsHash(up, src.Size()-data) {
		group.Go(func() (err error) {
			h := newHasher(hashed, e.job.file(role).Hash)
			h.at = func(s hashState) {
				e.job.update(role, false, func(f *fileRecord) { f.Hash = &s })
			}
			sum, err = h.sum(groupCtx)
			return err
		})
	}
	group.Go(func() error { return up.Send(groupCtx, limit(groupCtx, src, e.limiter), log) })
	err := group.Wait()
	e.report.Sent += log.sent.Load()
	e.report.Resumed += log.kept.Load()
	if fault := src.fault(); fault != nil {
		return fault
	}
	if err != nil {
		return err
	}
	by, err := verifySent(ctx, up, hashed, sum, e.Verify, e.Meter)
	if err != nil {
		return err
	}
	e.report.VerifiedBy = by
	e.report.SHA256 = sum
	return nil
}

// wantsHash says whether the SHA-256 of a file with holes of so many bytes is to
// be computed: to compare it with the server's, or to know the file again. For a
// block device neither can be, and it takes longer than to send it to a near one.
func (e *export) wantsHash(up servers.Upload, holes int64) bool {
	_, verifies := up.(servers.Verifier)
	_, isFile := up.(servers.Local)
	return holes <= maxHoles && (verifies || isFile || e.Verify)
}

// meterLog is the log of a local copy, which nobody goes on with.
type meterLog struct{ *progress.Meter }

var _ = (servers.Log)(meterLog{})

func (l meterLog) Sent(n int64) { l.Add(n) }
func (l meterLog) Kept(n int64) { l.Skip(n) }
func (l meterLog) Keep(any)     {}

func (l meterLog) Say(format string, args ...any) { l.Meter.Say(fmt.Sprintf(format, args...)) }
