package groupinfo

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// Selector returns what a GroupSync selects by, where an absent selector selects everything. The error is for the user: it
// says what is wrong with spec.selector.
func Selector(sync *openimv1.GroupSync) (labels.Selector, error) {
	if sync.Spec.Selector == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(sync.Spec.Selector)
}

// Suspended reports whether the GroupSync is to be left alone.
func Suspended(sync *openimv1.GroupSync) bool {
	return sync.Spec.Suspend != nil && *sync.Spec.Suspend
}

// selects reports whether the GroupSync wants a target for the group. A GroupSync that cannot be understood, is suspended
// or is being deleted wants nothing written.
func selects(sync *openimv1.GroupSync, group *openimv1.GroupInfo) bool {
	if !active(sync) {
		return false
	}
	selector, err := Selector(sync)
	return err == nil && selector.Matches(labels.Set(group.Labels))
}

// active reports whether the GroupSync's targets are ours to write and remove: those of a suspended one, and of one whose
// selector cannot be understood, stay as they are, and those of one that is being deleted are the garbage collector's.
func active(sync *openimv1.GroupSync) bool {
	if Suspended(sync) || !sync.DeletionTimestamp.IsZero() {
		return false
	}
	_, err := Selector(sync)
	return err == nil
}
