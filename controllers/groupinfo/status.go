package groupinfo

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/conditions"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
)

// applyStatus writes the status if it says anything new, and tells of transitions. It returns whether it wrote it.
func (r *Reconciler) applyStatus(ctx context.Context, s *scope) (bool, error) {
	group := s.group
	status := openimv1.GroupInfoStatus{
		ObservedGeneration: group.Generation,
		Conditions:         conditions.New(group.Status.Conditions, group.Generation, r.Now(), s.conditions()...),
		Syncs:              s.outcomes,
	}
	if equality.Semantic.DeepEqual(group.Status, status) {
		return false, nil
	}
	applied := openimac.GroupInfo(group.Name, group.Namespace).WithStatus(statusConfiguration(status))
	if s.runs || recordsRuns(group.Status.Syncs) {
		// What is recorded of runs decides what is run next. It must follow from what was recorded last, by whomever.
		applied.WithUID(group.UID).WithResourceVersion(group.ResourceVersion)
	}
	if err := r.Client.Status().Apply(ctx, applied, client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
		// The group may have been deleted in the meantime, and then nobody reads its status.
		return false, client.IgnoreNotFound(fmt.Errorf("apply status: %w", err))
	}
	r.statusWrites.Record(client.ObjectKeyFromObject(group), ownwrites.Write{ResourceVersion: *applied.ResourceVersion})
	r.tell(s)
	return true, nil
}

// recordsRuns reports whether a run is on record.
func recordsRuns(syncs []openimv1.GroupInfoSyncStatus) bool {
	return slices.ContainsFunc(syncs, func(entry openimv1.GroupInfoSyncStatus) bool { return entry.Revision > 0 })
}

func statusConfiguration(status openimv1.GroupInfoStatus) *openimac.GroupInfoStatusApplyConfiguration {
	configuration := openimac.GroupInfoStatus().
		WithObservedGeneration(status.ObservedGeneration).
		WithConditions(conditions.Apply(status.Conditions)...)
	for i := range status.Syncs {
		configuration.WithSyncs(entryConfiguration(&status.Syncs[i]))
	}
	return configuration
}

func entryConfiguration(sync *openimv1.GroupInfoSyncStatus) *openimac.GroupInfoSyncStatusApplyConfiguration {
	entry := openimac.GroupInfoSyncStatus().
		WithName(sync.Name).
		WithUID(sync.UID).
		WithObservedGeneration(sync.ObservedGeneration).
		WithState(sync.State).
		WithLastTransitionTime(sync.LastTransitionTime)
	entry.Target = optional(sync.Target)
	entry.ContentHash = optional(sync.ContentHash)
	entry.Revision = optional(sync.Revision)
	entry.Attempts = optional(sync.Attempts)
	entry.Membership = optional(sync.Membership)
	entry.Message = optional(sync.Message)
	entry.RequestedAt, entry.StartTime = sync.RequestedAt, sync.StartTime
	entry.CompletionTime, entry.NextAttemptTime = sync.CompletionTime, sync.NextAttemptTime
	return entry
}

// optional returns nil for what an entry leaves out.
func optional[T comparable](value T) *T {
	var zero T
	if value == zero {
		return nil
	}
	return &value
}

// conditions returns what holds now.
func (s *scope) conditions() []metav1.Condition {
	holding := s.readiness()
	if omitted := s.group.Spec.Omitted; len(omitted) > 0 {
		var fields []string
		for _, field := range omitted {
			fields = append(fields, fmt.Sprintf("%s (%d bytes)", field.Field, field.Bytes))
		}
		holding = append(holding, metav1.Condition{
			Type: openimv1.ConditionTruncated, Status: metav1.ConditionTrue, Reason: openimv1.ReasonFieldTooLarge,
			Message: "too large to store, so absent: " + strings.Join(fields, ", "),
		})
	}
	return holding
}

