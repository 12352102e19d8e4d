package oci

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/integration/rig"
)

// registryOptions are the login, and the certificates, of a real registry.
func registryOptions(t *testing.T, r *rig.RegistryServer) servers.Options {
	o := servers.Options{User: r.User, PasswordFile: passwordFile(t, r.Password)}
	if r.Certs != nil {
		o.CACert = r.Certs.CA
	}
	return o
}

func TestOCIReal(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{Auth: true, TLS: true})
	o := registryOptions(t, r)
	dest := "oci://" + r.Address + "/vm/web:v1"
	if err := export(t.Context(), dest, o, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	checkImage(t, dest, o)
	if err := export(t.Context(), dest, o, &servertest.Log{}); cli.ExitCode(err) != cli.ExitExists {
		t.Errorf("again: %v, want that it exists", err)
	}
	o.Force = true
	if err := export(t.Context(), dest, o, &servertest.Log{}); err != nil {
		t.Errorf("with force: %v", err)
	}
	// All go on; one of them is there in the end.
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if err := export(t.Context(), "oci://"+r.Address+"/vm/many:v1", o, &servertest.Log{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	checkImage(t, "oci://"+r.Address+"/vm/many:v1", o)

	o.PasswordFile = passwordFile(t, "wrong")
	if _, err := Open(t.Context(), dest, o); cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" {
		t.Errorf("wrong password: %v", err)
	}
	o.CACert = ""
	if _, err := Open(t.Context(), strings.Replace(dest, "oci:", "oci+http:", 1), o); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("without TLS: %v", err)
	}
}

// TestOCIRealCut cuts the connection; the Docker registry forgets an upload
// that was cut within a chunk.
func TestOCIRealCut(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	for range 3 {
		cutter := rig.NewCutter(t, r.Address)
		cut := rand.Int64N(servertest.MixedSize)
		cutter.CutAfter(cut, rand.Int64N(servertest.MixedSize), 1<<20)
		dest := "oci://" + cutter.Address + "/vm/cut"
		log := &servertest.Log{}
		if err := export(t.Context(), dest, servers.Options{Force: true}, log); err != nil {
			t.Fatalf("cut after %d: %v; said %q", cut, err, log.Said)
		}
		if log.SentBytes.Load() != servertest.MixedData || cutter.Cuts() == 0 {
			t.Errorf("cut after %d, %d times: %d bytes counted, want %d", cut, cutter.Cuts(), log.SentBytes.Load(), servertest.MixedData)
		}
		checkImage(t, dest, servers.Options{})
	}
}

// TestOCIRealInterrupt interrupts a run between chunks, as an interrupt does
// that leaves time for the last one; the next run goes on.
func TestOCIRealInterrupt(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	dest := "oci://" + r.Address + "/vm/interrupted"
	ctx, cancel := context.WithCancel(t.Context())
	log := &servertest.InterruptingLog{Cancel: cancel}
	up, err := Open(ctx, dest, servers.Options{Name: "web.raw"})
	if err != nil {
		t.Fatal(err)
	}
	up.(*upload).chunk, up.(*upload).grace = 2<<20, time.Minute
	if err := up.Send(ctx, servertest.MixedSource(), log); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := up.Close(true); err != nil {
		t.Fatal(err)
	}
	second := &servertest.Log{}
	if err := export(t.Context(), dest, servers.Options{Resume: log.State}, second); err != nil {
		t.Fatal(err)
	}
	if second.KeptBytes.Load() == 0 || second.KeptBytes.Load()+second.SentBytes.Load() != servertest.MixedData {
		t.Errorf("%d bytes kept, %d sent; said %q", second.KeptBytes.Load(), second.SentBytes.Load(), second.Said)
	}
	checkImage(t, dest, servers.Options{})
}

// TestOCIRealKilled kills the registry while it is sent to. Its secret is a new
// one when it starts again, so that it does not know its uploads any more.
func TestOCIRealKilled(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	cutter := rig.NewCutter(t, r.Address)
	cutter.CutAfter(3 << 20)
	dest := "oci://" + cutter.Address + "/vm/killed"
	log := &servertest.Log{}
	if err := export(t.Context(), dest, servers.Options{Retries: -1}, log); cli.ExitCode(err) != cli.ExitServer {
		t.Fatal(err)
	}
	r.Restart(t)
	second := &servertest.Log{}
	if err := export(t.Context(), dest, servers.Options{Resume: log.State}, second); err != nil {
		t.Fatal(err)
	}
	if len(second.Said) == 0 {
		t.Error("nothing was said of beginning anew")
	}
	checkImage(t, dest, servers.Options{})
}

// TestOCIStalls interrupts what a hanging server holds up.
func TestOCIStalls(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	cutter := rig.NewCutter(t, r.Address)
	ctx, cancel := context.WithCancel(t.Context())
	up, err := Open(ctx, "oci://"+cutter.Address+"/vm/stalled", servers.Options{Name: "web.raw"})
	if err != nil {
		t.Fatal(err)
	}
	servertest.CheckStalls(t, ctx, up, func() { cutter.Stall(true); cancel() })
}
