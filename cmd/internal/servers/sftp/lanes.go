package sftp

import (
	"context"
	"os"

	"github.com/pkg/sftp"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
)

// lane is the part, open at one connection.
type lane struct {
	conn *conn
	file *sftp.File
}

// lanes spread what is written to a part over several connections: each is
// bounded by ssh's window for each delay of the line, and by one processor.
type lanes []lane

func (l lanes) WriteAt(p []byte, off int64) (int, error) {
	lane := l[off/l[0].conn.packet%int64(len(l))]
	return lane.file.WriteAt(p, off)
}

// openMore opens the part at further connections, up to the number that was
// asked for, as far as ssh makes them without asking anything. They hang up with
// the first one.
func (u *upload) openMore(ctx context.Context, first *conn, log servers.Log) (more lanes) {
	for len(more)+1 < u.connections {
		c, err := u.server.take(ctx, ssh.NoPrompt)
		if err == nil {
			var f *sftp.File
			if f, err = c.OpenFile(u.partPath(), os.O_WRONLY); err == nil {
				context.AfterFunc(first.life, c.hangUp)
				more = append(more, lane{c, f})
				continue
			}
			c.close()
		}
		log.Say("no more than %d connections: %v", len(more)+1, err)
		u.connections = len(more) + 1
	}
	return more
}

// closeMore ends further connections; what they carried has been confirmed, or
// will be sent again.
func (u *upload) closeMore(more lanes) {
	for _, l := range more {
		l.conn.close()
	}
}
