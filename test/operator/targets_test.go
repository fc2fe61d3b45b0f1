package operator_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func configMapData(ctx context.Context, namespace, name string) (map[string]string, error) {
	object := &corev1.ConfigMap{}
	err := env.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
	return object.Data, client.IgnoreNotFound(err)
}

var _ = Describe("A GroupSync with a ConfigMap target", func() {
	var (
		o    *openim
		sync *openimv1.GroupSync
		// name of the ConfigMap for the group g1, and what it should hold.
		name = "mirror.g1"
		want = map[string]string{"serverName": "demo", "groupID": "g1", "groupName": "A", "needVerification": "0"}
	)
	data := func(ctx context.Context) func() (map[string]string, error) {
		return func() (map[string]string, error) { return configMapData(ctx, o.namespace, name) }
	}
	configMap := func(ctx context.Context) *corev1.ConfigMap {
		GinkgoHelper()
		object := &corev1.ConfigMap{}
		Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: name}, object)).To(Succeed())
		return object
	}
	BeforeEach(func(ctx SpecContext) {
		o = newOpenIM(ctx)
		sync = o.mirror(ctx, "mirror", openimv1.ConfigMapFormatKeys)
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"A","needVerification":0}`))
		Eventually(ctx, data(ctx)).Should(Equal(want))
	})

	It("makes the group ready, as kubectl wait sees it", func(ctx SpecContext) {
		kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=30s", "-n", o.namespace, "groupinfo/g1")
		Eventually(ctx, ready(ctx, sync)).Should(Equal("True/AllSynced"))
		Eventually(ctx, func() string { return kubectl(ctx, "get", "gsync", "-n", o.namespace) }).
			Should(MatchRegexp(`(?m)^mirror +True +1 +1 +0 `))
		Expect(kubectl(ctx, "get", "gi", "-n", o.namespace)).To(MatchRegexp(`(?m)^g1 +g1 +A .*True `))
		Expect(o.group(ctx, "g1").Status.Syncs).To(ConsistOf(And(
			HaveField("Name", "mirror"), HaveField("State", openimv1.SyncStateSynced), HaveField("Target", "ConfigMap/mirror.g1"))))
	})

	It("follows every change, the empty text and the format included", func(ctx SpecContext) {
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"","ex":"new"}`))
		Eventually(ctx, data(ctx)).Should(Equal(map[string]string{"serverName": "demo", "groupID": "g1", "groupName": "", "needVerification": "0", "ex": "new"}))

		By("taking the old keys away with the old format")
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Target.ConfigMap.Format = openimv1.ConfigMapFormatJSON })
		Eventually(ctx, data(ctx)).Should(Equal(map[string]string{"group.json": `{"serverName":"demo","groupID":"g1","groupName":"","ex":"new","needVerification":0}`}))
	})

	It("is not ready for a new spec before every ConfigMap follows it", func(ctx SpecContext) {
		const groups = 60
		for i := range groups {
			o.tell(ctx, setGroupInfoEx, formatted(`{"groupID":"many-%d","groupName":"A"}`, i))
		}
		Eventually(ctx, func(g Gomega) {
			g.Expect(ready(ctx, sync)()).To(Equal("True/AllSynced"))
			g.Expect(sync.Status.Synced).To(HaveValue(BeEquivalentTo(groups + 1)))
		}).Should(Succeed())
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Target.ConfigMap.Format = openimv1.ConfigMapFormatJSON })
		Eventually(ctx, ready(ctx, sync)).WithPolling(5 * time.Millisecond).Should(Equal("True/AllSynced"))
		for i := range groups {
			Expect(configMapData(ctx, o.namespace, fmt.Sprintf("mirror.many-%d", i))).To(HaveKey("group.json"))
		}
	})

	It("brings the ConfigMap back when it is deleted", func(ctx SpecContext) {
		before := configMap(ctx)
		Expect(env.Client.Delete(ctx, before)).To(Succeed())
		Eventually(ctx, func() (bool, error) {
			object := &corev1.ConfigMap{}
			err := env.Client.Get(ctx, client.ObjectKeyFromObject(before), object)
			return err == nil && object.UID != before.UID, client.IgnoreNotFound(err)
		}).Should(BeTrue())
		Expect(configMap(ctx).Data).To(Equal(want))
	})

	DescribeTable("corrects the ConfigMap when somebody edits it", func(ctx SpecContext, edit func(*corev1.ConfigMap)) {
		// An edit before and one after the operator's first apply: the managed fields differ.
		for range 2 {
			change(ctx, configMap(ctx), edit, client.FieldOwner("somebody"))
			Eventually(ctx, func(g Gomega) {
				object := configMap(ctx)
				g.Expect(object.Data).To(Equal(want))
				g.Expect(object.BinaryData).To(BeEmpty())
				g.Expect(object.Labels).To(HaveKeyWithValue(openimv1.LabelGroupInfo, "g1"))
				g.Expect(object.Labels).To(HaveKeyWithValue(openimv1.LabelGroupSync, "mirror"))
				g.Expect(object.Annotations).To(HaveKey(openimv1.AnnotationContentHash))
			}).Should(Succeed())
		}
	},
		Entry("changes a value", func(c *corev1.ConfigMap) { c.Data["groupName"] = "hacked" }),
		Entry("removes a key", func(c *corev1.ConfigMap) { delete(c.Data, "groupName") }),
		Entry("adds a key", func(c *corev1.ConfigMap) { c.Data["extra"] = "x" }),
		Entry("adds binary data", func(c *corev1.ConfigMap) { c.BinaryData = map[string][]byte{"extra": {0}} }),
		Entry("removes everything", func(c *corev1.ConfigMap) { c.Data = nil }),
		Entry("changes a label of ours", func(c *corev1.ConfigMap) { c.Labels[openimv1.LabelGroupInfo] = "other" }),
		Entry("removes our annotation", func(c *corev1.ConfigMap) { c.Annotations = nil }),
	)

	It("leaves users' own labels on the ConfigMap", func(ctx SpecContext) {
		change(ctx, configMap(ctx), func(c *corev1.ConfigMap) { c.Labels["team"] = "blue" })
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"B"}`))
		Eventually(ctx, data(ctx)).Should(HaveKeyWithValue("groupName", "B"))
		Expect(configMap(ctx).Labels).To(HaveKeyWithValue("team", "blue"))
	})

	It("takes its ConfigMaps along when it is deleted, by the garbage collector", func(ctx SpecContext) {
		Expect(env.Client.Delete(ctx, sync)).To(Succeed())
		Eventually(ctx, func() error {
			return env.Client.Get(ctx, client.ObjectKey{Namespace: o.namespace, Name: name}, &corev1.ConfigMap{})
		}).
			Should(Satisfy(apierrors.IsNotFound))
		group := o.group(ctx, "g1")
		Eventually(ctx, ready(ctx, group)).Should(Equal("True/NothingToSync"))
	})

	It("takes its ConfigMaps along in a foreground deletion as well", func(ctx SpecContext) {
		Expect(env.Client.Delete(ctx, sync, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		for _, object := range []client.Object{sync, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: name}}} {
			Eventually(ctx, func() error { return env.Client.Get(ctx, client.ObjectKeyFromObject(object), object) }).Should(Satisfy(apierrors.IsNotFound))
		}
	})

	It("removes the ConfigMap of a deleted group, which returns with its next callback", func(ctx SpecContext) {
		Expect(env.Client.Delete(ctx, o.group(ctx, "g1"))).To(Succeed())
		Eventually(ctx, data(ctx)).Should(BeEmpty())
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","ex":"e"}`))
		Eventually(ctx, data(ctx)).Should(Equal(map[string]string{"serverName": "demo", "groupID": "g1", "ex": "e"}))
	})

	It("removes the ConfigMap of a group that it does not select any more", func(ctx SpecContext) {
		change(ctx, sync, func(s *openimv1.GroupSync) {
			s.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
		})
		Eventually(ctx, data(ctx)).Should(BeEmpty())

		change(ctx, o.group(ctx, "g1"), func(g *openimv1.GroupInfo) { g.Labels["team"] = "blue" })
		Eventually(ctx, data(ctx)).Should(Equal(want))
	})

	It("leaves everything as it is while it is suspended, and catches up afterwards", func(ctx SpecContext) {
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g2","groupName":"A"}`))
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "mirror.g2") }).ShouldNot(BeEmpty())
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Suspend = new(true) })
		Eventually(ctx, ready(ctx, sync)).Should(Equal("False/Suspended"))

		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"B"}`))
		group := o.group(ctx, "g1")
		Eventually(ctx, ready(ctx, group)).Should(Equal("True/NothingToSync"))
		Expect(env.Client.Delete(ctx, o.group(ctx, "g2"))).To(Succeed())
		Expect(configMap(ctx).Data).To(Equal(want))

		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Suspend = nil })
		Eventually(ctx, data(ctx)).Should(HaveKeyWithValue("groupName", "B"))
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "mirror.g2") }).Should(BeEmpty())
	})

	It("leaves a foreign ConfigMap of the same name alone, says so, and goes on when it is gone", func(ctx SpecContext) {
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "mirror.g3"}, Data: map[string]string{"mine": "precious"}}
		Expect(env.Client.Create(ctx, foreign)).To(Succeed())
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g3","groupName":"A"}`))
		group := o.group(ctx, "g3")
		Eventually(ctx, ready(ctx, group)).Should(Equal("False/TargetConflict"))
		Expect(group.Status.Syncs).To(ConsistOf(And(HaveField("State", openimv1.SyncStateConflict), HaveField("Message", ContainSubstring("delete or rename it")))))
		Eventually(ctx, func() string { return kubectl(ctx, "describe", "gi", "-n", o.namespace, "g3") }).
			Should(MatchRegexp(`Warning +SyncConflict .*ConfigMap/mirror.g3 exists and does not belong`))
		Eventually(ctx, ready(ctx, sync)).WithTimeout(20 * time.Second).Should(Equal("False/GroupsFailing"))

		By("another change to the group")
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g3","groupName":"B"}`))
		Eventually(ctx, ready(ctx, group)).Should(Equal("False/TargetConflict"))
		still := &corev1.ConfigMap{}
		Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(foreign), still)).To(Succeed())
		Expect(still.ResourceVersion).To(Equal(foreign.ResourceVersion))

		By("the deletion of the GroupInfo")
		Expect(env.Client.Delete(ctx, group)).To(Succeed())
		Expect(env.Client.Delete(ctx, foreign)).To(Succeed())
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g3","groupName":"C"}`))
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "mirror.g3") }).Should(HaveKeyWithValue("groupName", "C"))
	})

	It("leaves a foreign ConfigMap alone that carries our labels", func(ctx SpecContext) {
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "mirror.g4",
			Labels: map[string]string{openimv1.LabelGroupSync: "mirror", openimv1.LabelGroupInfo: "g4"}}, Data: map[string]string{"mine": "precious"}}
		Expect(env.Client.Create(ctx, foreign)).To(Succeed())
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g4","groupName":"A"}`))
		group := o.group(ctx, "g4")
		Eventually(ctx, ready(ctx, group)).Should(Equal("False/TargetConflict"))
		Expect(env.Client.Delete(ctx, group)).To(Succeed())
		Eventually(ctx, func() error { return env.Client.Get(ctx, client.ObjectKeyFromObject(group), group) }).Should(Satisfy(apierrors.IsNotFound))
		Consistently(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "mirror.g4") }).
			WithTimeout(time.Second).Should(Equal(foreign.Data))
	})

	It("serves no GroupInfo whose name is not the one of its group ID", func(ctx SpecContext) {
		impostor := &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "impostor"},
			Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1"},
		}
		Expect(env.Client.Create(ctx, impostor)).To(Succeed())
		Eventually(ctx, ready(ctx, impostor)).Should(Equal("False/NameMismatch"))
		Expect(configMapData(ctx, o.namespace, "mirror.impostor")).To(BeEmpty())
	})

	It("holds what its expressions say, under the name that they say, for the groups that meet its conditions", func(ctx SpecContext) {
		o.mirror(ctx, "titles", "", func(s *openimv1.GroupSync) {
			s.Spec.MatchConditions = []openimv1.MatchCondition{{Name: "named", Expression: "group.groupName.startsWith('A')"}}
			s.Spec.Target.ConfigMap = &openimv1.ConfigMapTarget{
				Name: "'title-' + group.groupName.lowerAscii()", Data: map[string]string{"title": "group.groupName + ' (' + group.groupID + ')'"},
				Labels: map[string]string{"team": "blue"},
			}
		})
		titles := func(name string) func() (map[string]string, error) {
			return func() (map[string]string, error) { return configMapData(ctx, o.namespace, name) }
		}
		Eventually(ctx, titles("title-a")).Should(Equal(map[string]string{"title": "A (g1)"}))

		By("another name")
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"A2"}`))
		Eventually(ctx, titles("title-a2")).Should(Equal(map[string]string{"title": "A2 (g1)"}))
		Eventually(ctx, titles("title-a")).Should(BeEmpty())

		By("a group that wants the same name")
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g2","groupName":"A2"}`))
		Eventually(ctx, ready(ctx, o.group(ctx, "g2"))).Should(Equal("False/TargetConflict"))
		Expect(titles("title-a2")()).To(Equal(map[string]string{"title": "A2 (g1)"}))

		By("a group that does not meet the condition any more")
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"B"}`))
		Eventually(ctx, titles("title-a2")).WithTimeout(90 * time.Second).Should(Equal(map[string]string{"title": "A2 (g2)"}))

		By("a group for which there is no name")
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g3","groupName":"A B"}`))
		Eventually(ctx, ready(ctx, o.group(ctx, "g3"))).Should(Equal("False/SyncGaveUp"))
	}, SpecTimeout(3*time.Minute))

	It("keeps what it is to retain, although its group and its GroupSync are gone", func(ctx SpecContext) {
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Target.ConfigMap.DeletionPolicy = openimv1.DeletionRetain })
		Eventually(ctx, func() []metav1.OwnerReference { return configMap(ctx).OwnerReferences }).Should(BeEmpty())
		Expect(env.Client.Delete(ctx, o.group(ctx, "g1"))).To(Succeed())
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g2","groupName":"A"}`))
		Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "mirror.g2") }).ShouldNot(BeEmpty())
		Expect(env.Client.Delete(ctx, sync, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
		Eventually(ctx, func() error { return env.Client.Get(ctx, client.ObjectKeyFromObject(sync), sync) }).Should(Satisfy(apierrors.IsNotFound))
		Consistently(ctx, data(ctx)).WithTimeout(time.Second).Should(Equal(want))
	})

	It("has the fields that count, and no other, and is not written for a change of those", func(ctx SpecContext) {
		change(ctx, sync, func(s *openimv1.GroupSync) { s.Spec.Fields = []openimv1.GroupField{"ex"} })
		Eventually(ctx, data(ctx)).Should(Equal(map[string]string{"serverName": "demo", "groupID": "g1"}))
		before := configMap(ctx).ResourceVersion
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"B"}`))
		group := o.group(ctx, "g1")
		Eventually(ctx, func(g Gomega) {
			group = o.group(ctx, "g1")
			g.Expect(group.Status.ObservedGeneration).To(Equal(group.Generation))
		}).Should(Succeed())
		Expect(configMap(ctx).ResourceVersion).To(Equal(before))
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","ex":"e"}`))
		Eventually(ctx, data(ctx)).Should(HaveKeyWithValue("ex", "e"))
	})

	It("reports a selector that cannot be understood, and stops no other GroupSync", func(ctx SpecContext) {
		bad := o.mirror(ctx, "bad", openimv1.ConfigMapFormatJSON, func(s *openimv1.GroupSync) {
			s.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "team", Operator: "Near"}}}
		})
		Eventually(ctx, ready(ctx, bad)).Should(Equal("False/InvalidSelector"))
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"g1","groupName":"B"}`))
		Eventually(ctx, data(ctx)).Should(HaveKeyWithValue("groupName", "B"))
	})
})
