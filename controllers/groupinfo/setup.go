package groupinfo

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

const (
	// groupIndex indexes what was made for a group by the GroupInfo's name.
	groupIndex = "groupInfo"

	// maxConcurrentReconciles is how many groups are worked on at once. A reconcile mostly waits for the API server.
	maxConcurrentReconciles = 8
)

var configMapKind = corev1.SchemeGroupVersion.WithKind("ConfigMap")

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager, compiled *rules.Cache, now func() time.Time) error {
	r := &Reconciler{
		Client:       mgr.GetClient(),
		Recorder:     mgr.GetEventRecorder("groupinfo-operator"),
		Now:          now,
		Rules:        compiled,
		configMaps:   &configMaps{client: mgr.GetClient(), live: mgr.GetAPIReader(), writes: ownwrites.New(now)},
		statusWrites: ownwrites.New(now),
	}
	groups := &waker{}
	r.jobs = &jobs{client: mgr.GetClient(), live: mgr.GetAPIReader(), now: now, slots: newSlots(mgr.GetClient(), now, groups.wake)}
	if err := index(mgr); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("groupinfo").
		WithOptions(controller.Options{MaxConcurrentReconciles: maxConcurrentReconciles}).
		For(&openimv1.GroupInfo{}).
		Watches(&openimv1.GroupSync{}, handler.EnqueueRequestsFromMapFunc(r.groupsOfSync),
			builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&openimv1.OpenIMServer{}, handler.EnqueueRequestsFromMapFunc(r.groupsOfServer),
			builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		WatchesMetadata(&corev1.ConfigMap{}, r.configMapChanges()).
		Watches(&batchv1.Job{}, r.jobChanges()).
		WatchesRawSource(source.Func(groups.start)).
		Complete(r)
}

// index makes what is kept for a group, and the unfinished Jobs of a GroupSync, quick to find.
func index(mgr manager.Manager) error {
	configMap := &metav1.PartialObjectMetadata{}
	configMap.SetGroupVersionKind(configMapKind)
	byGroup := func(object client.Object) []string { return []string{object.GetLabels()[openimv1.LabelGroupInfo]} }
	unfinished := func(object client.Object) []string {
		job, ok := object.(*batchv1.Job)
		owner := metav1.GetControllerOf(object)
		if !ok || owner == nil || observe(job).state != jobActive {
			return nil
		}
		return []string{string(owner.UID)}
	}
	indexer := mgr.GetFieldIndexer()
	return errors.Join(
		indexer.IndexField(context.Background(), configMap, groupIndex, byGroup),
		indexer.IndexField(context.Background(), &batchv1.Job{}, groupIndex, byGroup),
		indexer.IndexField(context.Background(), &batchv1.Job{}, unfinishedIndex, unfinished),
	)
}

// waker puts groups into the controller's queue.
type waker struct{ queue atomic.Pointer[queue] }

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// start is called by the controller with its queue.
func (w *waker) start(_ context.Context, q queue) error {
	w.queue.Store(&q)
	return nil
}

func (w *waker) wake(group client.ObjectKey) {
	if q := w.queue.Load(); q != nil {
		(*q).Add(reconcile.Request{NamespacedName: group})
	}
}

// groupsOfSync returns every group of the namespace, since the selector may have changed, and the groups for which
// something is kept although they are gone.
func (r *Reconciler) groupsOfSync(ctx context.Context, sync client.Object) []reconcile.Request {
	requests := r.groups(ctx, client.InNamespace(sync.GetNamespace()))
	ofSync := []client.ListOption{client.InNamespace(sync.GetNamespace()), client.MatchingLabels{openimv1.LabelGroupSync: sync.GetName()}}
	var configMaps metav1.PartialObjectMetadataList
	configMaps.SetGroupVersionKind(configMapKind.GroupVersion().WithKind("ConfigMapList"))
	var jobs batchv1.JobList
	if err := errors.Join(r.Client.List(ctx, &configMaps, ofSync...), r.Client.List(ctx, &jobs, ofSync...)); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Targets not listed: those of deleted groups may stay until the next start")
		return requests
	}
	for i := range configMaps.Items {
		requests = append(requests, groupOf(&configMaps.Items[i])...)
	}
	for i := range jobs.Items {
		requests = append(requests, groupOf(&jobs.Items[i])...)
	}
	return requests
}

// groupsOfServer returns the groups that the OpenIMServer told of.
func (r *Reconciler) groupsOfServer(ctx context.Context, server client.Object) []reconcile.Request {
	return r.groups(ctx, client.InNamespace(server.GetNamespace()), client.MatchingLabels{openimv1.LabelServer: server.GetName()})
}

func (r *Reconciler) groups(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var all openimv1.GroupInfoList
	if err := r.Client.List(ctx, &all, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "GroupInfos not listed: a change may be noticed late")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(all.Items))
	for i := range all.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
	}
	return requests
}

// groupOf returns the group that the object was made for.
func groupOf(object client.Object) []reconcile.Request {
	name := object.GetLabels()[openimv1.LabelGroupInfo]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: object.GetNamespace(), Name: name}}}
}

// configMapChanges enqueues the group of a ConfigMap that changed, under its old label as well where somebody changed it.
func (r *Reconciler) configMapChanges() handler.EventHandler {
	mapped := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		return groupOf(object)
	})
	return handler.Funcs{
		CreateFunc: mapped.Create,
		UpdateFunc: mapped.Update,
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			// The cache has seen the object go, so an own write to it that the cache never showed is no news any more.
			r.configMaps.writes.Forget(client.ObjectKeyFromObject(e.Object))
			mapped.Delete(ctx, e, q)
		},
	}
}

// jobChanges enqueues the group of a Job that changed, and the group that waits longest when a Job has ended.
func (r *Reconciler) jobChanges() handler.EventHandler {
	mapped := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, object client.Object) []reconcile.Request {
		return groupOf(object)
	})
	unfinished := func(object client.Object) bool {
		job, ok := object.(*batchv1.Job)
		return ok && observe(job).state == jobActive
	}
	ended := func(job client.Object) {
		if owner := metav1.GetControllerOf(job); owner != nil {
			r.jobs.slots.ended(owner.UID)
		}
	}
	return handler.Funcs{
		CreateFunc: mapped.Create,
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			mapped.Update(ctx, e, q)
			if unfinished(e.ObjectOld) && !unfinished(e.ObjectNew) {
				ended(e.ObjectNew)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			mapped.Delete(ctx, e, q)
			// The cache may have missed how it ended.
			ended(e.Object)
		},
	}
}
