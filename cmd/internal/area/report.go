package area

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
)

// Report says how an export or an import went.
type Report struct {
	// Dest is where the file is now.
	Dest string
	// Stats are those of the file with its companions.
	Stats
	// Import: the file came from a server, and was not brought to one.
	Import bool
	// Sent is what of the data was sent, in bytes, and Resumed what an earlier
	// run had sent. Both are 0 for what was made where it is.
	Sent, Resumed int64
	// SHA256 of the file at Dest; nil when it was not computed.
	SHA256 []byte
	// VerifiedBy says who has compared what arrived, by what; empty: nobody.
	VerifiedBy string
	// Kept is the path of the file in the area; empty when there is none.
	Kept string
	Took time.Duration
}

// String is the report for people, on one line.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%s data", r.Dest, cli.FormatSize(r.Size), cli.FormatSize(r.Data))
	if r.Shared > 0 {
		fmt.Fprintf(&b, ", %s of it shared", cli.FormatSize(r.Shared))
	}
	if r.Resumed > 0 {
		fmt.Fprintf(&b, ", %s of it in an earlier run", cli.FormatSize(r.Resumed))
	}
	fmt.Fprintf(&b, ") in %v", r.Took.Round(time.Millisecond))
	if r.SHA256 != nil {
		fmt.Fprintf(&b, ", sha256 %x", r.SHA256)
	}
	switch {
	case r.VerifiedBy != "":
		fmt.Fprintf(&b, " (verified: %s)", r.VerifiedBy)
	case r.Sent+r.Resumed > 0 && r.Import:
		b.WriteString(" (not verified: the server tells no checksum)")
	case r.Sent+r.Resumed > 0:
		b.WriteString(" (not verified: the server tells no checksum, --verify reads back)")
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, ", kept at %s", r.Kept)
	}
	return b.String()
}

// MarshalJSON is the report for programs; sizes are in bytes.
func (r *Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		URL         string  `json:"url"`
		Size        int64   `json:"size"`
		BytesRead   int64   `json:"bytes_read"`
		BytesSent   int64   `json:"bytes_sent"`
		BytesBefore int64   `json:"bytes_sent_before"`
		BytesHoles  int64   `json:"bytes_skipped_as_holes"`
		BytesShared int64   `json:"bytes_shared"`
		Seconds     float64 `json:"seconds"`
		SHA256      string  `json:"sha256,omitempty"`
		Verified    string  `json:"verified,omitempty"`
		Kept        string  `json:"kept,omitempty"`
	}{
		r.Dest, r.Size, r.Data, r.Sent, r.Resumed, r.Size - r.Data, r.Shared, r.Took.Seconds(),
		hex.EncodeToString(r.SHA256), r.VerifiedBy, r.Kept,
	})
}
