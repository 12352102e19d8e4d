// Package nbd is a client of the NBD protocol: it reads and writes a disk that a
// server exports.
//
// [Parse] reads an nbd:// URL, [Dial] connects and negotiates, and the [Client]
// it returns reads, writes, zeroes and flushes. Sections named in this package
// are those of the protocol document, doc/proto.md of the NetworkBlockDevice
// project, if no other document is named.
//
// # What is negotiated
//
// Fixed newstyle, TLS for nbds:// URLs and for no other, structured replies,
// the context base:allocation when [Options.Status] wants it, and block sizes.
// A server that lacks any of these is used without it, except for TLS. The
// oldstyle negotiation has no export names and no TLS, and is refused.
//
// # Concurrency
//
// All methods of a Client are safe for concurrent use, and callers should have
// several requests in flight: a request waits for the server's answer. Each
// connection has a goroutine that receives and one that watches for standstill,
// which end with [Client.Close].
//
// # Failures
//
// A server's refusal is an [*Error], and the connection lives on. A connection
// breaks when the peer is gone or silent, when it breaks the protocol, and when
// the context of a request in flight is cancelled: its answer, which nobody
// would wait for, could still be on its way to the caller's memory. One broken
// connection breaks the Client, since what it wrote and did not flush may be
// lost. [IsConnectionError] says when connecting again may help.
//
// # Hostile servers
//
// What a server sends is bounded before it is stored, and a reply that does not
// belong to its request is a [*ProtocolError]. Texts of servers are cleaned of
// control characters before they get into an error.
package nbd
