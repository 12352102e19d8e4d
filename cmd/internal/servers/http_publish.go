package servers

import (
	"context"
	"fmt"
	"net/http"
)

// Publish implements [Upload].
func (u *httpUpload) Publish(ctx context.Context) error {
	if u.direct || u.published {
		return nil
	}
	if err := u.checkAbsent(ctx); err != nil {
		return err
	}
	request := move(u.part(), u.to, u.force)
	request.limit = sizeLimit(u.state.Size)
	asked := false // a MOVE may have been heard
	err := u.client.retry.do(ctx, "rename the partial file", func() error {
		if asked {
			if moved, err := u.moved(ctx); moved || err != nil {
				return err
			}
		}
		resp, err := u.client.send(ctx, request)
		if err == nil {
			drain(resp)
			return nil
		}
		if asked && hasStatus(err, http.StatusPreconditionFailed, http.StatusNotFound, http.StatusLocked) {
			// The MOVE before may still be under way.
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
	if hasStatus(err, http.StatusPreconditionFailed) && !u.force {
		return exists(u.String())
	}
	u.gone = err == nil
	return u.fail("rename the partial file", err)
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
	if keep && u.can.Ranges && !u.direct {
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
