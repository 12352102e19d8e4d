package cli

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// Prompter asks at the terminal for passwords, each once. Safe for concurrent
// use: there is one question at a time.
type Prompter struct {
	mu      sync.Mutex
	answers map[string]string // protected by mu
}

// CanAsk says whether there is a terminal and somebody at it.
func CanAsk() bool { return term.IsTerminal(int(os.Stdin.Fd())) }

// Password asks for the password of what, without showing it. When ctx ends, so
// does the question, and the terminal is as it was.
func (p *Prompter) Password(ctx context.Context, what string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer, ok := p.answers[what]; ok {
		return answer, nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(tty, "password of %s: ", what)
	type answer struct {
		text []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() { // ends with the process when nobody types any more
		b, err := term.ReadPassword(fd)
		typed <- answer{b, err}
	}()
	defer fmt.Fprintln(tty)
	select {
	case a := <-typed:
		if a.err != nil {
			return "", a.err
		}
		if p.answers == nil {
			p.answers = make(map[string]string)
		}
		p.answers[what] = string(a.text)
		return string(a.text), nil
	case <-ctx.Done():
		term.Restore(fd, before)
		return "", context.Cause(ctx)
	}
}
