package servers

import (
	"context"
	"os"

	"github.com/pkg/sftp"
)

// sftpLane is the part, open at one connection.
type sftpLane struct {
	conn *sftpConn
	file *sftp.File
}

// sftpLanes spread what is written to a part over several connections: each is
// bounded by ssh's window for each delay of the line, and by one processor.
type sftpLanes []sftpLane

func (l sftpLanes) WriteAt(p []byte, off int64) (int, error) {
	lane := l[off/l[0].conn.packet%int64(len(l))]
	return lane.file.WriteAt(p, off)
}

// openMore opens the part at further connections, up to the number that was
// asked for, as far as ssh makes them without asking anything. They hang up with
// the first one.
func (u *sftpUpload) openMore(ctx context.Context, first *sftpConn, log Log) (more sftpLanes) {
	for len(more)+1 < u.connections {
		c, err := u.server.take(ctx, sshNoPrompt)
		if err == nil {
			var f *sftp.File
			if f, err = c.OpenFile(u.partPath(), os.O_WRONLY); err == nil {
				context.AfterFunc(first.life, c.hangUp)
				more = append(more, sftpLane{c, f})
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
func (u *sftpUpload) closeMore(more sftpLanes) {
	for _, l := range more {
		l.conn.close()
	}
}
