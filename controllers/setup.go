package controllers

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
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
	// Now is the wall clock.
	Now func() time.Time
}

// Setup adds all controllers to the manager, whose cache must have been made with CacheObjects.
func Setup(mgr manager.Manager, options Options) error {
	if err := openimserver.Setup(mgr, options.VerifierSecret, options.Now); err != nil {
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

// CacheObjects says what the manager's cache holds of each kind: no Secret but the projected one, of ConfigMaps only those
// that a GroupSync keeps (and, of these, the metadata: see package groupinfo), and no history of GroupInfos.
func CacheObjects(verifierSecret client.ObjectKey) map[client.Object]cache.ByObject {
	kept, err := labels.NewRequirement(openimv1.LabelGroupSync, selection.Exists, nil)
	if err != nil {
		// The label is a constant.
		panic(err)
	}
	return map[client.Object]cache.ByObject{
		&corev1.Secret{}: VerifierSecretOnly(verifierSecret),
		&corev1.ConfigMap{}: {
			Label: labels.NewSelector().Add(*kept),
			// The managed fields tell who wrote which key: they must stay.
			Transform: func(object any) (any, error) { return object, nil },
		},
		&openimv1.GroupInfo{}: {Transform: stripHistory},
	}
}

// VerifierSecretOnly limits a cache of Secrets to the projected one.
func VerifierSecretOnly(secret client.ObjectKey) cache.ByObject {
	return cache.ByObject{
		Namespaces: map[string]cache.Config{secret.Namespace: {
			FieldSelector: fields.OneTermEqualSelector("metadata.name", secret.Name),
		}},
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
