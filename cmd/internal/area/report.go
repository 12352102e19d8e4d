package area

import (
	"fmt"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
)

// String is the report for people, on one line.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%s data", r.Dest, cli.FormatSize(r.Size), cli.FormatSize(r.Data))
	if r.Shared > 0 {
		fmt.Fprintf(&b, ", %s of it shared", cli.FormatSize(r.Shared))
	}
	fmt.Fprintf(&b, ") in %v", r.Took.Round(10*time.Millisecond))
	if r.SHA256 != nil {
		fmt.Fprintf(&b, ", sha256 %x", r.SHA256)
	}
	if r.VerifiedBy != "" {
		fmt.Fprintf(&b, " (%s)", r.VerifiedBy)
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, ", kept at %s", r.Kept)
	}
	return b.String()
}
