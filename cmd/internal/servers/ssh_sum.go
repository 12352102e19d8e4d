package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// sha256sum is the program that computes a SHA-256 at the other end of ssh.
const sha256sum = "sha256sum"

// sha256 returns the SHA-256 of a file that the server computes. An error that
// may pass is tried again; another one says why the server doesn't.
func (t sshTarget) sha256(ctx context.Context, retry *retrier, file string) ([]byte, error) {
	var out []byte
	err := retry.do(ctx, sha256sum, func() (err error) {
		// From standard input: with a file name, strange ones are escaped.
		out, err = t.run(ctx, sha256sum+" < "+shellQuote(file))
		return err
	})
	if err == nil {
		text, _, _ := strings.Cut(string(out), " ")
		sum, hexErr := hex.DecodeString(text)
		if hexErr == nil && len(sum) == sha256.Size {
			return sum, nil
		}
		err = fmt.Errorf("it answers %.80q", out)
	}
	// No shell, no sha256sum, or no login without a prompt.
	return nil, fmt.Errorf("no %s on the server: %w", sha256sum, err)
}

// verifySHA256 is [Verifier] for a file at the other end of ssh.
func (t sshTarget) verifySHA256(ctx context.Context, retry *retrier, where, file string, want []byte) (by string, err error) {
	if want == nil {
		return "", noVerification(where, "the SHA-256 is not known")
	}
	sum, err := t.sha256(ctx, retry, file)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", noVerification(where, err.Error())
	}
	by = sha256sum + " on the server"
	if !bytes.Equal(sum, want) {
		return "", Differs(where, sum, by, want)
	}
	return by, nil
}

// checksum is [Summer] for a file at the other end of ssh.
func (t sshTarget) checksum(ctx context.Context, retry *retrier, where, file string) (Checksum, error) {
	sum, err := t.sha256(ctx, retry, file)
	switch {
	case err != nil && ctx.Err() != nil:
		return Checksum{}, context.Cause(ctx)
	case err != nil:
		return Checksum{}, noVerification(where, err.Error())
	}
	return Checksum{Algorithm: "sha256", Sum: sum, By: sha256sum + " on the server"}, nil
}
