package transfer

import (
	"context"
	"errors"
	"io"
	"testing"
)

func TestMayPass(t *testing.T) {
	e := errors.New("failed")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{e, false},
		{io.ErrUnexpectedEOF, true},
		{Lasting(io.ErrUnexpectedEOF), false},
		{Passing(e), true},
		{Passing(Lasting(e)), true},
		{Lasting(Passing(e)), false},
		{ServerError("there", "send", Passing(Lasting(e))), true},
		{Passing(context.Canceled), false},
	} {
		if got := MayPass(c.err); got != c.want {
			t.Errorf("%#v: %v, want %v", c.err, got, c.want)
		}
	}
}
