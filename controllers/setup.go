package controllers

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/controllers/groupinfo"
	"github.com/groupinfo-operator/groupinfo-operator/controllers/groupsync"
	"github.com/groupinfo-operator/groupinfo-operator/controllers/openimserver"
)

// Options of the controllers. All are required.
type Options struct {
	// VerifierSecret is the Secret that carries the verifiers to the receivers.
	VerifierSecret client.ObjectKey
	// Verifiers is the cache of that Secret.
	Verifiers cache.Cache
	// Now is the wall clock.
	Now func() time.Time
}

// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=groupinfo-operator-system,resources=leases,verbs=get;create;update;patch
// +kubebuilder:rbac:groups="",namespace=groupinfo-operator-system,resources=events,verbs=create;patch

// Setup adds all controllers to the manager, which must have been made with CacheOptions. The Lease is for the leader
// election.
func Setup(mgr manager.Manager, options Options) error {
	if err := openimserver.Setup(mgr, options.Verifiers, options.VerifierSecret, options.Now); err != nil {
		return fmt.Errorf("set up the OpenIMServer controller: %w", err)
	}
	if err := groupinfo.Setup(mgr, options.Now); err != nil {
		return fmt.Errorf("set up the GroupInfo controller: %w", err)
	}
	if err := groupsync.Setup(mgr, options.Now); err != nil {
		return fmt.Errorf("set up the GroupSync controller: %w", err)
	}
	return nil
}

// CacheOptions returns what the controllers need of their manager's cache: of ConfigMaps only those that a GroupSync keeps,
// and no history of GroupInfos. Of Secrets and ConfigMaps the controllers watch nothing but the metadata; whole ones they
// read from the API server.
func CacheOptions() cache.Options {
	kept, err := labels.NewRequirement(openimv1.LabelGroupSync, selection.Exists, nil)
	if err != nil {
		// The label is a constant.
		panic(err)
	}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {
				Label: labels.NewSelector().Add(*kept),
				// The managed fields tell who wrote which key: they must stay.
				Transform: func(object any) (any, error) { return object, nil },
			},
			&openimv1.GroupInfo{}: {Transform: stripHistory},
		},
	}
}

// stripHistory leaves out of the cache what no controller reads.
func stripHistory(object any) (any, error) {
	if group, ok := object.(*openimv1.GroupInfo); ok {
		group.ManagedFields = nil
		group.History = nil
	}
	return object, nil
}
