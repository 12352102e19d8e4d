package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"flatimg/cmd/internal/cli"
)

// Publish implements [Upload].
func (u *httpUpload) Publish(ctx context.Context) error {
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
	request.limit = sizeLimit(u.state.Size)
	asked := false // a MOVE may have been heard
	err := u.client.retry.own().do(ctx, "rename the partial file", func() error {
		if asked {
			if moved, _ := u.moved(ctx); moved {
				return nil
			}
		}
		resp, err := u.client.send(ctx, request)
		if err == nil {
			drain(resp)
			return nil
		}
		switch {
		// Apache removes a file before it renames another, and refuses when
		// somebody else has removed it meanwhile.
		case u.force && hasStatus(err, http.StatusNotFound, http.StatusForbidden),
			// The MOVE before may still be under way.
			asked && hasStatus(err, http.StatusPreconditionFailed, http.StatusNotFound):
			err = passing{err}
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
	if hasStatus(err, http.StatusPreconditionFailed) && !u.force || err == nil && u.replaced(ctx, tag) {
		return exists(u.String())
	}
	return u.fail("rename the partial file", err)
}

// checkNoFolder fails when the target has become a folder, which Apache would
// remove with all that is in it.
func (u *httpUpload) checkNoFolder(ctx context.Context) error {
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
func (u *httpUpload) replaced(ctx context.Context, tag string) bool {
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
func (u *httpUpload) tag(ctx context.Context, a webAddress) string {
	resp, err := u.client.do(ctx, "look at it", webRequest{method: "HEAD", to: a})
	if err != nil {
		return ""
	}
	return strongTag(resp.Header)
}

// moved says whether the part has become the target.
func (u *httpUpload) moved(ctx context.Context) (bool, error) {
	part, err := u.size(ctx, u.part())
	if err != nil || part >= 0 {
		return false, err
	}
	target, err := u.size(ctx, u.to)
	return target == u.state.Size, err
}

// Close implements [Upload].
func (u *httpUpload) Close(keep bool) error {
	defer u.client.close()
	if keep && (u.can.Ranges || u.sent) && !u.direct {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if u.direct {
		return u.removePartial(ctx)
	}
	return u.remove(ctx)
}

// remove removes the part, if there is one.
func (u *httpUpload) remove(ctx context.Context) error {
	if u.state.Part == "" || u.gone {
		return nil
	}
	resp, err := u.client.send(ctx, webRequest{method: "DELETE", to: u.part(), also: []int{http.StatusNotFound, http.StatusGone}})
	if err != nil {
		return fmt.Errorf("partial file %s is left over on the server: %w", u.part(), err)
	}
	drain(resp)
	u.gone = true
	return nil
}
