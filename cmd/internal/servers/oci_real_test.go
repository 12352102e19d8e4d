package servers

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/integration/rig"
)

// registryOptions are the login, and the certificates, of a real registry.
func registryOptions(t *testing.T, r *rig.RegistryServer) Options {
	o := Options{User: r.User, PasswordFile: passwordFile(t, r.Password)}
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
	if err := ociExport(t.Context(), dest, o, &testLog{}); err != nil {
		t.Fatal(err)
	}
	checkOCI(t, dest, o)
	if err := ociExport(t.Context(), dest, o, &testLog{}); cli.ExitCode(err) != cli.ExitExists {
		t.Errorf("again: %v, want that it exists", err)
	}
	o.Force = true
	if err := ociExport(t.Context(), dest, o, &testLog{}); err != nil {
		t.Errorf("with force: %v", err)
	}
	// All go on; one of them is there in the end.
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if err := ociExport(t.Context(), "oci://"+r.Address+"/vm/many:v1", o, &testLog{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	checkOCI(t, "oci://"+r.Address+"/vm/many:v1", o)

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
		cut := rand.Int64N(ociTestSize)
		cutter.CutAfter(cut, rand.Int64N(ociTestSize), 1<<20)
		dest := "oci://" + cutter.Address + "/vm/cut"
		log := &testLog{}
		if err := ociExport(t.Context(), dest, Options{Force: true}, log); err != nil {
			t.Fatalf("cut after %d: %v; said %q", cut, err, log.said)
		}
		if log.sent.Load() != ociTestData || cutter.Cuts() == 0 {
			t.Errorf("cut after %d, %d times: %d bytes counted, want %d", cut, cutter.Cuts(), log.sent.Load(), ociTestData)
		}
		checkOCI(t, dest, Options{})
	}
}

// TestOCIRealInterrupt interrupts a run between chunks, as an interrupt does
// that leaves time for the last one; the next run goes on.
func TestOCIRealInterrupt(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	dest := "oci://" + r.Address + "/vm/interrupted"
	ctx, cancel := context.WithCancel(t.Context())
	log := &interruptingLog{cancel: cancel}
	up, err := Open(ctx, dest, Options{Name: "web.raw"})
	if err != nil {
		t.Fatal(err)
	}
	up.(*ociUpload).chunk, up.(*ociUpload).grace = 2<<20, time.Minute
	if err := up.Send(ctx, ociTestSource(), log); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := up.Close(true); err != nil {
		t.Fatal(err)
	}
	second := &testLog{}
	if err := ociExport(t.Context(), dest, Options{Resume: log.state}, second); err != nil {
		t.Fatal(err)
	}
	if second.kept.Load() == 0 || second.kept.Load()+second.sent.Load() != ociTestData {
		t.Errorf("%d bytes kept, %d sent; said %q", second.kept.Load(), second.sent.Load(), second.said)
	}
	checkOCI(t, dest, Options{})
}

// interruptingLog interrupts when data is sent.
type interruptingLog struct {
	testLog
	cancel context.CancelFunc
}

func (l *interruptingLog) Sent(n int64) {
	l.testLog.Sent(n)
	if n > 0 {
		l.cancel()
	}
}

// TestOCIRealKilled kills the registry while it is sent to. Its secret is a new
// one when it starts again, so that it does not know its uploads any more.
func TestOCIRealKilled(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	cutter := rig.NewCutter(t, r.Address)
	cutter.CutAfter(3 << 20)
	dest := "oci://" + cutter.Address + "/vm/killed"
	log := &testLog{}
	if err := ociExport(t.Context(), dest, Options{Retries: -1}, log); cli.ExitCode(err) != cli.ExitServer {
		t.Fatal(err)
	}
	r.Restart(t)
	second := &testLog{}
	if err := ociExport(t.Context(), dest, Options{Resume: log.state}, second); err != nil {
		t.Fatal(err)
	}
	if len(second.said) == 0 {
		t.Error("nothing was said of beginning anew")
	}
	checkOCI(t, dest, Options{})
}

// TestOCIStalls interrupts what a hanging server holds up.
func TestOCIStalls(t *testing.T) {
	t.Parallel()
	r := rig.DockerRegistry(t, rig.RegistryOptions{})
	cutter := rig.NewCutter(t, r.Address)
	ctx, cancel := context.WithCancel(t.Context())
	up, err := Open(ctx, "oci://"+cutter.Address+"/vm/stalled", Options{Name: "web.raw"})
	if err != nil {
		t.Fatal(err)
	}
	log := &interruptingLog{cancel: func() { cutter.Stall(true); cancel() }}
	begin := time.Now()
	if err := up.Send(ctx, ociTestSource(), log); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(begin); took > hangs {
		t.Errorf("ended after %v", took)
	}
	begin = time.Now()
	if err := up.Close(false); err == nil {
		t.Error("nothing is said of what is left over")
	}
	if took := time.Since(begin); took > hangs {
		t.Errorf("closed after %v", took)
	}
}
