package openimserver

import (
	"bytes"
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
)

// secretIndex indexes OpenIMServers by the name of their token Secret.
const secretIndex = "tokenSecret"

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager, verifiers cache.Cache, verifierSecret client.ObjectKey, now func() time.Time) error {
	r := &Reconciler{
		Client:         mgr.GetClient(),
		Live:           mgr.GetAPIReader(),
		Verifiers:      verifiers,
		VerifierSecret: verifierSecret,
		Recorder:       mgr.GetEventRecorder("groupinfo-operator"),
		Now:            now,
		statusWrites:   ownwrites.New(now),
	}
	err := mgr.GetFieldIndexer().IndexField(context.Background(), &openimv1.OpenIMServer{}, secretIndex, func(object client.Object) []string {
		server, ok := object.(*openimv1.OpenIMServer)
		if !ok {
			return nil
		}
		name, _ := secretName(server)
		return []string{name}
	})
	if err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("openimserver").
		For(&openimv1.OpenIMServer{}).
		// Of two servers in a namespace one waits for the other to go.
		Watches(&openimv1.OpenIMServer{}, handler.EnqueueRequestsFromMapFunc(r.neighbours)).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.usersOf)).
		WatchesRawSource(source.Kind(verifiers, &corev1.Secret{}, projectionChanges())).
		Complete(r)
}

// neighbours returns the OpenIMServers in the same namespace.
func (r *Reconciler) neighbours(ctx context.Context, object client.Object) []reconcile.Request {
	return r.list(ctx, client.InNamespace(object.GetNamespace()))
}

// usersOf returns the OpenIMServers whose tokens are in the Secret.
func (r *Reconciler) usersOf(ctx context.Context, secret client.Object) []reconcile.Request {
	return r.list(ctx, client.InNamespace(secret.GetNamespace()), client.MatchingFields{secretIndex: secret.GetName()})
}

func (r *Reconciler) list(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var servers openimv1.OpenIMServerList
	if err := r.Client.List(ctx, &servers, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "OpenIMServers not listed: a change may be noticed late")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(servers.Items))
	for i := range servers.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&servers.Items[i])})
	}
	return requests
}

// projectionChanges enqueues the servers whose verifiers in the projected Secret came, changed or went. Those that were
// there before the controller started are among them: the server of one may have been deleted in the meantime.
func projectionChanges() handler.TypedEventHandler[*corev1.Secret, reconcile.Request] {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	enqueue := func(q queue, before, after map[string][]byte) {
		for _, data := range []map[string][]byte{before, after} {
			for key := range data {
				namespace, name, found := strings.Cut(key, ".")
				if found && !bytes.Equal(before[key], after[key]) {
					q.Add(reconcile.Request{NamespacedName: client.ObjectKey{Namespace: namespace, Name: name}})
				}
			}
		}
	}
	return handler.TypedFuncs[*corev1.Secret, reconcile.Request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*corev1.Secret], q queue) {
			enqueue(q, nil, e.Object.Data)
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*corev1.Secret], q queue) {
			enqueue(q, e.ObjectOld.Data, e.ObjectNew.Data)
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*corev1.Secret], q queue) {
			enqueue(q, e.Object.Data, nil)
		},
	}
}
