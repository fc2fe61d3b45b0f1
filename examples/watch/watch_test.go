package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/onsi/gomega/gbytes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func TestWatch(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(10 * time.Millisecond)
	RunSpecs(t, "watch")
}

// cluster is an administrator's client of a real API server with our CRDs.
var (
	env     *envtest.Environment
	cluster client.Client
)

var _ = BeforeSuite(func() {
	Expect(os.Getenv("KUBEBUILDER_ASSETS")).NotTo(BeEmpty(),
		"run the tests with make test, or export KUBEBUILDER_ASSETS=$(hack/cluster.sh build)")
	env = &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join("..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing: true,
	}
	config, err := env.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(env.Stop()).To(Succeed()) })
	scheme := runtime.NewScheme()
	Expect(openimv1.AddToScheme(scheme)).To(Succeed())
	cluster, err = client.New(config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
})

// start runs the program until the spec ends, and returns what it prints.
func start() *gbytes.Buffer {
	GinkgoHelper()
	out := gbytes.NewBuffer()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- watch(ctx, env.Config, out) }()
	DeferCleanup(func() {
		stop()
		Eventually(ended).Should(Receive(BeNil()))
	})
	return out
}

var _ = Describe("watch", func() {
	It("prints a line for each change of a spec, and none for one of the history, the labels or the status", func(ctx SpecContext) {
		group := &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "g-1"},
			Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g-1"},
			History:    []openimv1.HistoryEntry{{Stamp: "a", Time: metav1.Now(), Command: "created"}},
		}
		Expect(cluster.Create(ctx, group)).To(Succeed())
		out := start()
		Eventually(out).Should(gbytes.Say(`^default/g-1 "g-1" \(name not told\)\n`))

		group.Spec.GroupName = new("First")
		Expect(cluster.Update(ctx, group)).To(Succeed())
		Eventually(out).Should(gbytes.Say(`^default/g-1 "g-1" "First"\n`))

		generation := group.Generation
		group.History = append([]openimv1.HistoryEntry{{Stamp: "b", Time: metav1.Now(), Command: "told again"}}, group.History...)
		Expect(cluster.Update(ctx, group)).To(Succeed())
		Expect(group.Generation).To(BeNumerically(">", generation), "the generation does not tell history from spec")
		group.Labels = map[string]string{"team": "a"}
		Expect(cluster.Update(ctx, group)).To(Succeed())
		group.Status.ObservedGeneration = group.Generation
		Expect(cluster.Status().Update(ctx, group)).To(Succeed())

		// Changes are seen in their order, one at a time, so a line for any of the three would stand before this one.
		marker := &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "marker"},
			Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "marker\n", GroupName: new("")},
		}
		Expect(cluster.Create(ctx, marker)).To(Succeed())
		Eventually(out).Should(gbytes.Say(`^default/marker "marker\\n" ""\n`))

		Expect(cluster.Delete(ctx, group)).To(Succeed())
		Eventually(out).Should(gbytes.Say(`^default/g-1 "g-1" deleted\n`))
	}, SpecTimeout(time.Minute))
})