// readiness returns Ready and, where it is false, why: Stalled where somebody must act, Reconciling where the operator tries
// again.
func (s *scope) readiness() []metav1.Condition {
	ready := func(status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: openimv1.ConditionReady, Status: status, Reason: reason, Message: message}
	}
	unready := func(companion, reason, message string) []metav1.Condition {
		return []metav1.Condition{
			ready(metav1.ConditionFalse, reason, message),
			{Type: companion, Status: metav1.ConditionTrue, Reason: reason, Message: message},
		}
	}
	failed, gaveUp, conflicting := s.namesOf(Failing), s.namesOf(inState(openimv1.SyncStateGaveUp)), s.namesOf(inState(openimv1.SyncStateConflict))
	underway := s.namesOf(InProgress)
	switch {
	case s.unexpectedName != "":
		return unready(openimv1.ConditionStalled, openimv1.ReasonNameMismatch, fmt.Sprintf(
			"the GroupInfo for this groupID is %s, and no callback reaches this one; delete it", s.unexpectedName))
	case s.unserved > 0:
		return unready(openimv1.ConditionStalled, openimv1.ReasonTooManySyncs, fmt.Sprintf(
			"%d GroupSyncs select this group, and %d of them are not served: a group has room for %d; narrow their selectors", s.selecting, s.unserved, maxSyncs))
	case len(failed) > 0:
		return unready(openimv1.ConditionReconciling, openimv1.ReasonSyncFailed,
			"not in step, trying again: GroupSync "+strings.Join(failed, ", ")+"; see status.syncs")
	case len(gaveUp) > 0:
		return unready(openimv1.ConditionStalled, openimv1.ReasonSyncGaveUp,
			"failed for good: GroupSync "+strings.Join(gaveUp, ", ")+"; see status.syncs")
	case len(conflicting) > 0:
		return unready(openimv1.ConditionStalled, openimv1.ReasonTargetConflict,
			"another object is in the way: GroupSync "+strings.Join(conflicting, ", ")+"; see status.syncs")
	case len(underway) > 0:
		return unready(openimv1.ConditionReconciling, openimv1.ReasonSyncInProgress,
			"on its way: GroupSync "+strings.Join(underway, ", ")+"; see status.syncs")
	case s.serverMissing:
		return []metav1.Condition{ready(metav1.ConditionUnknown, openimv1.ReasonServerMissing, fmt.Sprintf(
			"OpenIMServer %s does not exist, so changes to this group are not heard of; create it, or delete the group", s.group.Spec.ServerName))}
	case s.selecting == 0:
		return []metav1.Condition{ready(metav1.ConditionTrue, openimv1.ReasonNothingToSync, "no GroupSync selects this group")}
	default:
		return []metav1.Condition{ready(metav1.ConditionTrue, openimv1.ReasonInSync, fmt.Sprintf("in step: %d GroupSyncs", s.selecting))}
	}
}

// namesOf returns the GroupSyncs that pick the group and whose entry is as asked for.
func (s *scope) namesOf(is func(*openimv1.GroupInfoSyncStatus) bool) []string {
	var names []string
	for i := range s.outcomes {
		if outcome := &s.outcomes[i]; s.counts(outcome.Name) && is(outcome) {
			names = append(names, outcome.Name)
		}
	}
	return names
}

// counts reports whether readiness depends on the GroupSync. Entries stay on record for some that do not pick the group.
func (s *scope) counts(name string) bool {
	return slices.ContainsFunc(s.tasks, func(t *task) bool { return t.sync.Name == name && (t.selected || t.fault != nil) })
}

func inState(state openimv1.SyncState) func(*openimv1.GroupInfoSyncStatus) bool {
	return func(entry *openimv1.GroupInfoSyncStatus) bool { return entry.State == state }
}

// Failing reports whether the last attempt failed and another is to come. A run whose Job cannot be created is one.
func Failing(entry *openimv1.GroupInfoSyncStatus) bool {
	return entry.State == openimv1.SyncStateFailed || (entry.State == openimv1.SyncStatePending && entry.Message != "")
}

// InProgress reports whether a run is due or on its way.
func InProgress(entry *openimv1.GroupInfoSyncStatus) bool {
	switch entry.State {
	case openimv1.SyncStateWaiting, openimv1.SyncStatePending, openimv1.SyncStateRunning:
		return !Failing(entry)
	default:
		return false
	}
}

// Settled reports whether the target is in step.
func Settled(entry *openimv1.GroupInfoSyncStatus) bool {
	return entry.State == openimv1.SyncStateSynced || entry.State == openimv1.SyncStateIgnored
}

// trouble names the trouble that an entry is in, as the reason of an event, or nothing.
func trouble(entry *openimv1.GroupInfoSyncStatus) string {
	switch {
	case entry == nil:
		return ""
	case Failing(entry):
		return "Sync" + string(openimv1.SyncStateFailed)
	case entry.State == openimv1.SyncStateGaveUp, entry.State == openimv1.SyncStateConflict:
		return "Sync" + string(entry.State)
	default:
		return ""
	}
}

// tell records an event for each GroupSync that ran into trouble or got out of it. That a target was written for the first
// time is no trouble: the status shows it, and 100,000 groups would make 100,000 events. Nor is a new attempt the end of
// the trouble.
func (r *Reconciler) tell(s *scope) {
	for i := range s.outcomes {
		now := &s.outcomes[i]
		var before *openimv1.GroupInfoSyncStatus
		if at := slices.IndexFunc(s.group.Status.Syncs, func(e openimv1.GroupInfoSyncStatus) bool { return e.Name == now.Name && e.UID == now.UID }); at >= 0 {
			before = &s.group.Status.Syncs[at]
		}
		reason := trouble(now)
		switch {
		case reason != "" && reason != trouble(before):
			r.Recorder.Eventf(s.group, nil, corev1.EventTypeWarning, reason, "Sync", "GroupSync %s: %s", now.Name, now.Message)
		case now.State == openimv1.SyncStateSynced && before != nil && (trouble(before) != "" || before.Attempts > 1):
			r.Recorder.Eventf(s.group, nil, corev1.EventTypeNormal, "SyncRecovered", "Sync", "GroupSync %s: %s is in step again", now.Name, now.Target)
		}
	}
}
