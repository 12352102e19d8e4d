package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"flatimg/layers"
)

// TestReport: people and programs are told the same.
func TestReport(t *testing.T) {
	hinted := &Error{Err: errors.New("no"), Hint: "do it", Code: ExitExists}
	for _, c := range []struct {
		err        error
		text, hint string
		code       int
	}{
		{errors.New("broken"), "broken", "", ExitFailure},
		{fmt.Errorf("it: %w", hinted), "it: no", "do it", ExitExists},
		{errors.Join(errors.New("first"), hinted), "first\nno", "do it", ExitExists},
		{fmt.Errorf("sending: %w", context.Canceled), "interrupted", "", ExitInterrupted},
		{errors.Join(hinted, context.Canceled), "interrupted", "", ExitInterrupted},
		{fmt.Errorf("x: %w", syscall.EDQUOT), "x: disk quota exceeded", "", ExitNoSpace},
		{fmt.Errorf("x: %w", layers.ErrRefused), "x: refused", "", ExitRefused},
		{Usagef("bad %d", 1), "bad 1", "", ExitUsage},
	} {
		if got, want := FieldsOf(c.err), (Fields{c.text, c.hint, c.code}); got != want {
			t.Errorf("%v: %+v, want %+v", c.err, got, want)
		}
		var b bytes.Buffer
		if code := Report(&b, c.err); code != c.code || !strings.HasPrefix(b.String(), "flatimg: error: "+c.text+"\n") || strings.Contains(b.String(), "hint") != (c.hint != "") {
			t.Errorf("%v: exit code %d\n%s", c.err, code, &b)
		}
	}
	if code := Report(nil, nil); code != ExitOK {
		t.Errorf("no error: exit code %d", code)
	}
}
