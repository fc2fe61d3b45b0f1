package groupinfo

import (
	"context"
	"errors"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

var configMapResource = schema.GroupResource{Resource: "configmaps"}

var _ = Describe("A ConfigMap of a GroupSync", func() {
	var (
		sync       *openimv1.GroupSync
		key        client.ObjectKey
		connection *connection
		targets    *configMaps
		compiled   *rules.Cache
	)
	// wanted is the target for the group g1 with this name.
	wanted := func(groupName string) desired {
		GinkgoHelper()
		want, err := desire(&task{sync: sync, rules: compiled.Of(sync), group: &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: sync.Namespace, Name: "g1"},
			Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1", GroupName: &groupName},
		}})
		Expect(err).NotTo(HaveOccurred())
		return want
	}
	stored := func(ctx context.Context) *corev1.ConfigMap {
		GinkgoHelper()
		object := &corev1.ConfigMap{}
		Expect(env.Client.Get(ctx, key, object)).To(Succeed())
		return object
	}
	update := func(ctx context.Context, change func(*corev1.ConfigMap)) {
		GinkgoHelper()
		object := stored(ctx)
		change(object)
		Expect(env.Client.Update(ctx, object, client.FieldOwner("somebody"))).To(Succeed())
	}
	newForeign := func() *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{openimv1.LabelGroupInfo: "g1"}},
			Data:       map[string]string{"groupName": "precious"},
		}
	}
	BeforeEach(func(ctx SpecContext) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "targets-"}}
		Expect(env.Client.Create(ctx, namespace)).To(Succeed())
		sync = &openimv1.GroupSync{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "mirror"},
			Spec:       openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{}}},
		}
		Expect(env.Client.Create(ctx, sync)).To(Succeed())
		key = client.ObjectKey{Namespace: namespace.Name, Name: "mirror.g1"}
		connection = connect()
		targets, compiled = newConfigMaps(connection), newRules()
	})
	// edit changes the target of the GroupSync.
	edit := func(ctx context.Context, change func(*openimv1.ConfigMapTarget)) {
		GinkgoHelper()
		change(sync.Spec.Target.ConfigMap)
		Expect(env.Client.Update(ctx, sync)).To(Succeed())
	}

	It("is created, applied, and not written again", func(ctx SpecContext) {
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		Expect(connection.written()).To(Equal([]string{"create"}))

		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		Expect(connection.written()).To(Equal([]string{"apply"}))
		Expect(stored(ctx).Data).To(Equal(wanted("B").data))
		Expect(metav1.IsControlledBy(stored(ctx), sync)).To(BeTrue())
	})

	DescribeTable("of somebody else, made between our look and our create, is left alone",
		func(ctx SpecContext, expectForeign bool) {
			foreign := newForeign()
			connection.meanwhile = func() { Expect(env.Client.Create(ctx, foreign)).To(Succeed()) }

			err := targets.ensure(ctx, wanted("A"), expectForeign)
			_, conflict := errors.AsType[*conflictError](err)
			if expectForeign {
				// It looked and saw nothing, so all it knows is that the create failed. The next attempt looks again.
				Expect(err).To(Satisfy(apierrors.IsAlreadyExists))
			} else {
				Expect(conflict).To(BeTrue(), "%v", err)
			}
			Expect(cmp.Diff(foreign, stored(ctx))).To(BeEmpty())

			_, conflict = errors.AsType[*conflictError](targets.ensure(ctx, wanted("A"), true))
			Expect(conflict).To(BeTrue())
			Expect(cmp.Diff(foreign, stored(ctx))).To(BeEmpty())
			Expect(connection.written()).To(Equal([]string{"create"}))

			By("going on when it is gone")
			Expect(env.Client.Delete(ctx, foreign)).To(Succeed())
			Expect(targets.ensure(ctx, wanted("A"), true)).To(Succeed())
			Expect(stored(ctx).Data).To(Equal(wanted("A").data))
		},
		Entry("where nothing was expected", false),
		Entry("where one had been in the way before", true),
	)

	DescribeTable("that was replaced by somebody else's between our look and our write is left alone",
		func(ctx SpecContext, verb string, prepare func(context.Context)) {
			Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
			prepare(ctx)
			foreign := newForeign()
			connection.meanwhile = func() {
				Expect(env.Client.Delete(ctx, stored(ctx))).To(Succeed())
				Expect(env.Client.Create(ctx, foreign)).To(Succeed())
			}
			connection.written()

			// An apply meets the other UID as an immutable field, a patch as a conflict.
			Expect(targets.ensure(ctx, wanted("B"), false)).To(Satisfy(func(err error) bool { return apierrors.IsInvalid(err) || apierrors.IsConflict(err) }))
			Expect(connection.written()).To(Equal([]string{verb}))
			Expect(cmp.Diff(foreign, stored(ctx))).To(BeEmpty())
		},
		Entry("as the cache shows it", "apply", func(context.Context) {}),
		Entry("with a key too many", "patch", func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Data["extra"] = "x" })
		}),
		Entry("while the cache does not show our own write yet", "apply", func(context.Context) { connection.shows[key] = nil }),
	)

	It("that was deleted between our look and our write is not brought back with another UID by mistake", func(ctx SpecContext) {
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		connection.meanwhile = func() { Expect(env.Client.Delete(ctx, stored(ctx))).To(Succeed()) }
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Satisfy(apierrors.IsConflict))

		// As the watch does with the event of the deletion.
		targets.writes.Forget(key)
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		Expect(stored(ctx).Data).To(Equal(wanted("B").data))
	})

	DescribeTable("that the cache does not show is ours all the same",
		func(ctx SpecContext, groupName string, verbs ...string) {
			Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
			before := stored(ctx)
			connection.written()

			// A controller that has just started, and whose cache is behind.
			connection.shows[key] = nil
			targets = newConfigMaps(connection)
			Expect(targets.ensure(ctx, wanted(groupName), false)).To(Succeed())
			Expect(connection.written()).To(Equal(verbs))
			Expect(stored(ctx).UID).To(Equal(before.UID))
			Expect(stored(ctx).Data).To(Equal(wanted(groupName).data))
		},
		Entry("with the right content", "A", "create"),
		Entry("with other content", "B", "create", "apply"),
	)

	It("is not written again while the cache does not show our write", func(ctx SpecContext) {
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		connection.shows[key] = nil
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		Expect(connection.written()).To(Equal([]string{"create"}))

		outdated, err := targets.look(ctx, key)
		Expect(err).NotTo(HaveOccurred())
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		connection.shows[key] = outdated
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		Expect(connection.written()).To(Equal([]string{"apply"}))
		Expect(stored(ctx).Data).To(Equal(wanted("B").data))
	})

	DescribeTable("is corrected with one write, and then left in peace, when somebody",
		func(ctx SpecContext, verbs []string, change func(ctx context.Context)) {
			// The records differ between an object that was only created and one that was applied to.
			for _, groupName := range []string{"A", "B"} {
				Expect(targets.ensure(ctx, wanted(groupName), false)).To(Succeed())
				connection.written()
				change(ctx)
				for range 3 {
					Expect(targets.ensure(ctx, wanted(groupName), false)).To(Succeed())
				}
				Expect(connection.written()).To(Equal(verbs))
				Expect(stored(ctx).Data).To(Equal(wanted(groupName).data))
				Expect(stored(ctx).BinaryData).To(BeEmpty())
				Expect(contains(stored(ctx).Labels, wanted(groupName).labels)).To(BeTrue())
			}
		},
		Entry("changes a value", []string{"apply"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Data["groupName"] = "edited" })
		}),
		Entry("changes a value and changes it back", []string{"apply"}, func(ctx context.Context) {
			value := stored(ctx).Data["groupName"]
			update(ctx, func(c *corev1.ConfigMap) { c.Data["groupName"] = "edited" })
			update(ctx, func(c *corev1.ConfigMap) { c.Data["groupName"] = value })
		}),
		Entry("removes a key", []string{"apply"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { delete(c.Data, "groupName") })
		}),
		Entry("removes all data", []string{"apply"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Data = nil })
		}),
		Entry("adds keys", []string{"patch"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Data["extra"], c.BinaryData = "x", map[string][]byte{"binary": {0}} })
		}),
		Entry("moves a key to the binary data", []string{"patch"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) {
				delete(c.Data, "groupName")
				c.BinaryData = map[string][]byte{"groupName": []byte("A")}
			})
		}),
		Entry("changes a label of ours", []string{"apply"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Labels[openimv1.LabelServer] = "other" })
		}),
		Entry("removes our annotation", []string{"apply"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Annotations = nil })
		}),
		Entry("clears the records of who wrote what, and changes a value", []string{"apply"}, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) {
				c.ManagedFields = []metav1.ManagedFieldsEntry{{}}
				c.Data["groupName"] = "edited"
			})
		}),
		Entry("applies the value that is there", nil, func(ctx context.Context) {
			same := corev1ac.ConfigMap(key.Name, key.Namespace).WithData(map[string]string{"groupName": stored(ctx).Data["groupName"]})
			Expect(env.Client.Apply(ctx, same, client.FieldOwner("somebody"))).To(Succeed())
		}),
		Entry("adds labels and annotations of their own", nil, func(ctx context.Context) {
			update(ctx, func(c *corev1.ConfigMap) { c.Labels["team"], c.Annotations["note"] = "blue", "mine" })
		}),
	)

	It("keeps the labels that somebody added, when it is written", func(ctx SpecContext) {
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		update(ctx, func(c *corev1.ConfigMap) { c.Labels["team"], c.Data["extra"] = "blue", "x" })
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		Expect(targets.ensure(ctx, wanted("C"), false)).To(Succeed())
		Expect(connection.written()).To(Equal([]string{"create", "patch", "apply"}))
		Expect(stored(ctx).Labels).To(HaveKeyWithValue("team", "blue"))
		Expect(stored(ctx).Data).To(Equal(wanted("C").data))
	})

	It("loses its owner when it is to be retained, and gets it back, with one write each", func(ctx SpecContext) {
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		update(ctx, func(c *corev1.ConfigMap) {
			c.OwnerReferences = append(c.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "Secret", Name: "other", UID: "other"})
		})
		connection.written()
		for range 2 {
			edit(ctx, func(t *openimv1.ConfigMapTarget) { t.DeletionPolicy = openimv1.DeletionRetain })
			for range 2 {
				Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
			}
			Expect(connection.written()).To(Equal([]string{"patch"}))
			Expect(stored(ctx).OwnerReferences).To(ConsistOf(HaveField("Name", "other")))

			edit(ctx, func(t *openimv1.ConfigMapTarget) { t.DeletionPolicy = openimv1.DeletionDelete })
			for range 2 {
				Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
			}
			Expect(connection.written()).To(Equal([]string{"patch"}))
			Expect(metav1.IsControlledBy(stored(ctx), sync)).To(BeTrue())
			Expect(stored(ctx).OwnerReferences).To(HaveLen(2))
		}
	})

	It("that is retained is made without an owner, followed, and not deleted with its group", func(ctx SpecContext) {
		edit(ctx, func(t *openimv1.ConfigMapTarget) { t.DeletionPolicy = openimv1.DeletionRetain })
		Expect(targets.ensure(ctx, wanted("A"), false)).To(Succeed())
		Expect(stored(ctx).OwnerReferences).To(BeEmpty())
		Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		Expect(stored(ctx).Data).To(Equal(wanted("B").data))
		Expect(connection.written()).To(Equal([]string{"create", "apply"}))
		group := client.ObjectKey{Namespace: key.Namespace, Name: "g1"}
		Expect(targets.remove(ctx, group, []openimv1.GroupSync{*sync})).To(Succeed())
		Expect(connection.written()).To(BeEmpty())

		By("a GroupSync that removes after all")
		edit(ctx, func(t *openimv1.ConfigMapTarget) { t.DeletionPolicy = openimv1.DeletionDelete })
		Expect(targets.remove(ctx, group, []openimv1.GroupSync{*sync})).To(Succeed())
		Expect(connection.written()).To(Equal([]string{"delete"}))
	})

	It("of another GroupSync that retained it is left alone", func(ctx SpecContext) {
		foreign := newForeign()
		foreign.Annotations = map[string]string{openimv1.AnnotationKeptFor: "uid-of-another/g1"}
		Expect(env.Client.Create(ctx, foreign)).To(Succeed())
		_, conflict := errors.AsType[*conflictError](targets.ensure(ctx, wanted("A"), false))
		Expect(conflict).To(BeTrue())
		Expect(cmp.Diff(foreign, stored(ctx))).To(BeEmpty())
	})

	It("of another group is left alone, whether the cache shows it or not", func(ctx SpecContext) {
		edit(ctx, func(t *openimv1.ConfigMapTarget) { t.Name = "'shared'" })
		key.Name = "shared"
		first, second := wanted("A"), wanted("A")
		second.group = "g2"
		second.annotations = with(second.annotations, map[string]string{openimv1.AnnotationKeptFor: string(sync.UID) + "/g2"})
		Expect(targets.ensure(ctx, first, false)).To(Succeed())
		before := stored(ctx)
		connection.written()
		for _, shown := range []bool{true, false} {
			if !shown {
				connection.shows[key] = nil
			}
			conflict, _ := errors.AsType[*conflictError](targets.ensure(ctx, second, true))
			Expect(conflict).To(HaveValue(Equal(conflictError{target: "ConfigMap/shared", group: "g1"})))
		}
		Expect(connection.written()).To(BeEmpty())
		Expect(cmp.Diff(before, stored(ctx))).To(BeEmpty())
	})

	It("gets the labels and annotations of the GroupSync, and loses them with it", func(ctx SpecContext) {
		edit(ctx, func(t *openimv1.ConfigMapTarget) {
			t.Labels, t.Annotations = map[string]string{"team": "blue", openimv1.LabelGroupInfo: "forged"}, map[string]string{"note": "ours"}
		})
		for _, groupName := range []string{"A", "B"} {
			Expect(targets.ensure(ctx, wanted(groupName), false)).To(Succeed())
		}
		update(ctx, func(c *corev1.ConfigMap) { c.Labels["mine"] = "stays" })
		Expect(stored(ctx).Labels).To(And(HaveKeyWithValue("team", "blue"), HaveKeyWithValue(openimv1.LabelGroupInfo, "g1")))
		Expect(stored(ctx).Annotations).To(HaveKeyWithValue("note", "ours"))
		connection.written()

		edit(ctx, func(t *openimv1.ConfigMapTarget) { t.Labels, t.Annotations = nil, nil })
		for range 2 {
			Expect(targets.ensure(ctx, wanted("B"), false)).To(Succeed())
		}
		Expect(connection.written()).To(Equal([]string{"patch"}))
		Expect(stored(ctx).Labels).To(And(HaveKeyWithValue("mine", "stays"), Not(HaveKey("team"))))
		Expect(stored(ctx).Annotations).NotTo(HaveKey("note"))
	})
})
