// Package transfer has what uploads and downloads of several protocols share:
// trying again, cutting a source into pieces, following how far all has arrived,
// the names of what is not published yet, and errors that users can act on.
package transfer
