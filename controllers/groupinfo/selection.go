package groupinfo

import (
	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

// Suspended reports whether the GroupSync is to be left alone.
func Suspended(sync *openimv1.GroupSync) bool {
	return sync.Spec.Suspend != nil && *sync.Spec.Suspend
}

// active reports whether the GroupSync's targets are ours to write and remove: those of a suspended one, and of one that
// cannot be understood, stay as they are, and those of one that is being deleted are the garbage collector's.
func active(sync *openimv1.GroupSync, compiled *rules.Rules) bool {
	return !Suspended(sync) && sync.DeletionTimestamp.IsZero() && compiled.Valid()
}
