package glance

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	random "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/integration/rig"
)

// useFake makes a service the test's, straight.
func useFake(t *testing.T, url, token string) {
	for _, name := range []string{"OS_CLOUD", "OS_AUTH_URL", "OS_AUTH_TYPE", "OS_CACERT", "OS_IMAGE_ENDPOINT_OVERRIDE", "FLATIMG_PASSWORD"} {
		t.Setenv(name, "")
	}
	t.Setenv("OS_ENDPOINT", url)
	t.Setenv("OS_TOKEN", token)
}

// export brings a source to an image service.
func export(ctx context.Context, dest string, o servers.Options, src servers.Source, f servers.File, log *servertest.Log) error {
	o.Name = "web." + f.Format
	up, err := Open(ctx, dest, o)
	if err != nil {
		return err
	}
	if err := send(ctx, up, src, f, log); err != nil {
		return errors.Join(err, up.Close(true))
	}
	return up.Close(false)
}

func send(ctx context.Context, up servers.Upload, src servers.Source, f servers.File, log *servertest.Log) error {
	if err := up.(servers.Checker).Check(ctx, f); err != nil {
		return err
	}
	if err := up.Send(ctx, src, log); err != nil {
		return err
	}
	sum := sha256.New()
	io.Copy(sum, io.NewSectionReader(src, 0, src.Size()))
	if _, err := up.(servers.Verifier).Verify(ctx, sum.Sum(nil)); err != nil {
		return err
	}
	var back bytes.Buffer
	want := make([]byte, 10)
	off := min(99_995, src.Size()-10)
	src.ReadAt(want, off)
	if err := up.(servers.ReadBacker).ReadBack(ctx, &back, off, 10); err != nil || !bytes.Equal(back.Bytes(), want) {
		return errors.Join(errors.New("read back something else"), err)
	}
	return up.Publish(ctx)
}

var raw = servers.File{Format: "raw", Size: servertest.MixedSize, VirtualSize: servertest.MixedSize}

