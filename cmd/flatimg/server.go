package main

import (
	"github.com/spf13/pflag"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
)

// serverOptions are the values of the flags that say how a server is reached.
type serverOptions struct {
	servers.Options
	bwlimit rateFlag
}

// rateFlag is a flag value in bytes a second; 0 is no limit.
type rateFlag struct{ sizeFlag }

// String is empty without a limit, so that the help shows no default.
func (r *rateFlag) String() string {
	if r.sizeFlag == 0 {
		return ""
	}
	return r.sizeFlag.String()
}

// serverFlags adds those flags, for the verbs that send or fetch.
func serverFlags(flags *pflag.FlagSet) *serverOptions {
	o := &serverOptions{}
	flags.IntVar(&o.Connections, "connections", 0, "use at most `N` connections, or requests at a time; default: what suits the protocol")
	flags.IntVar(&o.Retries, "retries", 5, "try again up to `N` times in a row what may pass: a broken line, a busy server")
	flags.Var(&o.bwlimit, "bwlimit", "transfer at most this `SIZE` a second")
	flags.StringVar(&o.User, "user", "", "`NAME` to log in with; default: that in the URL, else what the protocol's own configuration says")
	flags.StringVar(&o.PasswordFile, "password-file", "", "`FILE` whose first line is the password; default: $FLATIMG_PASSWORD, else a prompt")
	flags.StringVar(&o.CACert, "cacert", "", "trust the PEM certificates in `FILE` in place of the system's")
	flags.StringVar(&o.SSH, "ssh-command", "", "`COMMAND` that starts ssh, with options; default: $FLATIMG_SSH, else ssh")
	return o
}

// servers returns the options for the package of that name.
func (o *serverOptions) servers() servers.Options {
	if cli.CanAsk() {
		o.Ask = (&cli.Prompter{}).Password
	}
	if o.Retries == 0 {
		o.Retries = -1
	}
	return o.Options
}
