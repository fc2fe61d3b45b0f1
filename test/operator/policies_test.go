package operator_test

import (
	"context"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

var _ = Describe("Nobody gains rights", Ordered, func() {
	var (
		o *openim
		// somebody may do everything with our objects, and what allow gives them.
		somebody client.Client
		user     string
	)
	BeforeAll(func(ctx SpecContext) {
		kubectl(ctx, "apply", "--server-side", "--kustomize", "config/policies")
		DeferCleanup(func(ctx SpecContext) { kubectl(ctx, "delete", "--kustomize", "config/policies") })
	})
	allow := func(ctx context.Context, rules ...rbacv1.PolicyRule) {
		GinkgoHelper()
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, GenerateName: "somebody-"}, Rules: rules}
		Expect(env.Client.Create(ctx, role)).To(Succeed())
		Expect(env.Client.Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: role.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}},
		})).To(Succeed())
	}
	BeforeEach(func(ctx SpecContext) {
		o = newOpenIM(ctx)
		user = "somebody-in-" + o.namespace
		kubeconfig, err := env.Kubeconfig(user)
		Expect(err).NotTo(HaveOccurred())
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		Expect(err).NotTo(HaveOccurred())
		somebody, err = client.New(config, client.Options{Scheme: env.Client.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		allow(ctx, rbacv1.PolicyRule{APIGroups: []string{openimv1.GroupName}, Resources: []string{"*"}, Verbs: []string{"*"}})
	})
	newSync := func(target openimv1.SyncTarget) *openimv1.GroupSync {
		return &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "sync"}, Spec: openimv1.GroupSyncSpec{Target: target}}
	}
	job := openimv1.SyncTarget{Job: &openimv1.JobTarget{Template: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/crm"}}},
	}}}}}
	configMap := openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{}}

	DescribeTable("by a GroupSync", func(ctx SpecContext, target openimv1.SyncTarget, refusal string, needed rbacv1.PolicyRule) {
		sync := newSync(target)
		// A policy takes effect some time after it was created.
		Eventually(ctx, func() error { return somebody.Create(ctx, newSync(target), client.DryRunAll) }).
			Should(MatchError(ContainSubstring(refusal + o.namespace + ", and you may not")))

		By("a GroupSync of somebody who may")
		Expect(env.Client.Create(ctx, sync)).To(Succeed())
		suspended, labelled := sync.DeepCopy(), sync.DeepCopy()
		suspended.Spec.Suspend = new(true)
		Expect(somebody.Patch(ctx, suspended, client.MergeFrom(sync))).To(MatchError(ContainSubstring(refusal)))
		labelled.Labels = map[string]string{"team": "blue"}
		Expect(somebody.Patch(ctx, labelled, client.MergeFrom(sync))).To(Succeed(), "the spec is as it was, as when the garbage collector updates it")
		Expect(somebody.Delete(ctx, sync, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		Eventually(ctx, func() error { return env.Client.Get(ctx, client.ObjectKeyFromObject(sync), sync) }).ShouldNot(Succeed())

		By("one who may do all of it but create")
		needed.Verbs = slices.DeleteFunc(needed.Verbs, func(verb string) bool { return verb == "create" })
		allow(ctx, needed)
		Consistently(ctx, func() error { return somebody.Create(ctx, newSync(target), client.DryRunAll) }).WithTimeout(time.Second).
			Should(MatchError(ContainSubstring(refusal)))

		By("one who may create as well")
		needed.Verbs = []string{"create"}
		allow(ctx, needed)
		Eventually(ctx, func() error { return somebody.Create(ctx, newSync(target)) }).Should(Succeed())
	},
		Entry("with a Job target", job, "creates and deletes Jobs in ",
			rbacv1.PolicyRule{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: []string{"create", "delete"}}),
		Entry("with a ConfigMap target", configMap, "creates and updates ConfigMaps in ",
			rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "update", "delete"}}),
	)

	It("by an OpenIMServer that names a Secret", func(ctx SpecContext) {
		newServer := func(secret string) *openimv1.OpenIMServer {
			server := &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "second"}}
			server.Spec.Callbacks.SecretRef.Name = secret
			return server
		}
		Eventually(ctx, func() error { return somebody.Create(ctx, newServer("precious"), client.DryRunAll) }).
			Should(MatchError(ContainSubstring("makes the operator read the Secret precious, and you may not")))
		Expect(somebody.Create(ctx, newServer(""))).To(Succeed(), "it names none")
		server := newServer("")
		Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(server), server)).To(Succeed())
		change := server.DeepCopy()
		change.Spec.Callbacks.SecretRef.Name = "precious"
		Expect(somebody.Patch(ctx, change, client.MergeFrom(server), client.DryRunAll)).To(MatchError(ContainSubstring("precious")))

		allow(ctx, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"precious"}, Verbs: []string{"get"}})
		Eventually(ctx, func() error {
			return somebody.Patch(ctx, change.DeepCopy(), client.MergeFrom(server), client.DryRunAll)
		}).Should(Succeed())
		Expect(somebody.Patch(ctx, withSecret(change, "other"), client.MergeFrom(server), client.DryRunAll)).To(MatchError(ContainSubstring("Secret other")))
	})
})

func withSecret(server *openimv1.OpenIMServer, name string) *openimv1.OpenIMServer {
	changed := server.DeepCopy()
	changed.Spec.Callbacks.SecretRef.Name = name
	return changed
}
