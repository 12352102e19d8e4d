package glance

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

const (
	// duelTries is how often an image gets its name when another gets the same
	// one at the same moment.
	duelTries = 6
	// duelWait is the shortest wait in between, and how much it varies. It is
	// longer than a second, the unit in which Glance tells when an image was
	// changed, so that a later try is a later change.
	duelWait = 1100 * time.Millisecond
)

// Publish implements [servers.Upload]. Glance lets several images have one name, so
// whoever has renamed its image looks whether another has got the name since it
// looked before. Of two that find each other both step back, and come again
// after a time: both can't get through, since each looks after it has renamed.
//
// With force, the images that had the name before are deleted afterwards, if
// they are the project's own. For a moment there are two.
func (u *upload) Publish(ctx context.Context) error {
	if u.published {
		return u.failed(ctx, "delete the old image", u.removeOlder(ctx))
	}
	err := u.publish(ctx)
	if err == nil {
		u.published = true
	}
	return u.failed(ctx, "rename the image", err)
}

// removeOlder does what an earlier run, which has published the image, may not
// have come to.
func (u *upload) removeOlder(ctx context.Context) error {
	if !u.force {
		return nil
	}
	others, err := u.others(ctx)
	u.removeOld(ctx, slices.DeleteFunc(others, func(i imageInfo) bool { return i.UpdatedAt >= u.image.UpdatedAt }))
	return err
}

func (u *upload) publish(ctx context.Context) error {
	named, err := u.duel(ctx)
	if named && web.HasStatus(err, http.StatusNotFound) {
		u.say("the image had its name; another export with --force has replaced it since")
		return nil
	}
	return err
}

// duel gives the image its name. After an error named says whether it had the
// name at a time: since then another export may have replaced it.
func (u *upload) duel(ctx context.Context) (named bool, err error) {
	for try := 0; ; try++ {
		before, err := u.others(ctx)
		if err != nil {
			return named, err
		}
		if len(before) > 0 && !u.force || try > duelTries {
			return named, transfer.Exists(u.String())
		}
		if err := u.setName(ctx, u.name); err != nil {
			return named, err
		}
		named = true
		after, err := u.others(ctx)
		if err == nil && isWithin(after, before) {
			u.removeOld(ctx, after)
			return named, nil
		}
		if e := u.setName(ctx, transfer.HiddenName(u.name)); err == nil {
			err = e
		}
		if err != nil {
			return named, err
		}
		select {
		case <-time.After(duelWait + rand.N(duelWait)):
		case <-ctx.Done():
			return named, context.Cause(ctx)
		}
	}
}

// isWithin says whether all images are among those of before, unchanged.
func isWithin(images, before []imageInfo) bool {
	for _, i := range images {
		if !slices.ContainsFunc(before, func(b imageInfo) bool { return b.ID == i.ID && b.UpdatedAt == i.UpdatedAt }) {
			return false
		}
	}
	return true
}

func (u *upload) setName(ctx context.Context, name string) error {
	return u.retry.Do(ctx, "rename the image", func() error {
		image, err := u.rename(ctx, u.id, name)
		if err == nil {
			u.image = image
		}
		return err
	})
}

// others returns the other images of the name.
func (u *upload) others(ctx context.Context) (others []imageInfo, err error) {
	err = u.retry.Do(ctx, "look for the name", func() error {
		others, err = u.named(ctx, u.name, u.id)
		return err
	})
	return others, err
}

// removeOld deletes the images that this one replaces, unless they have changed
// since: one that has stepped back may have come again by now. That does not make
// the upload fail, which has succeeded.
func (u *upload) removeOld(ctx context.Context, old []imageInfo) {
	for _, i := range old {
		if i.Owner != u.image.Owner {
			continue
		}
		err := u.retry.Do(ctx, "delete the old image", func() error {
			now, err := u.apiClient.image(ctx, i.ID)
			if web.HasStatus(err, http.StatusNotFound) || err == nil && (now.Name != i.Name || now.UpdatedAt != i.UpdatedAt) {
				return nil
			}
			if err != nil {
				return err
			}
			return u.remove(ctx, i.ID)
		})
		if err != nil {
			u.say("the image is there, but the old one of its name, %s, could not be deleted: %v", i.ID, err)
		}
	}
}
