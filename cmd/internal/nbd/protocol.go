package nbd

// Magic numbers.
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"; section "Handshake phase"
	magicNewstyle   = 0x49484156454f5054 // "IHAVEOPT"; section "Newstyle negotiation"
	magicOldstyle   = 0x00420281861253   // section "Oldstyle negotiation"
	magicOption     = magicNewstyle      // section "Newstyle negotiation"
	magicOptReply   = 0x3e889045565a9    // section "Fixed newstyle negotiation"
	magicRequest    = 0x25609513         // section "Request message"
	magicSimple     = 0x67446698         // section "Simple reply message"
	magicStructured = 0x668e33ef         // section "Structured reply chunk message"
)

// Sizes in bytes.
const (
	requestSize   = 28  // section "Request message"
	optionHeader  = 16  // section "Newstyle negotiation"
	optReplySize  = 20  // section "Fixed newstyle negotiation"
	exportPadding = 124 // zeros after the reply to EXPORT_NAME; section "Newstyle negotiation"
)

// Flags of the handshake; sections "Handshake flags" and "Client flags", which
// give both the same bits.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Transmission flags; section "Transmission flags".
const (
	flagReadOnly        = 1 << 1
	flagSendFlush       = 1 << 2
	flagSendTrim        = 1 << 5
	flagSendWriteZeroes = 1 << 6
	flagCanMultiConn    = 1 << 8
	flagSendFastZero    = 1 << 11
)

// Options; section "Option types".
const (
	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optGo              = 7
	optStructuredReply = 8
	optSetMetaContext  = 10
)

// Replies to options; section "Option reply types". Those of errors have the
// highest bit set.
const (
	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMetaContext = 4

	repError         = 1 << 31
	repErrUnsup      = repError + 1
	repErrPolicy     = repError + 2
	repErrInvalid    = repError + 3
	repErrPlatform   = repError + 4
	repErrTLSReqd    = repError + 5
	repErrUnknown    = repError + 6
	repErrShutdown   = repError + 7
	repErrBlockSize  = repError + 8
	repErrTooBig     = repError + 9
	repErrExtHeaders = repError + 10
)

// Information about an export; section "Option types", NBD_INFO_*.
const (
	infoExport    = 0
	infoBlockSize = 3
)

// Commands; section "Request types".
const (
	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdWriteZeroes = 6
	cmdBlockStatus = 7
)

// cmdFlagNoHole asks WRITE_ZEROES to keep the range allocated; section "Command
// flags".
const cmdFlagNoHole = 1 << 1

// replyFlagDone marks the last chunk of a reply; section "Structured reply
// flags".
const replyFlagDone = 1 << 0

// Chunks of structured replies; section "Structured reply types". Those of
// errors have bit 15 set.
const (
	replyNone        = 0
	replyOffsetData  = 1
	replyOffsetHole  = 2
	replyBlockStatus = 5

	replyErrorBit    = 1 << 15
	replyErrorOffset = replyErrorBit + 2
)

// contextAllocation is the metadata context that tells holes; section
// "base:allocation metadata context", which also has its two flags.
const (
	contextAllocation = "base:allocation"
	stateHole         = 1 << 0
	stateZero         = 1 << 1
)

// commandName is a command for people.
func commandName(command uint16) string {
	switch command {
	case cmdRead:
		return "read"
	case cmdWrite:
		return "write"
	case cmdFlush:
		return "flush"
	case cmdWriteZeroes:
		return "write zeroes"
	}
	return "block status"
}
