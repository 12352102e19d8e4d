package webdav

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// Publish implements [servers.Upload].
func (u *upload) Publish(ctx context.Context) error {
	if u.direct || u.published {
		return nil
	}
	if err := u.checkAbsent(ctx); err != nil {
		return err
	}
	if err := u.checkNoFolder(ctx); err != nil {
		return err
	}
	tag := u.tag(ctx, u.part())
	request := move(u.part(), u.to, u.force)
	request.Limit = web.SizeLimit(u.state.Size)
	asked := false // a MOVE may have been heard
	err := u.client.Retry.Own().Do(ctx, "rename the partial file", func() error {
		if asked {
			if moved, _ := u.moved(ctx); moved {
				return nil
			}
		}
		resp, err := u.client.Send(ctx, request)
		if err == nil {
			web.Drain(resp)
			return nil
		}
		switch {
		// Apache removes a file before it renames another, and refuses when
		// somebody else has removed it meanwhile.
		case u.force && web.HasStatus(err, http.StatusNotFound, http.StatusForbidden),
			// The MOVE before may still be under way.
			asked && web.HasStatus(err, http.StatusPreconditionFailed, http.StatusNotFound):
			err = transfer.Passing(err)
		}
		asked = true
		return err
	})
	if err != nil && ctx.Err() == nil {
		if moved, _ := u.moved(ctx); moved {
			err = nil
		}
	}
	u.gone = err == nil
	if web.HasStatus(err, http.StatusPreconditionFailed) && !u.force || err == nil && u.replaced(ctx, tag) {
		return transfer.Exists(u.String())
	}
	return u.fail("rename the partial file", err)
}

// checkNoFolder fails when the target has become a folder, which Apache would
// remove with all that is in it.
func (u *upload) checkNoFolder(ctx context.Context) error {
	if !u.force {
		return nil
	}
	isFolder, err := u.isFolder(ctx)
	// Apache refuses to look while another export removes the file.
	err = unlessRefused(err)
	if isFolder {
		err = &cli.Error{Err: errors.New("it is a folder now"), Hint: "choose another name", Code: cli.ExitExists}
	}
	return u.fail("rename the partial file", err)
}

// replaced says whether another's file has taken the place of ours, whose tag was
// tag, at once: servers look whether the target exists, and rename then, so that
// two may believe that they were the first.
func (u *upload) replaced(ctx context.Context, tag string) bool {
	if u.force || tag != "" && u.tag(ctx, u.to) == tag {
		return false
	}
	size, err := u.size(ctx, u.to)
	if err != nil || size < 0 {
		return false // nobody knows
	}
	same, err := u.resembles(ctx, size)
	return err == nil && !same
}

// tag returns that of a file; empty: none is told.
func (u *upload) tag(ctx context.Context, a web.Address) string {
	resp, err := u.client.Do(ctx, "look at it", web.Request{Method: "HEAD", To: a})
	if err != nil {
		return ""
	}
	return strongTag(resp.Header)
}

// moved says whether the part has become the target.
func (u *upload) moved(ctx context.Context) (bool, error) {
	part, err := u.size(ctx, u.part())
	if err != nil || part >= 0 {
		return false, err
	}
	target, err := u.size(ctx, u.to)
	return target == u.state.Size, err
}

// Close implements [servers.Upload].
func (u *upload) Close(keep bool) error {
	defer u.client.Close()
	if keep && (u.can.Ranges || u.sent) && !u.direct {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), web.CloseLimit)
	defer cancel()
	if u.direct {
		return u.removePartial(ctx)
	}
	return u.remove(ctx)
}

// remove removes the part, if there is one.
func (u *upload) remove(ctx context.Context) error {
	if u.state.Part == "" || u.gone {
		return nil
	}
	resp, err := u.client.Send(ctx, web.Request{Method: "DELETE", To: u.part(), Also: []int{http.StatusNotFound, http.StatusGone}})
	if err != nil {
		return fmt.Errorf("partial file %s is left over on the server: %w", u.part(), err)
	}
	web.Drain(resp)
	u.gone = true
	return nil
}
