package ssh

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// fastCipher is what a processor with instructions for AES computes two to
// three times as fast as OpenSSH's first choice, chacha20-poly1305. Of the time
// that an upload on a fast line costs both ends, that is a third.
const fastCipher = "aes128-gcm@openssh.com"

// ciphers returns the option that puts the fast cipher first among those of
// a configuration, and none where the configuration is not the default one:
// who set the ciphers has a reason. It allows no cipher that was not allowed.
func ciphers(config, byDefault []byte) []string {
	list := configValue(config, "ciphers")
	if list == "" || list != configValue(byDefault, "ciphers") {
		return nil
	}
	names := strings.Split(list, ",")
	i := slices.Index(names, fastCipher)
	if i <= 0 {
		return nil
	}
	names = slices.Insert(slices.Delete(names, i, i+1), 0, fastCipher)
	return []string{"-o", "Ciphers=" + strings.Join(names, ",")}
}

// configValue returns the value of a keyword, in lower case, of what ssh -G prints.
func configValue(config []byte, key string) string {
	for line := range bytes.Lines(config) {
		if k, value, _ := strings.Cut(strings.TrimSpace(string(line)), " "); k == key {
			return value
		}
	}
	return ""
}

// hasFastAES says whether this machine's processor has instructions for AES-GCM.
func hasFastAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL || cpu.S390X.HasAES && cpu.S390X.HasGHASH
}
