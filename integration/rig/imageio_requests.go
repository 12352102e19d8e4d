package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
)

// tell answers what it can do.
func (s *Imageio) tell(w http.ResponseWriter, r *http.Request) error {
	features, allow := []string{}, "OPTIONS,GET"
	all := []string{"checksum", "extents"}
	if !s.options.ReadOnly {
		allow += ",PUT,PATCH"
		all = append(all, "flush", "zero")
	}
	for _, feature := range all {
		if s.has(feature) {
			features = append(features, feature)
		}
	}
	w.Header().Set("Allow", allow)
	return sendJSON(w, map[string]any{"features": features, "max_readers": 8, "max_writers": s.options.MaxWriters})
}

// inside checks a range of the disk.
func (s *Imageio) inside(off, size int64) error {
	if off < 0 || size < 0 || off > s.Size || size > s.Size-off {
		return &httpError{http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("Requested range is not satisfiable: offset %d, size %d", off, size)}
	}
	return nil
}

var rangeHeader = regexp.MustCompile(`^bytes=(\d+)-(\d*)$`)

func (s *Imageio) get(w http.ResponseWriter, r *http.Request) error {
	off, size, code := int64(0), s.Size, http.StatusOK
	if header := r.Header.Get("Range"); header != "" {
		m := rangeHeader.FindStringSubmatch(header)
		if m == nil {
			return badRequest("Invalid range %q", header)
		}
		off, _ = strconv.ParseInt(m[1], 10, 64)
		last := s.Size - 1
		if m[2] != "" {
			last, _ = strconv.ParseInt(m[2], 10, 64)
		}
		size, code = last-off+1, http.StatusPartialContent
		if err := s.inside(off, size); err != nil {
			return err
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, last, s.Size))
	}
	s.count(func(n *ImageioStats) { n.Gets++ })
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(code)
	io.Copy(w, io.NewSectionReader(s.disk.file, off, size)) // else the client has gone
	return nil
}

var contentRange = regexp.MustCompile(`^bytes (\d+)-(\d*)(/(\d+|\*))?$`)

// put writes; a body that ends early leaves what has come.
func (s *Imageio) put(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength < 0 {
		return badRequest("Content-Length header is required")
	}
	var off int64
	if header := r.Header.Get("Content-Range"); header != "" {
		m := contentRange.FindStringSubmatch(header)
		if m == nil {
			return badRequest("Invalid content-range %q", header)
		}
		off, _ = strconv.ParseInt(m[1], 10, 64)
	}
	flush := r.URL.Query().Get("flush")
	if flush != "" && flush != "y" && flush != "n" {
		return badRequest("Invalid value for 'flush': %q", flush)
	}
	if err := s.inside(off, r.ContentLength); err != nil {
		return err
	}
	failing := s.beginWrite()
	defer s.endWrite()
	size := r.ContentLength
	if failing {
		size /= 2
	}
	n, err := io.Copy(&diskWriter{s.disk, off}, io.LimitReader(r.Body, size))
	s.count(func(stats *ImageioStats) { stats.Written += n })
	if failing {
		s.disk.revert()
		return &httpError{http.StatusInternalServerError, "Server failed to perform the request"}
	}
	if err != nil || n < size {
		return badRequest("Expected %d bytes, got %d bytes", size, n)
	}
	if flush != "n" { // the default is from times without flush
		s.disk.flush()
	}
	return nil
}

// beginWrite counts a PUT and says whether it is to fail.
func (s *Imageio) beginWrite() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Puts++
	s.writers++
	s.stats.MaxWriters = max(s.stats.MaxWriters, s.writers)
	if s.fail == 0 {
		return false
	}
	s.fail--
	return true
}

func (s *Imageio) endWrite() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers--
}

// patch makes zeros, or flushes.
func (s *Imageio) patch(w http.ResponseWriter, r *http.Request) error {
	var message struct {
		Op     string
		Offset int64
		Size   *int64
		Flush  bool
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&message); err != nil {
		return badRequest("Invalid JSON message %v", err)
	}
	if !s.has(message.Op) {
		return badRequest("Invalid value for 'op': %q", message.Op)
	}
	switch message.Op {
	case "zero":
		if message.Size == nil {
			return badRequest("Missing required value for 'size'")
		}
		if err := s.inside(message.Offset, *message.Size); err != nil {
			return err
		}
		if err := s.disk.zero(message.Offset, *message.Size); err != nil {
			return err
		}
		s.count(func(n *ImageioStats) { n.Zeros++; n.Zeroed += *message.Size })
		if message.Flush {
			s.disk.flush()
		}
	case "flush":
		s.count(func(n *ImageioStats) { n.Flushes++ })
		s.disk.flush()
	default:
		return badRequest("Invalid value for 'op': %q", message.Op)
	}
	return nil
}

func (s *Imageio) extents(w http.ResponseWriter, r *http.Request) error {
	if context := r.URL.Query().Get("context"); !s.has("extents") || (context != "" && context != "zero") {
		return &httpError{http.StatusNotFound, "Ticket does not support these extents"}
	}
	extents, err := s.disk.extents(0, s.Size)
	if err != nil {
		return err
	}
	return sendJSON(w, extents)
}

func (s *Imageio) checksum(w http.ResponseWriter, r *http.Request) error {
	if !s.has("checksum") {
		return &httpError{http.StatusNotFound, "Not found"}
	}
	algorithm, blockSize := "blake2b", int64(4<<20)
	if v := r.URL.Query().Get("algorithm"); v != "" {
		algorithm = v
	}
	if imageioHashes[algorithm] == nil {
		return badRequest("Invalid value for 'algorithm': %q", algorithm)
	}
	if v := r.URL.Query().Get("block_size"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 4096 || n > 16<<20 || n%4096 != 0 {
			return badRequest("Invalid value for 'block_size': %q", v)
		}
		blockSize = n
	}
	s.count(func(n *ImageioStats) { n.Checksums++ })
	sum, err := s.disk.checksum(algorithm, blockSize)
	if err != nil {
		return err
	}
	return sendJSON(w, map[string]any{"checksum": sum, "algorithm": algorithm, "block_size": blockSize})
}

func sendJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
	return nil
}
