package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/onsi/gomega/gexec"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
)

const (
	systemNamespace = "groupinfo-operator-system"
	token           = "a-token-for-the-chaos-suite"
)

var (
	env *testenv.Environment
	// current and newer are the programs, of two versions.
	current, newer string
	seed           uint64
	// figures are what the specs have shown.
	figures []figure
	// namespaces counts those that specs have taken.
	namespaces int
)

// figure is what one spec has shown.
type figure struct {
	spec         string
	acknowledged int
	// checked counts the values that were compared.
	checked int
	refused int
	failed  int
	slowest time.Duration
	// crashes and restarts count the processes that were killed, and told to end.
	crashes, restarts int
	lost              int
	// control: it shows what is lost without what the others show.
	control bool
}

func TestChaos(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(time.Minute)
	SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "chaos")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	seed = uint64(GinkgoRandomSeed())
	if given := os.Getenv("CHAOS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		Expect(err).NotTo(HaveOccurred())
	}
	AddReportEntry("seed", seed)

	current, newer = build("test"), build("test-newer")
	DeferCleanup(gexec.CleanupBuildArtifacts)
	var err error
	env, err = testenv.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
	Expect(env.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: systemNamespace}})).To(Succeed())
	Expect(env.Client.Create(ctx, &corev1.Secret{ObjectMeta: verifiers})).To(Succeed())
}, NodeTimeout(10*time.Minute))

// verifiers is the Secret from which receivers know the tokens. The receivers are the subject; what the controller would
// project is put in place by hand.
var verifiers = metav1.ObjectMeta{Namespace: systemNamespace, Name: verifier.SecretName}

// build builds the operator with the race detector, which watches the processes as well.
func build(version string) string {
	GinkgoHelper()
	path, err := gexec.Build("github.com/groupinfo-operator/groupinfo-operator", "-race", "-ldflags=-X main.version="+version)
	Expect(err).NotTo(HaveOccurred())
	return path
}

// newNamespace creates a namespace whose callbacks are accepted.
func newNamespace(ctx context.Context) string {
	GinkgoHelper()
	namespaces++
	name := fmt.Sprintf("chat-%d", namespaces)
	Expect(env.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	encoded, err := verifier.New(token).MarshalJSON()
	Expect(err).NotTo(HaveOccurred())
	secret := &corev1.Secret{}
	Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: verifiers.Namespace, Name: verifiers.Name}, secret)).To(Succeed())
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	secret.Data[verifier.Key(client.ObjectKey{Namespace: name, Name: "demo"})] = encoded
	Expect(env.Client.Update(ctx, secret)).To(Succeed())
	return name
}

// replica is a receiver with a journal and a way to the API server of its own, which can be killed and started again.
type replica struct {
	// program is the version that the next start runs.
	program string
	// drain is how long it goes on receiving when it was told to end.
	drain time.Duration

	namespace         string
	api               *testenv.Proxy
	journal           string
	kubeconfig        string
	callbacks, probes string
	cmd               *exec.Cmd
	ended             chan struct{}
	crashes, restarts int
}

// newReplicas starts as many receivers in a namespace of their own. They end with the spec.
func newReplicas(ctx context.Context, number int, options ...func(*replica)) []*replica {
	GinkgoHelper()
	namespace := newNamespace(ctx)
	var replicas []*replica
	for range number {
		proxy, err := env.Proxy()
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(proxy.Close)
		kubeconfig, err := proxy.Kubeconfig(env, "chaos", "system:masters")
		Expect(err).NotTo(HaveOccurred())
		r := &replica{
			program: current, drain: 200 * time.Millisecond, namespace: namespace, api: proxy, kubeconfig: kubeconfig,
			journal: filepath.Join(GinkgoT().TempDir(), "journal"), callbacks: testenv.FreeAddress(), probes: testenv.FreeAddress(),
		}
		for _, option := range options {
			option(r)
		}
		replicas = append(replicas, r)
		r.start()
		DeferCleanup(r.end)
	}
	for _, r := range replicas {
		r.awaitReady(ctx)
	}
	return replicas
}

// url is the callback URL, as in webhooks.yml.
func (r *replica) url() string { return callbackURL(r.callbacks, r.namespace) }

func callbackURL(address, namespace string) string {
	return fmt.Sprintf("http://%s/callbacks/%s/demo/%s", address, namespace, token)
}

func (r *replica) start() {
	GinkgoHelper()
	cmd := exec.Command(r.program,
		"receiver", "--kubeconfig", r.kubeconfig, "--ack=journal", "--journal-dir", r.journal,
		"--callback-bind-address", r.callbacks, "--health-probe-bind-address", r.probes, "--metrics-bind-address=0",
		"--drain", r.drain.String(),
	)
	// A race that is found ends the process, and so the spec.
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1", "POD_NAME="+filepath.Base(filepath.Dir(r.journal)))
	cmd.Stdout, cmd.Stderr = GinkgoWriter, GinkgoWriter
	Expect(cmd.Start()).To(Succeed())
	ended := make(chan struct{})
	r.cmd, r.ended = cmd, ended
	go func() {
		defer close(ended)
		// How it ended is for whoever ended it to know.
		_ = cmd.Wait()
	}()
}

// kill ends the process without giving it a chance to do anything.
func (r *replica) kill() {
	GinkgoHelper()
	Expect(r.ended).NotTo(BeClosed(), "the receiver has ended by itself")
	Expect(r.cmd.Process.Kill()).To(Succeed())
	<-r.ended
	Expect(r.cmd.ProcessState.String()).To(Equal("signal: killed"), "the receiver has ended by itself")
	r.crashes++
}

