package operator_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/onsi/gomega/gexec"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/groupinfo-operator/groupinfo-operator/internal/testenv"
)

const (
	systemNamespace = "groupinfo-operator-system"
	controllerUser  = "system:serviceaccount:" + systemNamespace + ":groupinfo-operator-controller"
	receiverUser    = "system:serviceaccount:" + systemNamespace + ":groupinfo-operator-receiver"
)

var (
	env        *testenv.Environment
	binary     string
	controller *process
	// receivers are three replicas.
	receivers []*process
)

func TestOperator(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	EnforceDefaultTimeoutsWhenUsingContexts()
	RunSpecs(t, "operator")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	// The race detector watches the processes, too.
	binary, err = gexec.Build("github.com/groupinfo-operator/groupinfo-operator", "-race", "-ldflags=-X main.version=test")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(gexec.CleanupBuildArtifacts)

	env, err = testenv.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
	Expect(env.StartControllerManager()).To(Succeed())

	Expect(env.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: systemNamespace}})).To(Succeed())
	kubectl(ctx, "apply", "--server-side", "--kustomize", "config/rbac")

	controller = start("controller", "controller", controllerUser)
	for i := range 3 {
		receivers = append(receivers, start("receiver", fmt.Sprintf("receiver-%d", i), receiverUser))
	}
	for _, p := range append(receivers, controller) {
		p.awaitReady(ctx)
	}
}, NodeTimeout(5*time.Minute))

// process is one running process of the operator.
type process struct {
	session *gexec.Session
	args    []string
	// name is a receiver's, in the status of OpenIMServers, and journal its directory.
	name, journal string
	// callbacks, probes and metrics are the base URLs of its listeners.
	callbacks, probes, metrics string
}

// start runs the operator with the permissions of the user. It is ended after the suite.
func start(role, name, user string) *process {
	GinkgoHelper()
	kubeconfig, err := env.Kubeconfig(user)
	Expect(err).NotTo(HaveOccurred())
	p := &process{name: name, probes: freeAddress(), metrics: freeAddress()}
	p.args = []string{
		role, "--kubeconfig", kubeconfig,
		"--health-probe-bind-address", p.probes, "--metrics-bind-address", p.metrics, "--zap-devel", "--zap-log-level=debug",
	}
	if role != "controller" {
		p.callbacks, p.journal = freeAddress(), filepath.Join(GinkgoT().TempDir(), "journal")
		p.args = append(p.args, "--callback-bind-address", p.callbacks, "--drain=1s", "--journal-dir", p.journal, "--name", p.name)
	}
	p.session = launch(p.args...)
	DeferCleanup(func(ctx SpecContext) { p.stop(ctx) })
	return p
}

func (p *process) awaitReady(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, func(ctx context.Context) (int, error) {
		return get(ctx, "http://"+p.probes+"/readyz")
	}).Should(Equal(http.StatusOK))
}

// log returns what the process has logged.
func (p *process) log() string { return string(p.session.Err.Contents()) }

// launch runs the operator and keeps its output, which is shown if the spec fails.
func launch(args ...string) *gexec.Session {
	GinkgoHelper()
	session, err := gexec.Start(commandOf(binary, args...), GinkgoWriter, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	return session
}

// kubectl runs kubectl as an administrator, from the root of the checkout, and returns what it prints.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	cmd, err := env.Kubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	output, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "kubectl %s: %s", strings.Join(args, " "), output)
	return string(output)
}

func testdata(name string) []byte {
	GinkgoHelper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	Expect(err).NotTo(HaveOccurred())
	return content
}

func formatted(format string, args ...any) []byte { return fmt.Appendf(nil, format, args...) }
