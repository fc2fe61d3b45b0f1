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
	namespace       = "chat"
	token           = "a-token-for-the-chaos-suite"
)

var (
	env    *testenv.Environment
	binary string
	seed   uint64
)

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

	var err error
	binary, err = gexec.Build("github.com/groupinfo-operator/groupinfo-operator", "-race", "-ldflags=-X main.version=test")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(gexec.CleanupBuildArtifacts)
	env, err = testenv.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
	for _, name := range []string{systemNamespace, namespace} {
		Expect(env.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	}
	// The receivers are the subject; what the controller would project is put in place by hand.
	encoded, err := verifier.New(token).MarshalJSON()
	Expect(err).NotTo(HaveOccurred())
	Expect(env.Client.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: verifier.SecretName},
		Data:       map[string][]byte{verifier.Key(client.ObjectKey{Namespace: namespace, Name: "demo"}): encoded},
	})).To(Succeed())
}, NodeTimeout(5*time.Minute))

// replica is a receiver with a journal of its own, which can be killed and started again.
type replica struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	args   []string
	probes string
	url    string
	kills  int
}

// newReplica starts a receiver. It is ended after the spec.
func newReplica(ctx context.Context) *replica {
	GinkgoHelper()
	kubeconfig, err := env.Kubeconfig("chaos", "system:masters")
	Expect(err).NotTo(HaveOccurred())
	callbacks, probes := testenv.FreeAddress(), testenv.FreeAddress()
	r := &replica{
		probes: probes,
		url:    fmt.Sprintf("http://%s/callbacks/%s/demo/%s", callbacks, namespace, token),
		args: []string{
			"receiver", "--kubeconfig", kubeconfig, "--ack=journal", "--journal-dir", filepath.Join(GinkgoT().TempDir(), "journal"),
			"--callback-bind-address", callbacks, "--health-probe-bind-address", probes, "--metrics-bind-address=0", "--drain=200ms",
		},
	}
	r.start()
	DeferCleanup(r.kill)
	r.awaitReady(ctx)
	return r
}

func (r *replica) start() {
	GinkgoHelper()
	r.cmd = exec.Command(binary, r.args...)
	r.cmd.Stdout, r.cmd.Stderr = GinkgoWriter, GinkgoWriter
	Expect(r.cmd.Start()).To(Succeed())
	ended := make(chan struct{})
	r.ended = ended
	cmd := r.cmd
	go func() {
		defer close(ended)
		// How it ended is for whoever ended it to know.
		_ = cmd.Wait()
	}()
}

// kill ends the process without giving it a chance to do anything.
func (r *replica) kill() {
	GinkgoHelper()
	Expect(r.cmd.Process.Kill()).To(Or(Succeed(), MatchError(os.ErrProcessDone)))
	<-r.ended
	r.kills++
}

func (r *replica) awaitReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func() (int, error) {
		response, err := http.Get("http://" + r.probes + "/readyz")
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}).Should(Equal(http.StatusOK))
}

// under runs the load on the replicas while the faults happen, waits until all that was acknowledged has been applied, and
// compares. It returns the load for its figures.
func under(ctx context.Context, replicas []*replica, faults func(l *load, random *rand.Rand)) *load {
	GinkgoHelper()
	Expect(env.Client.DeleteAllOf(ctx, &openimv1.GroupInfo{}, client.InNamespace(namespace))).To(Succeed())
	l := &load{groups: 20, seed: seed}
	for _, r := range replicas {
		l.urls = append(l.urls, r.url)
	}
	loading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(loading)
	}()
	faults(l, rand.New(rand.NewPCG(seed, 99)))
	stop()
	<-done

	var checked int
	Eventually(ctx, func() ([]string, error) {
		var objects openimv1.GroupInfoList
		if err := env.Client.List(ctx, &objects, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		var wrong []string
		checked, wrong = l.compare(objects.Items)
		return wrong, nil
	}).WithTimeout(2*time.Minute).Should(BeEmpty(), "seed %d", seed)
	kills := 0
	for _, r := range replicas {
		kills += r.kills
	}
	AddReportEntry("figures", fmt.Sprintf("acknowledged %d callbacks (%d words checked), refused %d, unanswered %d, slowest %s, receivers killed %d, lost 0",
		l.acknowledged, checked, l.refused, l.failed, l.slowest.Round(time.Millisecond), kills))
	return l
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