// checkImage fetches the image in pieces and compares it.
func checkImage(t *testing.T, src string, want servers.Source) {
	t.Helper()
	d, err := OpenSource(t.Context(), src, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != want.Size() || d.Version() == "" {
		t.Fatalf("%d bytes, must be %d", d.Size(), want.Size())
	}
	var got bytes.Buffer
	for _, off := range []int64{0, 200_000} {
		length := int64(200_000)
		if off > 0 {
			length = -1
		}
		if err := d.Read(t.Context(), &got, off, length); err != nil {
			t.Fatal(err)
		}
	}
	b, _ := io.ReadAll(io.NewSectionReader(want, 0, want.Size()))
	if !bytes.Equal(got.Bytes(), b) {
		t.Error("what was fetched differs")
	}
	if c, err := d.(servers.Summer).Checksum(t.Context()); err != nil || c.Algorithm != "sha512" {
		t.Errorf("%+v, %v", c, err)
	}
}

// fresh returns a name that the shared service has no image of.
func fresh(name string) string { return name + rand.Text()[:8] }

// fileSource returns a source of a file, all of it data.
func fileSource(t *testing.T, name string) *servertest.Source {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return &servertest.Source{Reader: bytes.NewReader(b), Runs: []servertest.Run{servertest.Data(0, int64(len(b)))}}
}

// images returns those of the service, by what their names have in common.
func images(t *testing.T, name string) (found []imageInfo) {
	t.Helper()
	c, err := newClient(t.Context(), servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var all struct{ Images []imageInfo }
	if err := c.ask(t.Context(), request{method: "GET", path: "images", query: map[string][]string{"limit": {"1000"}}, want: []int{200}}, nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, i := range all.Images {
		if strings.Contains(i.Name, name) {
			found = append(found, i)
		}
	}
	return found
}

func TestGlanceReal(t *testing.T) {
	g := rig.Glance(t)
	useFake(t, g.URL, g.Token)
	for _, scheme := range []string{"glance", "glance+import"} {
		name := fresh("web of " + scheme)
		dest := scheme + "://" + strings.ReplaceAll(name, " ", "%20")
		log := &servertest.Log{}
		if err := export(t.Context(), dest, servers.Options{}, servertest.MixedSource(), raw, log); err != nil {
			t.Fatal(err)
		}
		if log.SentBytes.Load() != servertest.MixedData {
			t.Errorf("%d bytes counted, want %d", log.SentBytes.Load(), servertest.MixedData)
		}
		checkImage(t, "glance://"+name, servertest.MixedSource())
		first := images(t, name)
		if len(first) != 1 || first[0].Name != name {
			t.Fatalf("%+v", first)
		}
		checkImage(t, "glance://"+first[0].ID, servertest.MixedSource())
		if err := export(t.Context(), dest, servers.Options{}, servertest.MixedSource(), raw, log); cli.ExitCode(err) != cli.ExitExists {
			t.Errorf("again: %v, want that it exists", err)
		}
		if err := export(t.Context(), dest, servers.Options{Force: true}, servertest.MixedSource(), raw, log); err != nil {
			t.Errorf("with force: %v", err)
		}
		if now := images(t, name); len(now) != 1 || now[0].ID == first[0].ID {
			t.Errorf("after force: %+v", now)
		}
		// What an earlier run has noted is not there any more.
		if err := export(t.Context(), dest, servers.Options{Force: true, Resume: log.State}, servertest.MixedSource(), raw, log); err != nil {
			t.Errorf("resumed: %v", err)
		}
	}
	if _, err := OpenSource(t.Context(), "glance://none", servers.Options{}); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("%v, want that there is none", err)
	}
	t.Setenv("OS_TOKEN", "wrong")
	if _, err := Open(t.Context(), "glance://a", servers.Options{}); cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" {
		t.Errorf("wrong token: %v", err)
	}
}

// TestGlanceFormats sends what Glance has to recognise.
func TestGlanceFormats(t *testing.T) {
	g := rig.Glance(t)
	useFake(t, g.URL, g.Token)
	img := rig.Need(t, "qemu-img")
	for format, options := range map[string]string{
		"qcow2": "", "vmdk": "subformat=streamOptimized", "vdi": "", "vhd": "subformat=dynamic,force_size=on", "vhdx": "",
	} {
		file := filepath.Join(t.TempDir(), "disk")
		qemu := map[string]string{"vhd": "vpc"}[format]
		if qemu == "" {
			qemu = format
		}
		args := []string{"create", "-q", "-f", qemu, file, "16M"}
		if options != "" {
			args = append(args, "-o", options)
		}
		if out, err := exec.Command(img, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", err, out)
		}
		src := fileSource(t, file)
		err := export(t.Context(), "glance://"+fresh("recognised-"+format), servers.Options{}, src, servers.File{Format: format, Size: src.Size(), VirtualSize: 16 << 20}, &servertest.Log{})
		if err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	// Zeros are none of them.
	err := export(t.Context(), "glance://unrecognised", servers.Options{}, servertest.NewSource(1<<20), servers.File{Format: "qcow2", VirtualSize: 1 << 20}, &servertest.Log{})
	if cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" {
		t.Errorf("%v, want that it is not recognised", err)
	}
	if left := images(t, "unrecognised"); len(left) != 0 {
		t.Errorf("left over: %+v", left)
	}
}

func TestGlanceCheck(t *testing.T) {
	g := rig.Glance(t)
	useFake(t, g.URL, g.Token)
	up, err := Open(t.Context(), "glance://", servers.Options{Name: "web.vmdk"})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if up.String() != "glance://web" || up.(servers.Namer).FileName() != "web.vmdk" {
		t.Errorf("%s, %s", up, up.(servers.Namer).FileName())
	}
	for f, code := range map[servers.File]int{
		{Format: "vmdk", Subformat: "monolithicFlat"}: cli.ExitUsage, {Format: "vmdk"}: 0, {Format: "vhd", Subformat: "fixed"}: cli.ExitUsage,
		{Format: "parallels"}: cli.ExitUsage, {Format: "raw"}: 0, {Format: "vhdx", Subformat: "fixed"}: 0,
	} {
		if err := up.(servers.Checker).Check(t.Context(), f); (err == nil) != (code == 0) || err != nil && (cli.ExitCode(err) != code || cli.Hint(err) == "") {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestGlanceCut(t *testing.T) {
	g := rig.Glance(t)
	for range 3 {
		cutter := rig.NewCutter(t, g.Address)
		useFake(t, "http://"+cutter.Address, g.Token)
		cutter.CutAfter(random.Int64N(servertest.MixedSize), random.Int64N(servertest.MixedSize))
		log := &servertest.Log{}
		name := fresh("cut")
		dest := "glance://" + name
		if err := export(t.Context(), dest, servers.Options{}, servertest.MixedSource(), raw, log); err != nil {
			t.Fatalf("%v; said %q", err, log.Said)
		}
		if log.SentBytes.Load() != servertest.MixedData || cutter.Cuts() == 0 {
			t.Errorf("cut %d times: %d bytes counted, want %d", cutter.Cuts(), log.SentBytes.Load(), servertest.MixedData)
		}
		checkImage(t, dest, servertest.MixedSource())
		if all := images(t, name); len(all) != 1 {
			t.Errorf("left over: %+v", all)
		}
	}
}

// TestGlanceKilled leaves what a killed run leaves, and removes it.
func TestGlanceKilled(t *testing.T) {
	g := rig.Glance(t)
	cutter := rig.NewCutter(t, g.Address)
	useFake(t, "http://"+cutter.Address, g.Token)
	name := fresh("killed")
	dest := "glance://" + name
	for _, remove := range []bool{true, false} {
		up, err := Open(t.Context(), dest, servers.Options{Name: "web.raw", Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := up.(servers.Checker).Check(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
		cutter.CutAfter(1 << 20)
		log := &servertest.Log{}
		if err := up.Send(t.Context(), servertest.MixedSource(), log); cli.ExitCode(err) != cli.ExitServer {
			t.Fatal(err)
		}
		if all := images(t, name); len(all) != 1 || all[0].Name == name {
			t.Fatalf("%+v", all)
		}
		if remove {
			next, err := Open(t.Context(), dest, servers.Options{Resume: log.State, Force: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := next.Close(false); err != nil {
				t.Error(err)
			}
			if all := images(t, name); len(all) != 0 {
				t.Errorf("left over: %+v", all)
			}
			continue
		}
		second := &servertest.Log{}
		if err := export(t.Context(), dest, servers.Options{Resume: log.State}, servertest.MixedSource(), raw, second); err != nil {
			t.Fatal(err)
		}
		if all := images(t, name); len(all) != 1 || len(second.Said) != 1 {
			t.Errorf("%+v; said %q", all, second.Said)
		}
		// It was published: removing what the run has left does not remove it.
		next, err := Open(t.Context(), dest, servers.Options{Resume: second.State, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Close(false); err != nil || len(images(t, name)) != 1 {
			t.Errorf("%v; what was published is gone", err)
		}
	}
}

func TestGlanceMany(t *testing.T) {
	g := rig.Glance(t)
	useFake(t, g.URL, g.Token)
	for _, force := range []bool{false, true} {
		var group sync.WaitGroup
		var mu sync.Mutex
		won := 0
		name := fresh("many")
		for range 4 {
			group.Go(func() {
				err := export(t.Context(), "glance://"+name, servers.Options{Force: force}, servertest.MixedSource(), raw, &servertest.Log{})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if cli.ExitCode(err) != cli.ExitExists {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if all := images(t, name); len(all) != 1 || all[0].Name != name || !force && won != 1 {
			t.Errorf("force %v: %d went well; %+v", force, won, all)
		}
	}
}

func TestGlanceStalls(t *testing.T) {
	g := rig.Glance(t)
	cutter := rig.NewCutter(t, g.Address)
	useFake(t, "http://"+cutter.Address, g.Token)
	ctx, cancel := context.WithCancel(t.Context())
	up, err := Open(ctx, "glance://"+fresh("stalled"), servers.Options{Name: "web.raw"})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.(servers.Checker).Check(ctx, raw); err != nil {
		t.Fatal(err)
	}
	servertest.CheckStalls(t, ctx, up, func() { cutter.Stall(true); cancel() })
}

func TestGlanceKeystone(t *testing.T) {
	if testing.Short() {
		t.Skip("a Keystone takes half a minute to start")
	}
	g := rig.GlanceKeystone(t)
	useFake(t, "", "")
	for _, e := range g.Keystone.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	keys := "glance://" + fresh("keys")
	if err := export(t.Context(), keys, servers.Options{}, servertest.MixedSource(), raw, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, keys, servertest.MixedSource())

	// A token that has ended is replaced.
	up, err := Open(t.Context(), "glance://"+fresh("ended"), servers.Options{Name: "web.raw"})
	if err != nil {
		t.Fatal(err)
	}
	u := up.(*upload)
	u.token.token = "ended"
	if err := send(t.Context(), up, servertest.MixedSource(), raw, &servertest.Log{}); err != nil {
		t.Error(err)
	}
	up.Close(false)

	// The same by clouds.yaml, whose password is wrong at first.
	file := filepath.Join(t.TempDir(), "clouds.yaml")
	t.Setenv("OS_CLIENT_CONFIG_FILE", file)
	t.Setenv("OS_CLOUD", "test")
	k := g.Keystone
	for _, secret := range []string{"wrong", k.Password} {
		servertest.WriteFile(t, file, fmt.Sprintf(`clouds: {test: {region_name: %s, auth: {auth_url: "%s", username: %s, password: %s,
  project_name: %s, user_domain_name: Default, project_domain_name: Default}}}`, k.Region, k.URL, k.User, secret, k.Project))
		d, err := OpenSource(t.Context(), keys, servers.Options{})
		if err == nil {
			d.Close()
		}
		if secret == "wrong" && (cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" || strings.Contains(err.Error(), "Expected")) || secret != "wrong" && err != nil {
			t.Errorf("password %s: %v", secret, err)
		}
	}
	t.Setenv("OS_CLOUD", "")
	t.Setenv("OS_PASSWORD", "wrong")
	if _, err := Open(t.Context(), "glance://a", servers.Options{}); cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" {
		t.Errorf("wrong password: %v", err)
	}
	t.Setenv("OS_PASSWORD", k.Password)
	t.Setenv("OS_REGION_NAME", "elsewhere")
	if _, err := Open(t.Context(), "glance://a", servers.Options{}); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("wrong region: %v", err)
	}
}
