package servers

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
		{lasting{io.ErrUnexpectedEOF}, false},
		{passing{e}, true},
		{passing{lasting{e}}, true},
		{lasting{passing{e}}, false},
		{serverError("there", "send", passing{lasting{e}}), true},
		{passing{context.Canceled}, false},
	} {
		if got := mayPass(c.err); got != c.want {
			t.Errorf("%#v: %v, want %v", c.err, got, c.want)
		}
	}
}
