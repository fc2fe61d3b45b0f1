package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
)

const (
	systemNamespace = "groupinfo-operator-system"
	serverName      = "demo"
	token           = "a-token-for-the-benchmark"

	// backgroundWriters patch objects of their own, which keeps the API server busy.
	backgroundWriters = 32
)

// What answers callbacks. The names are those of the namespaces that hold the groups of each, and of --ack.
const (
	modeJournal   = "journal"
	modeAPIServer = "apiserver"
	modeNaive     = "naive"
)

var (
	modes = []string{modeJournal, modeAPIServer, modeNaive}
	// connections of the load: OpenIM has two workers.
	connections = []int{2, 16, 64}
	// components are the processes of the control plane.
	components = []string{"kube-apiserver", "etcd"}
)

// bench is a running benchmark.
type bench struct {
	options
	out io.Writer
	// work is a directory on a disk and holds everything that is written.
	work       string
	self       string
	kubeconfig string
	env        *testenv.Environment
	targets    map[string]*target
	pids       []int
	template   *template
	results    results
	begun      time.Time
}

// benchmark measures, and prints the report.
func benchmark(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	b := &bench{options: o, out: stderr, targets: map[string]*target{}, begun: time.Now()}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp(o.dir, "groupinfo-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if b.results.machine, err = describe(ctx, b.work); err != nil {
		return err
	}
	b.results.options = o
	stop, err := b.start(ctx)
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	if o.profile != "" {
		return b.profileReceiver(ctx)
	}
	if err := b.rounds(ctx); err != nil {
		return err
	}
	b.results.took = time.Since(b.begun)
	return deliver(b.results.markdown(), o.update, stdout)
}

func (b *bench) say(format string, args ...any) {
	// Progress that cannot be told changes nothing.
	_, _ = fmt.Fprintf(b.out, "==> %4.0f s  %s\n", time.Since(b.begun).Seconds(), fmt.Sprintf(format, args...))
}

// start starts everything that is measured. What it returns ends it again, also after an error.
func (b *bench) start(ctx context.Context) (stop func() error, err error) {
	stop = func() error {
		for _, t := range b.targets {
			t.kill()
		}
		if b.env == nil {
			return nil
		}
		// A process that stands still does not end.
		return errors.Join(b.env.Signal(components[0], syscall.SIGCONT), b.env.Stop())
	}
	b.say("starting etcd and kube-apiserver")
	// envtest puts etcd's files where temporary files go, which may be in memory.
	if err := os.Setenv("TMPDIR", b.work); err != nil {
		return stop, err
	}
	if b.env, err = testenv.Start(testenv.SyncedEtcd); err != nil {
		return stop, err
	}
	for _, component := range components {
		pid, err := b.env.PID(component)
		if err != nil {
			return stop, err
		}
		b.pids = append(b.pids, pid)
	}
	if b.kubeconfig, err = b.env.Kubeconfig("receiver", "system:masters"); err != nil {
		return stop, err
	}
	if err := b.prepare(ctx); err != nil {
		return stop, err
	}
	b.say("building the operator")
	program := filepath.Join(b.work, "groupinfo-operator")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, ".")
	build.Dir, build.Env = b.env.Root, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return stop, fmt.Errorf("build the operator: %w: %s", err, output)
	}
	if b.profile != "" {
		return stop, nil
	}
	return stop, b.startTargets(ctx, program)
}

// prepare creates the namespaces, and in place of the controller what tells the receivers of the tokens.
func (b *bench) prepare(ctx context.Context) error {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: verifier.SecretName},
		Data:       map[string][]byte{},
	}
	for _, name := range append([]string{systemNamespace, backgroundNamespace, bareNamespace}, modes...) {
		if err := b.env.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
		encoded, err := verifier.New(token).MarshalJSON()
		if err != nil {
			return err
		}
		secret.Data[verifier.Key(types.NamespacedName{Namespace: name, Name: serverName})] = encoded
	}
	return b.env.Client.Create(ctx, secret)
}

// startTargets starts what answers callbacks, and lets each know all groups: later callbacks are updates.
func (b *bench) startTargets(ctx context.Context, program string) error {
	for _, mode := range []string{modeJournal, modeAPIServer} {
		if _, err := b.receiver(ctx, mode, program); err != nil {
			return err
		}
	}
	address := testenv.FreeAddress()
	naive := &target{name: modeNaive, namespace: modeNaive, url: "http://" + address}
	b.targets[modeNaive] = naive
	err := naive.start(ctx, b.work, address, b.self, roleNaive, "-kubeconfig", b.kubeconfig, "-address", address, "-namespace", modeNaive)
	if err != nil {
		return err
	}
	for _, mode := range modes {
		if err := b.tellEach(ctx, b.targets[mode], "g", b.groups); err != nil {
			return err
		}
	}
	if err := b.drain(ctx); err != nil {
		return err
	}
	b.template, err = b.newTemplate(ctx)
	return err
}

// processes are those whose processor time counts: the target, kube-apiserver and etcd.
func (b *bench) processes(t *target) ([]int, error) {
	if t.cmd == nil || t.cmd.Process == nil {
		return nil, errors.New(t.name + " does not run")
	}
	return append([]int{t.cmd.Process.Pid}, b.pids...), nil
}

// drain waits until everything that was acknowledged is in the API server, so that what follows does not compete with it.
func (b *bench) drain(ctx context.Context) error {
	t := b.targets[modeJournal]
	return t.poll(ctx, 2*time.Minute, func(ctx context.Context) (bool, error) {
		n, err := t.journalled(ctx)
		return n == 0, err
	})
}

// rounds measures everything once in each round.
func (b *bench) rounds(ctx context.Context) error {
	for round := range b.runs {
		for _, p := range b.phases {
			before := loadAverage()
			b.say("round %d of %d: %s (load average %s)", round+1, b.runs, p, before)
			var err error
			switch p {
			case phaseRaw:
				err = b.rawRound(ctx)
			case phaseDistinct:
				err = b.distinctRound(ctx, round)
			default:
				err = b.callbackRound(ctx, p, round)
			}
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", p, round+1, err)
			}
			b.results.loads = append(b.results.loads, loadRow{round + 1, p, before, loadAverage()})
		}
	}
	return nil
}

func (b *bench) rawRound(ctx context.Context) error {
	size, err := recordBytes(b.work)
	if err != nil {
		return err
	}
	b.results.recordBytes = size
	for _, c := range rawConfigurations {
		rate, err := raw(ctx, b.work, c.kind, c.writers, size, min(b.window, time.Second))
		if err != nil {
			return err
		}
		b.results.addRaw(c, rate)
	}
	return nil
}

// callbackRound measures every target with every number of connections.
func (b *bench) callbackRound(ctx context.Context, p phase, round int) error {
	for _, n := range connections {
		// Whoever comes first in one round comes last in the next.
		order := slices.Clone(modes)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, mode := range order {
			if err := b.callbacks(ctx, p, b.targets[mode], n); err != nil {
				return fmt.Errorf("%s, %d connections: %w", mode, n, err)
			}
		}
	}
	return nil
}

// callbacks measures one target with one number of connections.
func (b *bench) callbacks(ctx context.Context, p phase, t *target, n int) error {
	window := b.window
	end := func() (perSecond float64, err error) { return 0, nil }
	switch p {
	case phaseBackground:
		end = b.background(ctx)
	case phaseStopped:
		if t.name != modeJournal {
			// There is nothing to see for long.
			window = min(window, time.Second)
		}
		if err := b.env.Signal(components[0], syscall.SIGSTOP); err != nil {
			return err
		}
		end = func() (float64, error) { return 0, b.resume(ctx) }
	}
	row, err := b.observe(ctx, t, n, window)
	perSecond, endErr := end()
	row.background = perSecond
	if err := errors.Join(err, endErr); err != nil {
		return err
	}
	b.say("  %-9s %2d connections: %7.0f/s, p50 %.2f ms, p99 %.2f ms, others %d", t.name, n, row.rate(), row.P50, row.P99, row.Others)
	b.results.addRun(configuration{p, t.name, n}, row)
	if t.name == modeJournal {
		return b.drain(ctx)
	}
	return nil
}

// observe measures the target, and the commits of its journal if it has one.
func (b *bench) observe(ctx context.Context, t *target, n int, window time.Duration) (row measurement, err error) {
	if t.name != modeJournal {
		row.sample, row.cpu, err = b.measure(ctx, t, n, b.warmUp, window)
		return row, err
	}
	secondsBefore, countBefore, err := t.commits(ctx)
	if err != nil {
		return row, err
	}
	if row.sample, row.cpu, err = b.measure(ctx, t, n, b.warmUp, window); err != nil {
		return row, err
	}
	seconds, count, err := t.commits(ctx)
	row.commit = 1000 * (seconds - secondsBefore) / max(1, count-countBefore)
	return row, err
}