// terminate tells the process to end, and waits until it has ended well.
func (r *replica) terminate(ctx context.Context) {
	GinkgoHelper()
	Expect(r.ended).NotTo(BeClosed(), "the receiver has ended by itself")
	Expect(r.cmd.Process.Signal(syscall.SIGTERM)).To(Succeed())
	Eventually(ctx, r.ended).Should(BeClosed())
	Expect(r.cmd.ProcessState.ExitCode()).To(BeZero(), "a clean end")
	r.restarts++
}

// end ends the process after a spec, in whatever state the spec has left it.
func (r *replica) end() {
	// It fails if the process has ended.
	_ = r.cmd.Process.Kill()
	<-r.ended
}

func (r *replica) awaitReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(ctx context.Context) int { return probe(ctx, http.DefaultClient, r.probes) }).
		WithPolling(100 * time.Millisecond).Should(Equal(http.StatusOK))
}

// probe asks for readiness, and returns the status, or 0 if there is no answer.
func probe(ctx context.Context, client *http.Client, address string) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return 0
	}
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

// under runs OpenIM's load on the replicas while the faults happen, and compares.
func under(ctx context.Context, replicas []*replica, faults func(l *load, random *rand.Rand)) *load {
	GinkgoHelper()
	l := &load{name: "g", groups: 20, workers: openIMWorkers, seed: seed}
	for _, r := range replicas {
		l.urls = append(l.urls, r.url())
	}
	sending(ctx, []*load{l}, func() { faults(l, rand.New(rand.NewPCG(seed, 99))) })
	settle(ctx, replicas, l)
	return l
}

// sending runs the loads while something happens, and returns when everything that was sent has come to an end.
func sending(ctx context.Context, loads []*load, happens func()) {
	GinkgoHelper()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var done []chan struct{}
	for _, l := range loads {
		ended := make(chan struct{})
		done = append(done, ended)
		go func() {
			defer close(ended)
			l.run(ctx)
		}()
	}
	happens()
	stop()
	for _, ended := range done {
		<-ended
	}
}

// settle waits until every acknowledged change is in the API server as it was told, notes the figures, and returns the
// objects.
func settle(ctx context.Context, replicas []*replica, loads ...*load) []openimv1.GroupInfo {
	GinkgoHelper()
	var objects openimv1.GroupInfoList
	f := figure{spec: CurrentSpecReport().LeafNodeText}
	Eventually(ctx, func() ([]string, error) {
		objects = openimv1.GroupInfoList{}
		if err := env.Client.List(ctx, &objects, client.InNamespace(replicas[0].namespace)); err != nil {
			return nil, err
		}
		var wrong []string
		f.checked = 0
		for _, l := range loads {
			checked, problems := l.compare(objects.Items)
			f.checked += checked
			wrong = append(wrong, problems...)
		}
		f.lost = len(wrong)
		return wrong, nil
	}).WithTimeout(2*time.Minute).WithPolling(200*time.Millisecond).Should(BeEmpty(), "seed %d", seed)
	for _, l := range loads {
		f.acknowledged += l.acknowledged()
		f.refused += l.refused
		f.failed += l.failed
		f.slowest = max(f.slowest, l.slowest)
	}
	for _, r := range replicas {
		f.crashes += r.crashes
		f.restarts += r.restarts
	}
	// A spec may do the same several times.
	if last := len(figures) - 1; last >= 0 && figures[last].spec == f.spec {
		figures[last].add(f)
	} else {
		figures = append(figures, f)
	}
	return objects.Items
}

// The figures of all specs, as they stand in docs/reliability.md. `go test -v` shows them.
var _ = ReportAfterSuite("figures", func(report Report) {
	if len(figures) == 0 {
		return
	}
	var out strings.Builder
	total := figure{spec: "all, without the control"}
	fmt.Fprintf(&out, "\nseed %d, %s\n\n", seed, report.RunTime.Round(time.Second))
	fmt.Fprintln(&out, "| what | acknowledged | values compared | refused | unanswered | slowest reply | crashes of receivers | restarts | lost |")
	fmt.Fprintln(&out, "|---|---|---|---|---|---|---|---|---|")
	for _, f := range figures {
		out.WriteString(f.row())
		if f.control {
			continue
		}
		total.add(f)
	}
	out.WriteString(total.row())
	_, err := os.Stdout.WriteString(out.String())
	Expect(err).NotTo(HaveOccurred())
})

func (f *figure) add(other figure) {
	f.acknowledged += other.acknowledged
	f.checked += other.checked
	f.refused += other.refused
	f.failed += other.failed
	f.slowest = max(f.slowest, other.slowest)
	f.crashes += other.crashes
	f.restarts += other.restarts
	f.lost += other.lost
}

func (f *figure) row() string {
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %s | %d | %d | %d |\n", f.spec, f.acknowledged, f.checked, f.refused, f.failed,
		f.slowest.Round(time.Millisecond), f.crashes, f.restarts, f.lost)
}

// long stretches a duration where the long form was asked for.
func long(short time.Duration) time.Duration {
	if os.Getenv("TEST_LONG") != "" {
		return 20 * short
	}
	return short
}

// pause lets time pass while faults have their effect; nothing can be polled for.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// signal sends a signal to a component of the control plane.
func signal(component string, s syscall.Signal) {
	GinkgoHelper()
	Expect(env.Signal(component, s)).To(Succeed())
}
