package mounting

import (
	"fmt"
	"log/slog"
	"log/syslog"
	"os"

	"flatimg/cmd/internal/cli"
)

// openLog returns the log and the file that it is in, if it is one.
func openLog(o Options) (*slog.Logger, *os.File, error) {
	if o.LogFile != "" {
		f, err := os.OpenFile(o.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, nil, &cli.Error{Err: fmt.Errorf("log file: %w", err), Hint: "give another --log-file", Code: cli.ExitUsage}
		}
		return slog.New(slog.NewTextHandler(f, nil)), f, nil
	}
	if o.Foreground {
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil, nil
	}
	w, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "flatimg")
	if err != nil {
		// Nobody to tell: what is broken is also in .flatimg/errors.
		return slog.New(slog.DiscardHandler), nil, nil
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: withoutTime})), nil, nil
}

// withoutTime leaves out the time, which syslog adds.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