// resume lets the API server go on, and waits until it does.
func (b *bench) resume(ctx context.Context) error {
	if err := b.env.Signal(components[0], syscall.SIGCONT); err != nil {
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return b.env.Client.Get(ctx, types.NamespacedName{Name: systemNamespace}, &corev1.Namespace{}) == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for the API server to go on: %w", err)
	}
	return nil
}

const backgroundNamespace = "background"

// background keeps the API server busy until stop is called, which returns how many writes per second it took.
func (b *bench) background(ctx context.Context) (stop func() (perSecond float64, err error)) {
	ctx, cancel := context.WithCancel(ctx)
	// What is in flight at the end is let through: client-go logs what is not.
	writing := context.WithoutCancel(ctx)
	var written atomic.Int64
	failures := make([]error, backgroundWriters)
	var writers sync.WaitGroup
	begun := time.Now()
	for writer := range backgroundWriters {
		writers.Go(func() {
			object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: backgroundNamespace, Name: "writer-" + strconv.Itoa(writer)}}
			// It exists from the second time on.
			err := client.IgnoreAlreadyExists(b.env.Client.Create(writing, object.DeepCopy()))
			for n := 0; err == nil && ctx.Err() == nil; n++ {
				patch := fmt.Appendf(nil, `{"data":{"n":"%d"}}`, n)
				err = b.env.Client.Patch(writing, object, client.RawPatch(types.MergePatchType, patch))
				written.Add(1)
			}
			failures[writer] = err
		})
	}
	return func() (float64, error) {
		cancel()
		writers.Wait()
		return float64(written.Load()) / time.Since(begun).Seconds(), errors.Join(failures...)
	}
}

// profileReceiver writes CPU profiles of a receiver with a journal, which is the operator within this program: with the
// applier at work, and without it because the API server stands still.
func (b *bench) profileReceiver(ctx context.Context) error {
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	file := filepath.Join(b.work, "cpu.prof")
	t, err := b.receiver(ctx, modeJournal, b.self, roleProfiled, file)
	if err != nil {
		return err
	}
	if err := b.tellEach(ctx, t, "g", b.groups); err != nil {
		return err
	}
	for _, p := range []phase{phaseQuiet, phaseStopped} {
		for _, n := range connections {
			if err := b.drain(ctx); err != nil {
				return err
			}
			if err := b.profileLoad(ctx, p, t, n, file); err != nil {
				return fmt.Errorf("%s, %d connections: %w", p, n, err)
			}
		}
	}
	for _, c := range []change{changeCreate, changeUpdate} {
		if err := b.drain(ctx); err != nil {
			return err
		}
		row, err := b.apply(ctx, "d-", func() error { return t.cmd.Process.Signal(syscall.SIGUSR1) })
		if err := errors.Join(err, b.keepProfile(ctx, t, file, fmt.Sprintf("applier-%s", c))); err != nil {
			return err
		}
		b.say("  applier, %s: %.0f/s, %.0f µs of processor time each", c, row.rate, 1e6*row.cpu[0])
	}
	return nil
}

// profileLoad profiles the receiver under one load.
func (b *bench) profileLoad(ctx context.Context, p phase, t *target, n int, file string) (err error) {
	if p == phaseStopped {
		if err := b.env.Signal(components[0], syscall.SIGSTOP); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.resume(ctx)) }()
	}
	if err := t.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	s, cpu, err := b.measure(ctx, t, n, b.warmUp, b.window)
	name := fmt.Sprintf("receiver-%s-%d", strings.ReplaceAll(string(p), " ", "-"), n)
	if err := errors.Join(err, b.keepProfile(ctx, t, file, name)); err != nil {
		return err
	}
	b.say("  %s, %d connections: %.0f/s, p50 %.2f ms, %.0f µs of processor time each", p, n, s.rate(), s.P50, 1e6*cpu[0]/float64(max(1, s.Acks)))
	return nil
}

// keepProfile ends a profile, which the target puts into the file, and keeps it under a name.
func (b *bench) keepProfile(ctx context.Context, t *target, file, name string) error {
	if err := t.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	kept := filepath.Join(b.profile, name+".prof")
	// A profile is written when it ends, which takes a moment.
	return t.poll(ctx, 10*time.Second, func(context.Context) (bool, error) {
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		b.say("wrote %s", kept)
		return true, errors.Join(err, os.Remove(file), os.WriteFile(kept, content, 0o644))
	})
}

// openimv1Scheme has the types that are read and written here.
func openimv1Scheme() (*kruntime.Scheme, error) {
	scheme := kruntime.NewScheme()
	return scheme, errors.Join(corev1.AddToScheme(scheme), openimv1.AddToScheme(scheme))
}
