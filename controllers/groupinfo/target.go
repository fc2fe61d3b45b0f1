package groupinfo

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/conditions"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

// target is a kind of target: what a GroupSync keeps, or does, for a group.
type target interface {
	// step brings the target nearer to the group's content, as far as that goes now. It is called for each GroupSync of
	// this kind that selects the group, and for each that has an entry for it and does not select it any more.
	step(ctx context.Context, t *task) outcome

	// remove removes what the GroupSyncs, of any kind, made for a group that is gone.
	remove(ctx context.Context, group client.ObjectKey, syncs []openimv1.GroupSync) error
}

// task is one GroupSync and one group.
type task struct {
	sync  *openimv1.GroupSync
	rules *rules.Rules
	group *openimv1.GroupInfo
	// selected reports whether the GroupSync picks the group.
	selected bool
	// fault is why it is not known whether it does: an expression that cannot be evaluated. It is for the user.
	fault error
	// recorded is the entry in the group's status, or nil.
	recorded *openimv1.GroupInfoSyncStatus
	now      time.Time
}

// outcome is what a step came to.
type outcome struct {
	// entry is what to record, or nil to record nothing.
	entry *openimv1.GroupInfoSyncStatus
	// err asks for another attempt, after a while that grows.
	err error
	// after asks for another look at that time, if it is not zero.
	after time.Duration
	// then is to be done once the entry is recorded, and only then.
	then func(ctx context.Context) error
}

// newEntry returns the entry that is recorded so far, or an empty one, for this generation of the GroupSync.
func (t *task) newEntry() openimv1.GroupInfoSyncStatus {
	var entry openimv1.GroupInfoSyncStatus
	if t.recorded != nil {
		entry = *t.recorded.DeepCopy()
	}
	entry.Name, entry.UID, entry.ObservedGeneration = t.sync.Name, string(t.sync.UID), t.sync.Generation
	entry.Message = ""
	return entry
}

// finish makes an entry fit to be recorded.
func (t *task) finish(entry *openimv1.GroupInfoSyncStatus) {
	entry.Message = conditions.Truncate(entry.Message, maxSyncMessageBytes)
	if t.recorded == nil || t.recorded.State != entry.State {
		entry.LastTransitionTime = wholeSeconds(t.now)
	}
}

// request returns the time of the latest request for a run that was not acted on, or nil. A request from before the
// GroupSync or the group does not count: it came along with a backup, or was meant for another object of the name.
func (t *task) request() *metav1.Time {
	var latest *metav1.Time
	for _, object := range []client.Object{t.sync, t.group} {
		at, err := time.Parse(time.RFC3339, object.GetAnnotations()[openimv1.AnnotationSyncRequestedAt])
		if err != nil || at.Before(t.sync.CreationTimestamp.Time) || at.Before(t.group.CreationTimestamp.Time) {
			continue
		}
		at = at.Truncate(time.Second)
		if t.recorded != nil && t.recorded.RequestedAt != nil && !at.After(t.recorded.RequestedAt.Time) {
			continue
		}
		if latest == nil || at.After(latest.Time) {
			latest = new(metav1.NewTime(at))
		}
	}
	return latest
}

// ignored reports whether the group is one that was there before the GroupSync and that existingGroups leaves alone, where
// hash identifies its present state.
func (t *task) ignored(hash string) bool {
	if existingGroups(t.sync) != openimv1.ExistingGroupsIgnore || t.request() != nil {
		return false
	}
	if t.recorded != nil {
		return t.recorded.State == openimv1.SyncStateIgnored && (t.recorded.ContentHash == hash || !t.rules.SameBasis(t.recorded.ContentHash))
	}
	// In a backup that is restored the group comes back with its history, and the GroupSync is new.
	return lastChange(t.group).Before(t.sync.CreationTimestamp.Time)
}

func existingGroups(sync *openimv1.GroupSync) openimv1.ExistingGroupsPolicy {
	switch {
	case sync.Spec.ExistingGroups != "":
		return sync.Spec.ExistingGroups
	case sync.Spec.Target.ConfigMap != nil:
		return openimv1.ExistingGroupsSync
	default:
		return openimv1.ExistingGroupsIgnore
	}
}

// lastChange returns when the group was told of last, in whole seconds.
func lastChange(group *openimv1.GroupInfo) time.Time {
	if len(group.History) == 0 {
		return group.CreationTimestamp.Time
	}
	return group.History[0].Time.Time
}

func wholeSeconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }
