package demo

import "embed"

// images are the layers of the demo's disk, made by images/make.
//
//go:embed images/*.qcow2
var images embed.FS
