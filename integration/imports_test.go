package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// order of the folders: a package imports only from its own folder and from
// those before it.
var order = []string{"layers", "convert", "fs", "cmd"}

const module = "flatimg/"

// TestImportsRunOneWay keeps the layering: layers ← convert ← fs ← cmd; a
// volume format knows the contract (layers/volume) but none of its siblings;
// integration tests know the program from outside only.
func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; packages++ {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			to, ours := strings.CutPrefix(path, module)
			// Tests of any package may build their images with the rig.
			rigInTest := to == "integration/rig" && !slices.Contains(p.Imports, path)
			if ours && !rigInTest && !mayImport(from, to) {
				t.Errorf("%s must not import %s", from, to)
			}
		}
	}
	if packages == 0 {
		t.Fatal("go list names no packages")
	}
}

// mayImport says whether the package from may import the package to; both are
// paths in the module.
func mayImport(from, to string) bool {
	fromTop, fromRest, _ := strings.Cut(from, "/")
	toTop, toRest, _ := strings.Cut(to, "/")
	if fromTop == "integration" {
		return toTop == "integration"
	}
	rank := slices.Index(order, fromTop)
	if toRank := slices.Index(order, toTop); toRank < 0 || toRank > rank {
		return false
	}
	if fromTop != "layers" || fromRest == "" {
		return true
	}
	// Inside layers: formats and the contract.
	format, _, _ := strings.Cut(fromRest, "/")
	imported, _, _ := strings.Cut(toRest, "/")
	return imported == format || imported == "internal" || imported == "volume" && format != "internal"
}

func TestMayImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"convert", "layers", true},
		{"layers", "convert", false},
		{"fs", "layers/volume", true},
		{"fs", "cmd/internal/cli", false},
		{"layers", "layers/qcow2", true},
		{"layers/qcow2", "layers/volume", true},
		{"layers/qcow2", "layers/raw", false},
		{"layers/qcow2", "layers", false},
		{"layers/volume", "layers/qcow2", false},
		{"integration", "integration/rig", true},
		{"integration", "layers", false},
		{"cmd/flatimg", "integration/rig", false},
	} {
		if got := mayImport(c.from, c.to); got != c.want {
			t.Errorf("mayImport(%s, %s) = %v", c.from, c.to, got)
		}
	}
}
