package groupinfo

import (
	"context"
	"fmt"
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

// applyStatus writes the status if it says anything new, and tells of transitions.
func (r *Reconciler) applyStatus(ctx context.Context, s *scope) error {
	group := s.group
	status := openimv1.GroupInfoStatus{
		ObservedGeneration: group.Generation,
		Conditions:         conditions.New(group.Status.Conditions, group.Generation, r.Now(), s.conditions()...),
		Syncs:              s.outcomes,
	}
	if equality.Semantic.DeepEqual(group.Status, status) {
		return nil
	}
	applied := openimac.GroupInfo(group.Name, group.Namespace).WithStatus(statusConfiguration(status))
	if err := r.Client.Status().Apply(ctx, applied, client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
		// The group may have been deleted in the meantime, and then nobody reads its status.
		return client.IgnoreNotFound(fmt.Errorf("apply status: %w", err))
	}
	r.statusWrites.Record(client.ObjectKeyFromObject(group), ownwrites.Write{ResourceVersion: *applied.ResourceVersion})
	r.tell(s)
	return nil
}

func statusConfiguration(status openimv1.GroupInfoStatus) *openimac.GroupInfoStatusApplyConfiguration {
	configuration := openimac.GroupInfoStatus().
		WithObservedGeneration(status.ObservedGeneration).
		WithConditions(conditions.Apply(status.Conditions)...)
	for _, sync := range status.Syncs {
		entry := openimac.GroupInfoSyncStatus().
			WithName(sync.Name).
			WithUID(sync.UID).
			WithObservedGeneration(sync.ObservedGeneration).
			WithState(sync.State).
			WithTarget(sync.Target).
			WithLastTransitionTime(sync.LastTransitionTime)
		if sync.ContentHash != "" {
			entry.WithContentHash(sync.ContentHash)
		}
		if sync.Message != "" {
			entry.WithMessage(sync.Message)
		}
		configuration.WithSyncs(entry)
	}
	return configuration
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
	failed, conflicting := s.namesOf(openimv1.SyncStateFailed), s.namesOf(openimv1.SyncStateConflict)
	switch {
	case s.unexpectedName != "":
		return unready(openimv1.ConditionStalled, openimv1.ReasonNameMismatch, fmt.Sprintf(
			"the GroupInfo for this groupID is %s, and no callback reaches this one; delete it", s.unexpectedName))
	case len(s.selecting) > maxSyncs:
		return unready(openimv1.ConditionStalled, openimv1.ReasonTooManySyncs, fmt.Sprintf(
			"%d GroupSyncs select this group and only the first %d by name are served; narrow their selectors", len(s.selecting), maxSyncs))
	case len(failed) > 0:
		return unready(openimv1.ConditionReconciling, openimv1.ReasonSyncFailed,
			"not in step, trying again: GroupSync "+strings.Join(failed, ", ")+"; see status.syncs")
	case len(conflicting) > 0:
		return unready(openimv1.ConditionStalled, openimv1.ReasonTargetConflict,
			"another object is in the way: GroupSync "+strings.Join(conflicting, ", ")+"; see status.syncs")
	case s.serverMissing:
		return []metav1.Condition{ready(metav1.ConditionUnknown, openimv1.ReasonServerMissing, fmt.Sprintf(
			"OpenIMServer %s does not exist, so changes to this group are not heard of; create it, or delete the group", s.group.Spec.ServerName))}
	case len(s.selecting) == 0:
		return []metav1.Condition{ready(metav1.ConditionTrue, openimv1.ReasonNothingToSync, "no GroupSync selects this group")}
	default:
		return []metav1.Condition{ready(metav1.ConditionTrue, openimv1.ReasonInSync, fmt.Sprintf("in step: %d GroupSyncs", len(s.selecting)))}
	}
}

func (s *scope) namesOf(state openimv1.SyncState) []string {
	var names []string
	for _, outcome := range s.outcomes {
		if outcome.State == state {
			names = append(names, outcome.Name)
		}
	}
	return names
}

// tell records an event for each GroupSync that ran into trouble or got out of it. That a target was written for the first
// time is no trouble: the status shows it, and 100,000 groups would make 100,000 events.
func (r *Reconciler) tell(s *scope) {
	for _, outcome := range s.outcomes {
		before := findSync(s.group.Status.Syncs, outcome.Name)
		switch {
		case before != nil && before.State == outcome.State:
		case outcome.State != openimv1.SyncStateSynced:
			r.Recorder.Eventf(s.group, nil, corev1.EventTypeWarning, "Sync"+string(outcome.State), "Sync", "GroupSync %s: %s", outcome.Name, outcome.Message)
		case before != nil:
			r.Recorder.Eventf(s.group, nil, corev1.EventTypeNormal, "SyncRecovered", "Sync", "GroupSync %s: %s is in step again", outcome.Name, outcome.Target)
		}
	}
}
