package main

import (
	"context"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// watch prints changes of GroupInfos in all namespaces until the context ends.
func watch(ctx context.Context, config *rest.Config, out io.Writer) error {
	scheme := runtime.NewScheme()
	if err := openimv1.AddToScheme(scheme); err != nil {
		return fmt.Errorf("register the API types: %w", err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			ByObject: map[client.Object]cache.ByObject{&openimv1.GroupInfo{}: {Transform: slim}},
		},
		Metrics: server.Options{BindAddress: "0"},
	})
	if err != nil {
		return fmt.Errorf("set up the manager: %w", err)
	}
	p := &printer{client: mgr.GetClient(), out: out, told: map[types.NamespacedName]openimv1.GroupInfoSpec{}}
	if err := ctrl.NewControllerManagedBy(mgr).Named("watch").For(&openimv1.GroupInfo{}).Complete(p); err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	return mgr.Start(ctx)
}

// slim leaves out of the cache what this program does not look at.
func slim(object any) (any, error) {
	if group, ok := object.(*openimv1.GroupInfo); ok {
		group.ManagedFields = nil
		group.History = nil
	}
	return object, nil
}

// printer is a reconciler that prints a line when a group's spec is not the one that it printed last.
//
// The generation does not tell: new history entries raise it as well, so predicate.GenerationChangedPredicate lets
// changes through that leave the spec as it was. An operator that writes something for each group would keep a hash of
// the spec beside what it wrote, and so know after a restart, too, what it has done.
type printer struct {
	client client.Client
	out    io.Writer
	// told holds the spec that was printed last for each group. One reconcile runs at a time, so it needs no lock.
	told map[types.NamespacedName]openimv1.GroupInfoSpec
}

// Reconcile implements reconcile.Reconciler.
func (p *printer) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	before, known := p.told[request.NamespacedName]
	group := &openimv1.GroupInfo{}
	if err := p.client.Get(ctx, request.NamespacedName, group); apierrors.IsNotFound(err) {
		delete(p.told, request.NamespacedName)
		if !known {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, p.print(request, before.GroupID, "deleted")
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if known && equality.Semantic.DeepEqual(before, group.Spec) {
		return ctrl.Result{}, nil
	}
	p.told[request.NamespacedName] = group.Spec
	return ctrl.Result{}, p.print(request, group.Spec.GroupID, name(group.Spec))
}

func (p *printer) print(request ctrl.Request, groupID, what string) error {
	// Users of OpenIM choose group IDs, out of any characters: quoted, they stay on their line.
	_, err := fmt.Fprintf(p.out, "%s %q %s\n", request, groupID, what)
	return err
}

// name returns the group's name. A nil pointer is not an empty text: it says that OpenIM never told.
func name(spec openimv1.GroupInfoSpec) string {
	if spec.GroupName == nil {
		return "(name not told)"
	}
	return fmt.Sprintf("%q", *spec.GroupName)
}
