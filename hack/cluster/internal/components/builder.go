package components

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	// progressInterval is how often a running build says that it is still running: cold, the API server alone takes
	// ten minutes on two cores, and CI systems end jobs that are silent for that long.
	progressInterval = 15 * time.Second

	// outputTail bounds what is shown of a failed build.
	outputTail = 4 << 10
)

// Builder finds or builds components.
type Builder struct {
	goMod, goSum []byte
	flags        []string
	cacheDir     string
	assets       string // KUBEBUILDER_ASSETS, may be empty
	progress     io.Writer
}

// NewBuilder returns a Builder for the versions in the given module files. It reads KUBEBUILDER_ASSETS,
// GROUPINFO_CACHE and XDG_CACHE_HOME from the environment.
func NewBuilder(goMod, goSum []byte, progress io.Writer) (*Builder, error) {
	v, err := parseVersion(goMod)
	if err != nil {
		return nil, err
	}
	root, err := cacheRoot(os.Getenv)
	if err != nil {
		return nil, err
	}
	flags := buildFlags(v)
	key := cacheKey(v, append([]string{string(goMod), string(goSum), runtime.GOOS, runtime.GOARCH}, flags...)...)
	return &Builder{
		goMod: goMod, goSum: goSum, flags: flags,
		cacheDir: filepath.Join(root, key),
		assets:   os.Getenv("KUBEBUILDER_ASSETS"),
		progress: progress,
	}, nil
}

// cacheRoot is where this project keeps what must survive a clean checkout.
func cacheRoot(getenv func(string) string) (string, error) {
	if dir := getenv("GROUPINFO_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "groupinfo-operator"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("no cache directory: set GROUPINFO_CACHE or HOME")
	}
	return filepath.Join(home, ".cache", "groupinfo-operator"), nil
}

// Ensure returns a directory that holds the named components, or all of them. It builds only what neither
// KUBEBUILDER_ASSETS nor the cache has.
func (b *Builder) Ensure(ctx context.Context, names []string) (string, error) {
	wanted, err := selectByName(names)
	if err != nil {
		return "", err
	}
	var given, toBuild []Component
	for _, c := range wanted {
		if b.assets != "" && isExecutable(filepath.Join(b.assets, c.Name)) {
			given = append(given, c)
		} else {
			toBuild = append(toBuild, c)
		}
	}
	if len(toBuild) == 0 {
		return filepath.Abs(b.assets)
	}
	if err := b.buildMissing(ctx, toBuild); err != nil {
		return "", err
	}
	if len(given) == 0 {
		return b.cacheDir, nil
	}
	return b.combine(given, toBuild)
}

// buildMissing fills the cache. The lock lets a second caller wait for the first one's result rather than compile the
// same packages beside it.
func (b *Builder) buildMissing(ctx context.Context, wanted []Component) error {
	if len(b.missing(wanted)) == 0 {
		b.say("Kubernetes and etcd: cached")
		return nil
	}
	if err := os.MkdirAll(b.cacheDir, 0o755); err != nil {
		return err
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	missing := b.missing(wanted)
	if len(missing) > 0 {
		b.say("building %d of %d components from source; the first time this takes 10 to 20 minutes, afterwards it is cached",
			len(missing), len(wanted))
	}
	for _, c := range wanted {
		if isExecutable(filepath.Join(b.cacheDir, c.Name)) {
			b.say("%s: cached", c.Name)
			continue
		}
		if err := b.build(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) missing(wanted []Component) []Component {
	var missing []Component
	for _, c := range wanted {
		if !isExecutable(filepath.Join(b.cacheDir, c.Name)) {
			missing = append(missing, c)
		}
	}
	return missing
}

// build compiles one component in a directory that holds nothing but the module files, and moves the result into
// place when it is complete.
func (b *Builder) build(ctx context.Context, c Component) error {
	work, err := os.MkdirTemp(b.cacheDir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for name, content := range map[string][]byte{"go.mod": b.goMod, "go.sum": b.goSum} {
		if err := os.WriteFile(filepath.Join(work, name), content, 0o644); err != nil {
			return err
		}
	}

	out := filepath.Join(work, c.Name)
	args := append([]string{"build", "-o", out}, b.flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, c.Package)...)
	cmd.Dir = work
	// The components run here, whatever the caller is cross-compiling for, and outside any workspace.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	// An interrupt lets go end its compilers and remove its work directory; a kill would leave both behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output

	start := time.Now()
	b.say("%s: building", c.Name)
	stop := b.tick(c.Name, start)
	err = cmd.Run()
	stop()
	if ctx.Err() != nil {
		return fmt.Errorf("build %s: %w", c.Name, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", c.Name, err, tail(output.Bytes(), outputTail))
	}
	if err := os.Rename(out, filepath.Join(b.cacheDir, c.Name)); err != nil {
		return err
	}
	b.say("%s: built in %s", c.Name, seconds(start))
	return nil
}

// tick reports that a build is still running, until the returned function is called.
func (b *Builder) tick(name string, start time.Time) (stop func()) {
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				b.say("%s: building for %s", name, seconds(start))
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// lock waits for other builds into the same cache directory. The kernel drops the lock when its holder ends, however
// it ends.
func (b *Builder) lock(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(b.cacheDir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	lastSaid := time.Time{}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		if time.Since(lastSaid) >= progressInterval {
			b.say("waiting for another build (%s)", seconds(start))
			lastSaid = time.Now()
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// combine links what KUBEBUILDER_ASSETS has and what was built into one directory. It is a directory of its own: a
// link in the cache would outlive the variable.
func (b *Builder) combine(given, built []Component) (string, error) {
	assets, err := filepath.Abs(b.assets)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.cacheDir, "with-"+cacheKey(version{git: "assets"}, assets)[len("kubernetes-"):])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for source, components := range map[string][]Component{assets: given, b.cacheDir: built} {
		for _, c := range components {
			if err := replaceLink(filepath.Join(source, c.Name), filepath.Join(dir, c.Name)); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// replaceLink makes link point to target without a moment in which it is missing.
func replaceLink(target, link string) error {
	if current, err := os.Readlink(link); err == nil && current == target {
		return nil
	}
	temporary := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, link)
}

func (b *Builder) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "cluster: "+format+"\n", args...)
}

func seconds(start time.Time) time.Duration { return time.Since(start).Round(time.Second) }

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// tail returns the last lines of output within a bound.
func tail(output []byte, bound int) []byte {
	if len(output) <= bound {
		return output
	}
	output = output[len(output)-bound:]
	if i := bytes.IndexByte(output, '\n'); i >= 0 {
		output = output[i+1:]
	}
	return output
}
