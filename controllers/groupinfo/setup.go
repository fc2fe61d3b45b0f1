package groupinfo

import (
	"context"
	"time"

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

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
)

const (
	// groupIndex indexes ConfigMaps by the GroupInfo that they mirror.
	groupIndex = "groupInfo"

	// maxConcurrentReconciles is how many groups are worked on at once. A reconcile mostly waits for the API server.
	maxConcurrentReconciles = 8
)

var configMapKind = corev1.SchemeGroupVersion.WithKind("ConfigMap")

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager, now func() time.Time) error {
	r := &Reconciler{
		Client:       mgr.GetClient(),
		Recorder:     mgr.GetEventRecorder("groupinfo-operator"),
		Now:          now,
		configMaps:   &configMaps{client: mgr.GetClient(), live: mgr.GetAPIReader(), writes: ownwrites.New(now)},
		statusWrites: ownwrites.New(now),
	}
	kept := &metav1.PartialObjectMetadata{}
	kept.SetGroupVersionKind(configMapKind)
	err := mgr.GetFieldIndexer().IndexField(context.Background(), kept, groupIndex, func(object client.Object) []string {
		return []string{object.GetLabels()[openimv1.LabelGroupInfo]}
	})
	if err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("groupinfo").
		WithOptions(controller.Options{MaxConcurrentReconciles: maxConcurrentReconciles}).
		For(&openimv1.GroupInfo{}).
		Watches(&openimv1.GroupSync{}, handler.EnqueueRequestsFromMapFunc(r.groupsOfSync),
			builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&openimv1.OpenIMServer{}, handler.EnqueueRequestsFromMapFunc(r.groupsOfServer),
			builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		WatchesMetadata(&corev1.ConfigMap{}, r.configMapChanges()).
		Complete(r)
}

// groupsOfSync returns every group of the namespace, since the selector may have changed, and the groups that a ConfigMap
// is kept for although they are gone.
func (r *Reconciler) groupsOfSync(ctx context.Context, sync client.Object) []reconcile.Request {
	requests := r.groups(ctx, client.InNamespace(sync.GetNamespace()))
	var kept metav1.PartialObjectMetadataList
	kept.SetGroupVersionKind(configMapKind.GroupVersion().WithKind("ConfigMapList"))
	err := r.Client.List(ctx, &kept, client.InNamespace(sync.GetNamespace()), client.MatchingLabels{openimv1.LabelGroupSync: sync.GetName()})
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "ConfigMaps not listed: those of deleted groups may stay until the next start")
		return requests
	}
	for i := range kept.Items {
		requests = append(requests, groupOf(&kept.Items[i])...)
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

// groupOf returns the group that the ConfigMap mirrors.
func groupOf(configMap client.Object) []reconcile.Request {
	name := configMap.GetLabels()[openimv1.LabelGroupInfo]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: configMap.GetNamespace(), Name: name}}}
}

// configMapChanges enqueues the group of a ConfigMap that changed, under its old label as well where somebody changed it.
func (r *Reconciler) configMapChanges() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
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
