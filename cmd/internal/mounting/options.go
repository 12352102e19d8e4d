package mounting

import (
	"fmt"
	"slices"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/fs"
)

// flags are the mount options that are passed on as they are.
var flags = []string{"ro", "default_permissions", "noexec", "nodev", "nosuid", "noatime"}

// KnownOptions are the names that [ApplyOptions] takes.
func KnownOptions() string {
	return "direct_io, allow_other, fsname=NAME, " + strings.Join(flags, ", ")
}

// ApplyOptions sets in o what lists of mount options say, as -o has them.
func ApplyOptions(o *fs.Options, lists []string) error {
	for _, option := range strings.Split(strings.Join(lists, ","), ",") {
		name, value, hasValue := strings.Cut(option, "=")
		switch {
		case option == "":
		case name == "fsname" && value != "":
			o.FSName = value
		case hasValue:
			return unknownOption(option)
		case name == "direct_io":
			o.DirectIO = true
		case name == "allow_other":
			o.AllowOther = true
		case name == "rw":
			return &cli.Error{
				Err:  fmt.Errorf("mount option rw: views can't be written to"),
				Hint: "leave it out, and copy a view to have a file to write to",
				Code: cli.ExitUsage,
			}
		case slices.Contains(flags, name):
			o.Flags = append(o.Flags, name)
		default:
			return unknownOption(option)
		}
	}
	return nil
}

func unknownOption(option string) error {
	return &cli.Error{
		Err:  fmt.Errorf("unknown mount option %q", option),
		Hint: "known are " + KnownOptions(),
		Code: cli.ExitUsage,
	}
}
