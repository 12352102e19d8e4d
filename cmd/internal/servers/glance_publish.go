package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// duelTries is how often an image gets its name when another gets the same
	// one at the same moment, duelWait the longest wait in between.
	duelTries = 6
	duelWait  = 2 * time.Second
)

// Publish implements [Upload]. Glance lets several images have one name, so
// whoever has renamed its image looks whether it is the only one. Of two that
// find each other both step back, and come again after a time: both can't get
// through, since each looks after it has renamed.
//
// With force, the images of this name that are the project's own and older are
// deleted afterwards. For a moment there are two.
func (u *glanceUpload) Publish(ctx context.Context) error {
	err := u.publish(ctx)
	if err == nil {
		u.published = true
	}
	return u.failed(ctx, "rename the image", err)
}

func (u *glanceUpload) publish(ctx context.Context) error {
	if u.force {
		if err := u.setName(ctx, u.name); err != nil {
			return err
		}
		u.published = true // what follows is about others
		return u.removeOlder(ctx)
	}
	for try := 0; ; try++ {
		if others, err := u.others(ctx); err != nil || len(others) > 0 {
			return firstError(err, exists(u.String()))
		}
		if err := u.setName(ctx, u.name); err != nil {
			return err
		}
		others, err := u.others(ctx)
		if err == nil && len(others) == 0 {
			return nil
		}
		if e := u.setName(ctx, hiddenName(u.name)); err != nil || e != nil {
			return firstError(err, e)
		}
		if try == duelTries {
			return exists(u.String())
		}
		select {
		case <-time.After(rand.N(duelWait)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *glanceUpload) setName(ctx context.Context, name string) error {
	return u.retry.do(ctx, "rename the image", func() error {
		image, err := u.rename(ctx, u.id, name)
		if err == nil {
			u.image = image
		}
		return err
	})
}

// others returns the other images of the name.
func (u *glanceUpload) others(ctx context.Context) (others []glanceImage, err error) {
	err = u.retry.do(ctx, "look for the name", func() error {
		others, err = u.named(ctx, u.name, u.id)
		return err
	})
	return others, err
}

// removeOlder deletes the images that this one replaces. The order is the same
// for all who do that at a time, so that the last one stays.
func (u *glanceUpload) removeOlder(ctx context.Context) error {
	others, err := u.others(ctx)
	for _, old := range others {
		if err != nil {
			break
		}
		if old.Owner != u.image.Owner || old.UpdatedAt+old.ID > u.image.UpdatedAt+u.image.ID {
			continue
		}
		if e := u.remove(ctx, old.ID); e != nil {
			err = fmt.Errorf("image %s: %w", old.ID, e)
		}
	}
	if err != nil {
		u.say("the image is there, but an older one of its name could not be deleted: %v", err)
	}
	return nil
}
