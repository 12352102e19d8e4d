// Package mounting is what the verbs mount and unmount do around the file
// system: options, checks of the mount point, the background process and its
// log, and the way back.
//
// [Mount] and [Unmount] never wait for a file system that does not answer.
package mounting
