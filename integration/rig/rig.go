// Package rig is what all integration tests stand on: the built binary, chains
// of images whose contents are known, mounts, servers and file systems, each
// taken down when the test ends.
//
// It knows the program only as a user does, by its command line, and imports
// none of its packages, so that an error there cannot hide here.
//
// # Use
//
// A test package calls [Main] from TestMain. A test builds an image with
// [Chain.Build], which returns the image and its expected contents, made from
// one table; it mounts it with [Mount], runs the program with [Flatimg] and
// other tools with [Run].
//
// # Servers
//
// [Sshd], [Rsyncd], [Nginx], [Apache], [Versitygw], [DockerRegistry], [Glance],
// [Nbdkit] and [QemuNbd] start the real servers that people export to, and
// [NewImageio] a stand-in for the one that nobody packages, on ports of the
// loopback address that nobody else uses. Each returns where it listens and the
// folder in which a test sees what has arrived. A [Cutter] before any of them
// breaks connections where a test wants it.
//
// # Tools that are missing
//
// [Need], [NeedFUSE] and [NeedRoot] skip a test and say why. With
// FLATIMG_REQUIRE_TOOLS=1, as in CI, they fail it.
//
// # Environment
//
// FLATIMG_BINARY is a binary to test in place of a fresh build;
// FLATIMG_RACE=1 builds it with the race detector.
package rig

// T is what the rig needs of a test; [*testing.T] and [*testing.B] have it, and
// so can a program that is no test.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
}
