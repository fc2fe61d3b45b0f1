package groupinfo

import (
	"context"
	"errors"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
)

var _ = Describe("A reconcile", func() {
	var (
		group      *openimv1.GroupInfo
		sync       *openimv1.GroupSync
		connection *connection
		r          *Reconciler
	)
	reconcile := func(ctx context.Context) ctrl.Result {
		GinkgoHelper()
		result, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(err).NotTo(HaveOccurred())
		return result
	}
	read := func(ctx context.Context) *openimv1.GroupInfo {
		GinkgoHelper()
		object := &openimv1.GroupInfo{}
		Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(group), object)).To(Succeed())
		return object
	}
	newSync := func(ctx context.Context, name string) *openimv1.GroupSync {
		GinkgoHelper()
		object := &openimv1.GroupSync{
			ObjectMeta: metav1.ObjectMeta{Namespace: group.Namespace, Name: name},
			Spec:       openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{}}},
		}
		Expect(env.Client.Create(ctx, object)).To(Succeed())
		return object
	}
	// runJobsInstead replaces the GroupSync by one with a Job target.
	runJobsInstead := func(ctx context.Context) {
		GinkgoHelper()
		Expect(env.Client.Delete(ctx, sync)).To(Succeed())
		crm := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: group.Namespace, Name: "crm"}}
		crm.Spec.ExistingGroups = openimv1.ExistingGroupsSync
		crm.Spec.Target.Job = &openimv1.JobTarget{}
		crm.Spec.Target.Job.Template.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "crm"}}
		Expect(env.Client.Create(ctx, crm)).To(Succeed())
	}
	BeforeEach(func(ctx SpecContext) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "groups-"}}
		Expect(env.Client.Create(ctx, namespace)).To(Succeed())
		server := &openimv1.OpenIMServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "demo"}}
		Expect(env.Client.Create(ctx, server)).To(Succeed())
		group = &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "g1"},
			Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1", GroupName: new("A")},
		}
		Expect(env.Client.Create(ctx, group)).To(Succeed())
		sync = newSync(ctx, "mirror")
		connection = connect()
		r = &Reconciler{
			Client: connection, Recorder: &recorder{}, Now: time.Now,
			Rules: newRules(), configMaps: newConfigMaps(connection), jobs: newJobs(connection), statusWrites: ownwrites.New(time.Now),
		}
	})

	It("writes the target and the status once, and nothing when nothing has changed", func(ctx SpecContext) {
		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"create", "apply status"}))
		status := read(ctx).Status
		Expect(status.ObservedGeneration).To(Equal(read(ctx).Generation))
		Expect(status.Conditions).To(ConsistOf(And(HaveField("Type", "Ready"), HaveField("Reason", openimv1.ReasonInSync))))

		// Some time later, and in a process that has just started.
		r.Now = func() time.Time { return time.Now().Add(time.Hour) }
		for range 2 {
			reconcile(ctx)
			r.configMaps, r.statusWrites = newConfigMaps(connection), ownwrites.New(r.Now)
		}
		Expect(connection.written()).To(BeEmpty())
	})

	It("writes no target when only the history has changed, and says which generation it has seen", func(ctx SpecContext) {
		reconcile(ctx)
		object := read(ctx)
		object.History = []openimv1.HistoryEntry{{Stamp: "1", Time: metav1.Now(), Command: "callbackAfterSetGroupInfoExCommand"}}
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		connection.written()

		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"apply status"}))
		Expect(read(ctx).Status.ObservedGeneration).To(Equal(object.Generation))
	})

	It("waits for a cache that does not show its own status yet", func(ctx SpecContext) {
		outdated := read(ctx)
		reconcile(ctx)
		connection.written()
		connection.shows[client.ObjectKeyFromObject(group)] = outdated
		reconcile(ctx)
		Expect(connection.written()).To(BeEmpty())
	})

	It("keeps the times of what has not changed", func(ctx SpecContext) {
		reconcile(ctx)
		before := read(ctx).Status
		object := read(ctx)
		object.Spec.GroupName = new("B")
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		r.Now = func() time.Time { return time.Now().Add(time.Hour) }
		reconcile(ctx)
		after := read(ctx).Status
		Expect(after.Syncs[0].ContentHash).NotTo(Equal(before.Syncs[0].ContentHash))
		Expect(after.Syncs[0].LastTransitionTime).To(Equal(before.Syncs[0].LastTransitionTime))
		Expect(after.Conditions[0].LastTransitionTime).To(Equal(before.Conditions[0].LastTransitionTime))
	})

	It("serves every other GroupSync when one fails, and tells and tries again without quoting a value", func(ctx SpecContext) {
		const secret = "what-a-user-wrote"
		newSync(ctx, "broken")
		r.configMaps.client = interceptor.NewClient(connection, interceptor.Funcs{
			Create: func(ctx context.Context, next client.WithWatch, object client.Object, opts ...client.CreateOption) error {
				if strings.HasPrefix(object.GetName(), "broken.") {
					return errors.New("dial tcp: connection refused")
				}
				return next.Create(ctx, object, opts...)
			},
		})
		object := read(ctx)
		object.Spec.Ex = new(secret)
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		_, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(err).To(MatchError(And(ContainSubstring("ConfigMap/broken.g1"), Not(ContainSubstring(secret)))))
		status := read(ctx).Status
		Expect(status.Conditions).To(ContainElement(And(HaveField("Type", "Ready"), HaveField("Reason", openimv1.ReasonSyncFailed))))
		Expect(status.Syncs).To(HaveExactElements(
			And(HaveField("Name", "broken"), HaveField("State", openimv1.SyncStateFailed), HaveField("ContentHash", BeEmpty())),
			And(HaveField("Name", "mirror"), HaveField("State", openimv1.SyncStateSynced), HaveField("Message", BeEmpty())),
		))
	})

	It("looks at a foreign object again after a while", func(ctx SpecContext) {
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: group.Namespace, Name: "mirror.g1"}}
		Expect(env.Client.Create(ctx, foreign)).To(Succeed())
		Expect(reconcile(ctx).RequeueAfter).To(Equal(conflictRecheck))
		connection.written()
		// It knows by now: it looks before it tries.
		Expect(reconcile(ctx).RequeueAfter).To(Equal(conflictRecheck))
		Expect(connection.written()).To(BeEmpty())

		Expect(env.Client.Delete(ctx, foreign)).To(Succeed())
		Expect(reconcile(ctx).RequeueAfter).To(BeZero())
		Expect(read(ctx).Status.Syncs[0].State).To(Equal(openimv1.SyncStateSynced))
	})

	It("serves the first 32 GroupSyncs by name, and says so", func(ctx SpecContext) {
		for i := range maxSyncs {
			newSync(ctx, "sync-"+string(rune('a'+i/26))+string(rune('a'+i%26)))
		}
		reconcile(ctx)
		status := read(ctx).Status
		Expect(status.Syncs).To(HaveLen(maxSyncs))
		Expect(status.Syncs[0].Name).To(Equal(sync.Name))
		Expect(status.Syncs[maxSyncs-1].Name).To(Equal("sync-be"))
		Expect(status.Conditions).To(ContainElement(And(HaveField("Type", "Stalled"), HaveField("Reason", openimv1.ReasonTooManySyncs))))
	})

	It("removes what a GroupSync does not want any more, and nothing that is not its own", func(ctx SpecContext) {
		reconcile(ctx)
		// Somebody pinned our labels on an object of theirs, and on another group's target.
		labels := map[string]string{openimv1.LabelGroupInfo: "g1", openimv1.LabelGroupSync: "mirror"}
		foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: group.Namespace, Name: "foreign", Labels: labels}}
		other := foreign.DeepCopy()
		other.Name = "mirror.g2"
		other.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(sync, openimv1.GroupVersion.WithKind("GroupSync"))}
		for _, object := range []*corev1.ConfigMap{foreign, other} {
			Expect(env.Client.Create(ctx, object)).To(Succeed())
		}
		connection.written()

		sync.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
		Expect(env.Client.Update(ctx, sync)).To(Succeed())
		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"delete", "apply status"}))
		var left corev1.ConfigMapList
		Expect(env.Client.List(ctx, &left, client.InNamespace(group.Namespace), client.MatchingLabels(labels))).To(Succeed())
		Expect(left.Items).To(ConsistOf(HaveField("Name", "foreign"), HaveField("Name", "mirror.g2")))
	})

	It("leaves alone an object that replaced the target between the look and the removal", func(ctx SpecContext) {
		reconcile(ctx)
		target := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: group.Namespace, Name: "mirror.g1"}}
		foreign := target.DeepCopy()
		connection.meanwhile = func() {
			Expect(env.Client.Delete(ctx, target)).To(Succeed())
			Expect(env.Client.Create(ctx, foreign)).To(Succeed())
		}
		Expect(env.Client.Delete(ctx, group)).To(Succeed())
		_, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(err).To(MatchError(ContainSubstring("delete ConfigMap/mirror.g1")))
		reconcile(ctx)
		Expect(env.Client.Get(ctx, client.ObjectKeyFromObject(foreign), target)).To(Succeed())
		Expect(target.UID).To(Equal(foreign.UID))
	})

	It("records no run on top of another's: of two processes record at most one", func(ctx SpecContext) {
		runJobsInstead(ctx)

		// This process is held up with the group as it was.
		connection.shows[client.ObjectKeyFromObject(group)] = read(ctx)
		object := read(ctx)
		object.Spec.GroupName = new("B")
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		elsewhere := connect()
		other := &Reconciler{
			Client: elsewhere, Recorder: &recorder{}, Now: time.Now,
			Rules: newRules(), configMaps: newConfigMaps(elsewhere), jobs: newJobs(elsewhere), statusWrites: ownwrites.New(time.Now),
		}
		_, err := other.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(err).NotTo(HaveOccurred())
		Expect(elsewhere.written()).To(Equal([]string{"apply status", "create"}))
		before := read(ctx).Status

		_, err = r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(err).To(Satisfy(apierrors.IsConflict))
		Expect(connection.written()).To(Equal([]string{"apply status"}))
		Expect(read(ctx).Status).To(Equal(before))
	})

	It("creates no Job whose run could not be recorded", func(ctx SpecContext) {
		runJobsInstead(ctx)
		connection.meanwhile = func() { Expect(env.Client.Delete(ctx, group)).To(Succeed()) }
		_, _ = r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(connection.written()).To(Equal([]string{"apply status"}))
	})

	It("starts no Job for a group that is too large for one, and says what to do", func(ctx SpecContext) {
		runJobsInstead(ctx)
		object := read(ctx)
		object.Spec.Ex, object.Spec.Notification = new(strings.Repeat("x", maxGroupBytes/2)), new(strings.Repeat("x", maxGroupBytes/2))
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		for range 2 {
			reconcile(ctx)
		}
		Expect(connection.written()).To(Equal([]string{"apply status"}))
		Expect(read(ctx).Status.Syncs).To(ConsistOf(And(
			HaveField("State", openimv1.SyncStateGaveUp), HaveField("Revision", BeZero()), HaveField("Message", ContainSubstring("choose less of it with spec.fields")))))

		object = read(ctx)
		object.Spec.Ex = new("")
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"apply status", "create"}))
	})

	It("tells of a Job that the API server refuses, tries again after a while, and goes on when it does not", func(ctx SpecContext) {
		runJobsInstead(ctx)
		refusing := true
		r.jobs.client = interceptor.NewClient(connection, interceptor.Funcs{
			Create: func(ctx context.Context, next client.WithWatch, object client.Object, opts ...client.CreateOption) error {
				if refusing {
					return apierrors.NewForbidden(schema.GroupResource{Group: "batch", Resource: "jobs"}, object.GetName(), errors.New("exceeded quota"))
				}
				return next.Create(ctx, object, opts...)
			},
		})
		_, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(group)})
		Expect(err).To(MatchError(ContainSubstring("exceeded quota")))
		result := reconcile(ctx)
		Expect(result.RequeueAfter).To(BeNumerically("~", firstRetry, 2*time.Second))
		Expect(read(ctx).Status.Syncs).To(ConsistOf(And(
			HaveField("State", openimv1.SyncStateFailed), HaveField("Message", MatchRegexp(`^Job/crm-\w+ failed \(could not be created: Forbidden\), attempt 1$`)))))
		connection.written()
		reconcile(ctx)
		Expect(connection.written()).To(BeEmpty(), "it is not the time yet")

		refusing = false
		r.Now = func() time.Time { return time.Now().Add(time.Minute) }
		r.jobs.now = r.Now
		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"apply status", "create"}))
		Expect(read(ctx).Status.Syncs).To(ConsistOf(And(HaveField("State", openimv1.SyncStatePending), HaveField("Revision", BeEquivalentTo(2)), HaveField("Attempts", BeEquivalentTo(2)))))
	})

	It("keeps what was made for a group for which an expression cannot be evaluated, and says which one", func(ctx SpecContext) {
		reconcile(ctx)
		sync.Spec.MatchConditions = []openimv1.MatchCondition{{Name: "numbered", Expression: "int(group.groupName) > 0"}}
		Expect(env.Client.Update(ctx, sync)).To(Succeed())
		connection.written()
		for range 2 {
			reconcile(ctx)
		}
		Expect(connection.written()).To(Equal([]string{"apply status"}))
		Expect(read(ctx).Status.Syncs).To(ConsistOf(And(
			HaveField("State", openimv1.SyncStateGaveUp), HaveField("Message", HavePrefix(`matchConditions "numbered" cannot be evaluated`)))))
		target := &corev1.ConfigMap{}
		Expect(env.Client.Get(ctx, client.ObjectKey{Namespace: group.Namespace, Name: "mirror.g1"}, target)).To(Succeed())

		By("a group for which it can")
		object := read(ctx)
		object.Spec.GroupName = new("7")
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"apply", "apply status"}))
	})

	It("serves a group on request that was there before the GroupSync", func(ctx SpecContext) {
		object := read(ctx)
		object.History = []openimv1.HistoryEntry{{Stamp: "1", Time: metav1.NewTime(time.Now().Add(-time.Hour)), Command: "callbackAfterCreateGroupCommand"}}
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		sync.Spec.ExistingGroups = openimv1.ExistingGroupsIgnore
		Expect(env.Client.Update(ctx, sync)).To(Succeed())
		reconcile(ctx)
		Expect(connection.written()).To(Equal([]string{"apply status"}))
		Expect(read(ctx).Status.Syncs).To(ConsistOf(HaveField("State", openimv1.SyncStateIgnored)))

		object = read(ctx)
		object.Annotations = map[string]string{openimv1.AnnotationSyncRequestedAt: time.Now().UTC().Format(time.RFC3339)}
		Expect(env.Client.Update(ctx, object)).To(Succeed())
		for range 2 {
			reconcile(ctx)
		}
		Expect(connection.written()).To(Equal([]string{"create", "apply status"}))
		Expect(read(ctx).Status.Syncs).To(ConsistOf(HaveField("State", openimv1.SyncStateSynced)))
	})
})
