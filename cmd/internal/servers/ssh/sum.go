package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// sha256Commands compute the SHA-256 of their standard input at the other end of
// ssh, and print it first. OpenSSL takes a fifth of the time that sha256sum takes
// where the latter uses no instructions for it (0.8 against 3.2 seconds for a GiB).
var sha256Commands = []string{"openssl dgst -sha256 -r", "sha256sum"}

// ByServer says who has computed a SHA-256 at the other end of ssh.
const ByServer = "SHA-256 on the server"

// sha256 returns the SHA-256 of a file that the server computes. An error that
// may pass is tried again; another one says why the server doesn't.
func (t Target) sha256(ctx context.Context, retry *transfer.Retrier, file string) ([]byte, error) {
	var out []byte
	err := retry.Do(ctx, ByServer, func() (err error) {
		out, err = t.run(ctx, sha256Line(file))
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
	// No shell, no such program, or no login without a prompt.
	return nil, fmt.Errorf("no %s: %w", ByServer, err)
}

// sha256Line returns a command line, for the shell of any account, that prints
// the SHA-256 of a file by the first program that can.
func sha256Line(file string) string {
	var line []string
	for _, command := range sha256Commands {
		// From standard input: with a file name, strange ones are escaped.
		line = append(line, command+" < "+transfer.ShellQuote(file))
	}
	return strings.Join(line, " || ")
}

// VerifySHA256 is [servers.Verifier] for a file at the other end of ssh.
func (t Target) VerifySHA256(ctx context.Context, retry *transfer.Retrier, where, file string, want []byte) (string, error) {
	if want == nil {
		return "", transfer.NoVerification(where, "the SHA-256 is not known")
	}
	sum, err := t.sha256(ctx, retry, file)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", transfer.NoVerification(where, err.Error())
	}
	if !bytes.Equal(sum, want) {
		return "", transfer.Differs(where, sum, ByServer, want)
	}
	return ByServer, nil
}

// Checksum is [servers.Summer] for a file at the other end of ssh.
func (t Target) Checksum(ctx context.Context, retry *transfer.Retrier, where, file string) (servers.Checksum, error) {
	sum, err := t.sha256(ctx, retry, file)
	switch {
	case err != nil && ctx.Err() != nil:
		return servers.Checksum{}, context.Cause(ctx)
	case err != nil:
		return servers.Checksum{}, transfer.NoVerification(where, err.Error())
	}
	return servers.Checksum{Algorithm: "sha256", Sum: sum, By: ByServer}, nil
}
