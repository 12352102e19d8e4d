package webdav

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// vagueTime is how old a file must be for its tag and date to tell its states
// from each other. Those of nginx, and Apache's dates, are made of whole
// seconds: what is replaced within one may look the same.
const vagueTime = time.Minute

// answer is what an answer to GET says of the file.
type answer struct {
	start  int64  // offset of its first byte
	size   int64  // of the file in bytes; -1: not told
	ranges bool   // it is a part, as it was asked for
	tag    string // a strong one; empty: none
	anyTag string // the same, or a weak one without its mark
	date   string // Last-Modified
	now    time.Time
}

// readAnswer reads the header of an answer of status 200, 206 or 416.
func readAnswer(resp *http.Response) (answer, error) {
	h := resp.Header
	a := answer{size: resp.ContentLength, tag: strongTag(h), date: h.Get("Last-Modified")}
	a.anyTag = strings.TrimPrefix(h.Get("ETag"), "W/")
	if packed := h.Get("Content-Encoding"); packed != "" && !strings.EqualFold(packed, "identity") {
		return a, transfer.Lasting(fmt.Errorf("the server sends the file packed (Content-Encoding: %.40q)", packed))
	}
	var err error
	if a.now, err = http.ParseTime(h.Get("Date")); err != nil {
		a.now = time.Now()
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		a.ranges = true
		if a.start, _, a.size, err = web.ParseContentRange(h.Get("Content-Range")); err != nil {
			return a, transfer.Lasting(err)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		// There is no first byte.
		if strings.TrimSpace(h.Get("Content-Range")) != "bytes */0" {
			return a, transfer.Lasting(&web.Error{Status: resp.StatusCode})
		}
		a.size = 0
	default:
		return a, transfer.Lasting(&web.Error{Status: resp.StatusCode})
	}
	return a, nil
}

// validator is what If-Range compares (RFC 9110, section 13.1.5); empty: there
// is nothing.
func (a answer) validator() string {
	if a.tag != "" {
		return a.tag
	}
	return a.date
}

// sameAs says whether two answers are of the same state of the file, as far as
// they tell. Apache marks the tag of a file as weak within a second of its
// change, and not any more after that.
func (a answer) sameAs(b answer) bool {
	if a.anyTag != "" || b.anyTag != "" {
		return a.size == b.size && a.anyTag == b.anyTag
	}
	return a.size == b.size && a.date == b.date
}

// version tells states of the file from each other; empty: it can't be told.
func (a answer) version() string {
	if a.size < 0 || a.validator() == "" {
		return ""
	}
	changed, err := http.ParseTime(a.date)
	if a.date != "" && (err != nil || a.now.Sub(changed) < vagueTime) {
		return ""
	}
	return fmt.Sprintf("%s %d", a.validator(), a.size)
}
