package mounting

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"

	"flatimg/cmd/internal/cli"
)

// serverLog is where a server says what happens.
type serverLog struct {
	*slog.Logger
	w    io.Writer
	file *os.File // that w is, unless it is syslog or standard error
}

// openLog opens the log.
func openLog(o Options) (*serverLog, error) {
	handler := slog.HandlerOptions{Level: slog.LevelInfo}
	if o.Verbose {
		handler.Level = slog.LevelDebug
	}
	to := func(w io.Writer, file *os.File) *serverLog {
		return &serverLog{slog.New(slog.NewTextHandler(w, &handler)), w, file}
	}
	if o.LogFile != "" {
		f, err := os.OpenFile(o.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, &cli.Error{Err: fmt.Errorf("log file: %w", err), Hint: "give another --log-file", Code: cli.ExitUsage}
		}
		return to(f, f), nil
	}
	if o.Foreground {
		return to(os.Stderr, nil), nil
	}
	w, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "flatimg")
	if err != nil {
		// Nobody to tell: what is broken is also in .flatimg/errors.
		return to(io.Discard, nil), nil
	}
	handler.ReplaceAttr = withoutTime
	return to(w, nil), nil
}

// withoutTime leaves out the time, which syslog adds.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// dump writes v as one line of JSON between the lines of the log, as it is:
// quoted as an attribute nobody could read it.
func (l *serverLog) dump(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic("mounting: internal error: " + err.Error())
	}
	l.w.Write(append(text, '\n'))
}
