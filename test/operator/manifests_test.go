package operator_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

var _ = Describe("What is shipped", func() {
	It("explains itself: kubectl explain reads like documentation", func(ctx SpecContext) {
		Expect(kubectl(ctx, "explain", "groupinfo.spec")).To(And(
			ContainSubstring("spec is the group as OpenIM last told it."),
			ContainSubstring("needVerification tells who may join"),
			ContainSubstring("groupID\t<string> -required-"),
		))
		for _, kind := range []string{"openimservers.spec.callbacks", "groupsyncs.spec.target.configMap", "groupsyncs.spec.target.job", "groupinfos.history", "groupinfos.status.syncs"} {
			Expect(kubectl(ctx, "explain", kind)).NotTo(ContainSubstring("<no description>"))
		}
	})

	It("is valid: the manifests pass a server-side dry run", func(ctx SpecContext) {
		kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--kustomize", "config/default")
		kubectl(ctx, "create", "namespace", "chat", "--dry-run=client")
		o := newOpenIM(ctx)
		for _, sample := range []string{"openimserver.yaml", "groupsync-configmap.yaml", "groupsync-expressions.yaml", "groupsync-job.yaml"} {
			kubectl(ctx, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-n", o.namespace, "-f", "config/samples/"+sample)
		}
	})

	It("is listed together: kubectl get openim", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.mirror(ctx, "mirror", openimv1.ConfigMapFormatKeys)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		Expect(kubectl(ctx, "get", "openim", "-n", o.namespace, "-o", "name")).To(And(
			ContainSubstring("groupinfo.openim.io/"), ContainSubstring("groupsync.openim.io/mirror"), ContainSubstring("openimserver.openim.io/demo")))
	})

	It("keeps the identity of a group", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		group := o.group(ctx, "G002")
		for _, field := range []string{"groupID", "serverName"} {
			change := client.RawPatch(types.MergePatchType, formatted(`{"spec":{%q:"other"}}`, field))
			Expect(env.Client.Patch(ctx, group, change)).To(MatchError(ContainSubstring(field + " is immutable")))
		}
	})

	It("bounds a GroupSync: a target of one kind, a name that fits into names and labels", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		for _, refused := range []*openimv1.GroupSync{
			{Spec: openimv1.GroupSyncSpec{}},
			{Spec: openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{Format: "TOML"}}}},
		} {
			refused.Namespace, refused.Name = o.namespace, "refused"
			Expect(env.Client.Create(ctx, refused)).NotTo(Succeed())
		}
		dotted := &openimv1.GroupSync{Spec: openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{}}}}
		dotted.Namespace, dotted.Name = o.namespace, "a.b"
		Expect(env.Client.Create(ctx, dotted)).To(MatchError(ContainSubstring("DNS label")))
	})
})
