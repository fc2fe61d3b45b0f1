package controllers

import (
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
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
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
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
	compiled, err := rules.NewCache(groupinfo.CheckTarget)
	if err != nil {
		return err
	}
	if err := groupinfo.Setup(mgr, compiled, options.Now); err != nil {
		return fmt.Errorf("set up the GroupInfo controller: %w", err)
	}
	if err := groupsync.Setup(mgr, compiled, options.Now); err != nil {
		return fmt.Errorf("set up the GroupSync controller: %w", err)
	}
	return nil
}

// CacheOptions returns what the controllers need of their manager's cache: of ConfigMaps and Jobs only those that a
// GroupSync made, and of GroupInfos and Jobs not what no controller reads. Of Secrets and ConfigMaps the controllers watch nothing but the metadata; whole ones they
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
			&batchv1.Job{}:        {Label: labels.NewSelector().Add(*kept), Transform: stripTemplate},
			&openimv1.GroupInfo{}: {Transform: stripHistory},
		},
	}
}

// stripHistory leaves out of the cache what no controller reads of a history: all but its newest entry, and the newest that
// tells of members.
func stripHistory(object any) (any, error) {
	group, ok := object.(*openimv1.GroupInfo)
	if !ok {
		return object, nil
	}
	group.ManagedFields = nil
	var kept []openimv1.HistoryEntry
	for i := range group.History {
		membership := rules.IsMembershipChange(&group.History[i])
		if i == 0 || membership {
			kept = append(kept, group.History[i])
		}
		if membership {
			break
		}
	}
	group.History = kept
	return group, nil
}

// stripTemplate leaves the pod template of a Job out of the cache: it holds the group once more, and no controller reads
// it.
func stripTemplate(object any) (any, error) {
	if job, ok := object.(*batchv1.Job); ok {
		job.ManagedFields = nil
		job.Spec = batchv1.JobSpec{Suspend: job.Spec.Suspend}
	}
	return object, nil
}
