package transfer

import "testing"

func TestShellQuote(t *testing.T) {
	for text, want := range map[string]string{
		"a b": "'a b'", "it's": `'it'\''s'`, "$(x)`y`": "'$(x)`y`'", "": "''",
	} {
		if got := ShellQuote(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
