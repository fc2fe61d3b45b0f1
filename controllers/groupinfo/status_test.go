package groupinfo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func TestConditions(t *testing.T) {
	condition := func(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
	}
	outcomes := func(states ...openimv1.SyncState) (all []openimv1.GroupInfoSyncStatus) {
		for i, state := range states {
			all = append(all, openimv1.GroupInfoSyncStatus{Name: fmt.Sprintf("sync-%d", i), State: state})
		}
		return all
	}
	const (
		ready, reconciling, stalled = openimv1.ConditionReady, openimv1.ConditionReconciling, openimv1.ConditionStalled

		mismatch  = "the GroupInfo for this groupID is other, and no callback reaches this one; delete it"
		tooMany   = "33 GroupSyncs select this group, and 1 of them are not served: a group has room for 32; narrow their selectors"
		gaveUp    = "failed for good: GroupSync sync-0; see status.syncs"
		underway  = "on its way: GroupSync sync-1, sync-2, sync-3; see status.syncs"
		failed    = "not in step, trying again: GroupSync sync-1, sync-2; see status.syncs"
		conflicts = "another object is in the way: GroupSync sync-0; see status.syncs"
		missing   = "OpenIMServer demo does not exist, so changes to this group are not heard of; create it, or delete the group"
	)
	for name, tc := range map[string]struct {
		scope scope
		want  []metav1.Condition
	}{
		"in step": {
			scope{selecting: 2, outcomes: outcomes("Synced", "Synced")},
			[]metav1.Condition{condition(ready, metav1.ConditionTrue, openimv1.ReasonInSync, "in step: 2 GroupSyncs")},
		},
		"nothing to sync": {
			scope{},
			[]metav1.Condition{condition(ready, metav1.ConditionTrue, openimv1.ReasonNothingToSync, "no GroupSync selects this group")},
		},
		"failures, which come before conflicts: the operator is at work": {
			scope{selecting: 3, outcomes: outcomes("Conflict", "Failed", "Failed")},
			[]metav1.Condition{
				condition(ready, metav1.ConditionFalse, openimv1.ReasonSyncFailed, failed),
				condition(reconciling, metav1.ConditionTrue, openimv1.ReasonSyncFailed, failed),
			},
		},
		"a conflict: somebody must act": {
			scope{selecting: 2, outcomes: outcomes("Conflict", "Synced"), serverMissing: true},
			[]metav1.Condition{
				condition(ready, metav1.ConditionFalse, openimv1.ReasonTargetConflict, conflicts),
				condition(stalled, metav1.ConditionTrue, openimv1.ReasonTargetConflict, conflicts),
			},
		},
		"a run that failed for good, beside one that is on its way: somebody must act": {
			scope{selecting: 2, outcomes: outcomes("GaveUp", "Running")},
			[]metav1.Condition{
				condition(ready, metav1.ConditionFalse, openimv1.ReasonSyncGaveUp, gaveUp),
				condition(stalled, metav1.ConditionTrue, openimv1.ReasonSyncGaveUp, gaveUp),
			},
		},
		"runs on their way": {
			scope{selecting: 5, outcomes: outcomes("Synced", "Waiting", "Pending", "Running", "Ignored"), serverMissing: true},
			[]metav1.Condition{
				condition(ready, metav1.ConditionFalse, openimv1.ReasonSyncInProgress, underway),
				condition(reconciling, metav1.ConditionTrue, openimv1.ReasonSyncInProgress, underway),
			},
		},
		"what is on record of a GroupSync that does not pick the group": {
			scope{outcomes: []openimv1.GroupInfoSyncStatus{{Name: "other", State: openimv1.SyncStateGaveUp}}},
			[]metav1.Condition{condition(ready, metav1.ConditionTrue, openimv1.ReasonNothingToSync, "no GroupSync selects this group")},
		},
		"more GroupSyncs than are served": {
			scope{selecting: 33, unserved: 1, outcomes: outcomes("Failed")},
			[]metav1.Condition{
				condition(ready, metav1.ConditionFalse, openimv1.ReasonTooManySyncs, tooMany),
				condition(stalled, metav1.ConditionTrue, openimv1.ReasonTooManySyncs, tooMany),
			},
		},
		"as many GroupSyncs as are served": {
			scope{selecting: 32},
			[]metav1.Condition{condition(ready, metav1.ConditionTrue, openimv1.ReasonInSync, "in step: 32 GroupSyncs")},
		},
		"another name than the ID's": {
			scope{unexpectedName: "other", serverMissing: true},
			[]metav1.Condition{
				condition(ready, metav1.ConditionFalse, openimv1.ReasonNameMismatch, mismatch),
				condition(stalled, metav1.ConditionTrue, openimv1.ReasonNameMismatch, mismatch),
			},
		},
		"no server: what is stored is in step, but may be stale": {
			scope{selecting: 1, outcomes: outcomes("Synced"), serverMissing: true},
			[]metav1.Condition{condition(ready, metav1.ConditionUnknown, openimv1.ReasonServerMissing, missing)},
		},
		"a value too large": {
			scope{group: &openimv1.GroupInfo{Spec: openimv1.GroupInfoSpec{Omitted: []openimv1.OmittedField{{Field: "ex", Bytes: 200_000}, {Field: "notification", Bytes: 300_000}}}}},
			[]metav1.Condition{
				condition(ready, metav1.ConditionTrue, openimv1.ReasonNothingToSync, "no GroupSync selects this group"),
				condition(openimv1.ConditionTruncated, metav1.ConditionTrue, openimv1.ReasonFieldTooLarge,
					"too large to store, so absent: ex (200000 bytes), notification (300000 bytes)"),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 5 {
				tc.scope.tasks = append(tc.scope.tasks, &task{
					sync: &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("sync-%d", i)}}, selected: true,
				})
			}
			if tc.scope.group == nil {
				tc.scope.group = &openimv1.GroupInfo{Spec: openimv1.GroupInfoSpec{ServerName: "demo"}}
			}
			got := tc.scope.conditions()
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			kstatus(t, got)
		})
	}
}

// kstatus checks what tools that wait for readiness rely on: Ready is always there and never true beside a condition that
// says otherwise, and of the two others there is at most one.
func kstatus(t *testing.T, conditions []metav1.Condition) {
	t.Helper()
	status := map[string]metav1.ConditionStatus{}
	for _, c := range conditions {
		status[c.Type] = c.Status
	}
	_, reconciling := status[openimv1.ConditionReconciling]
	_, stalled := status[openimv1.ConditionStalled]
	switch {
	case status[openimv1.ConditionReady] == "":
		t.Error("no Ready condition")
	case reconciling && stalled:
		t.Error("Reconciling and Stalled at once")
	case (reconciling || stalled) != (status[openimv1.ConditionReady] == metav1.ConditionFalse):
		t.Errorf("Ready is %s, Reconciling %v, Stalled %v", status[openimv1.ConditionReady], reconciling, stalled)
	}
}

func TestConclude(t *testing.T) {
	const secret = "what a user wrote"
	earlier, now := metav1.NewTime(time.Unix(1000, 0)), time.Unix(2000, 999)
	later := metav1.NewTime(time.Unix(2000, 0))
	sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Name: "mirror", UID: "uid", Generation: 3}}
	want := desired{key: client.ObjectKey{Namespace: "chat", Name: "mirror.g1"}, hash: "new"}
	synced := &openimv1.GroupInfoSyncStatus{Name: "mirror", State: openimv1.SyncStateSynced, ContentHash: "old", LastTransitionTime: earlier}
	failed := &openimv1.GroupInfoSyncStatus{Name: "mirror", State: openimv1.SyncStateFailed, ContentHash: "old", Message: "m", LastTransitionTime: earlier}
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, "mirror.g1", field.ErrorList{
		field.Invalid(field.NewPath("data").Key(secret), secret, "must be shorter than "+secret),
	})
	const (
		conflictMessage = "ConfigMap/mirror.g1 exists and does not belong to this GroupSync; delete or rename it, or use a GroupSync of another name"
		failedMessage   = "ConfigMap/mirror.g1 could not be written (%s); the operator tries again"
	)
	for name, tc := range map[string]struct {
		err    error
		before *openimv1.GroupInfoSyncStatus
		want   openimv1.GroupInfoSyncStatus
	}{
		"the first success": {
			nil, nil,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateSynced, ContentHash: "new", LastTransitionTime: later},
		},
		"new content, same state": {
			nil, synced,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateSynced, ContentHash: "new", LastTransitionTime: earlier},
		},
		"recovered": {
			nil, failed,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateSynced, ContentHash: "new", LastTransitionTime: later},
		},
		"failed: the target holds what it held": {
			fmt.Errorf("apply: %w", invalid), synced,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateFailed, ContentHash: "old", Message: fmt.Sprintf(failedMessage, "Invalid"), LastTransitionTime: later},
		},
		"failed again, otherwise: the time stays": {
			errors.New("dial tcp: connection refused"), failed,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateFailed, ContentHash: "old", Message: fmt.Sprintf(failedMessage, "the API server could not be reached"), LastTransitionTime: earlier},
		},
		"failed at once: the target holds nothing": {
			errors.New("dial tcp: connection refused"), nil,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateFailed, Message: fmt.Sprintf(failedMessage, "the API server could not be reached"), LastTransitionTime: later},
		},
		"a foreign object": {
			fmt.Errorf("wrapped: %w", &conflictError{target: "ConfigMap/mirror.g1"}), nil,
			openimv1.GroupInfoSyncStatus{State: openimv1.SyncStateConflict, Message: conflictMessage, LastTransitionTime: later},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.Name, tc.want.UID, tc.want.ObservedGeneration, tc.want.Target = "mirror", "uid", 3, "ConfigMap/mirror.g1"
			got := *conclude(&task{sync: sync, group: &openimv1.GroupInfo{}, recorded: tc.before, now: now}, want, tc.err).entry
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(got.Message, secret) {
				t.Error("a value is quoted")
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	long := desired{key: client.ObjectKey{Name: strings.Repeat("s", 63) + "." + strings.Repeat("g", 63)}}
	for name, err := range map[string]error{
		"conflict": &conflictError{target: long.target()},
		"failure":  &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReason(strings.Repeat("群", 200))}},
	} {
		if got := conclude(&task{sync: &openimv1.GroupSync{}, group: &openimv1.GroupInfo{}, now: time.Now()}, long, err).entry.Message; len(got) > maxSyncMessageBytes {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
}

// recorder keeps the types and reasons of events.
type recorder struct{ events []string }

var _ events.EventRecorder = (*recorder)(nil)

func (r *recorder) Eventf(_, _ runtime.Object, kind, reason, _, note string, args ...any) {
	r.events = append(r.events, kind+" "+reason+": "+fmt.Sprintf(note, args...))
}

func TestEventsTellOfTransitionsOnly(t *testing.T) {
	entry := func(state openimv1.SyncState) []openimv1.GroupInfoSyncStatus {
		e := openimv1.GroupInfoSyncStatus{Name: "mirror", UID: "1", State: state, Target: "ConfigMap/mirror.g1", Message: "trouble"}
		switch state {
		case "":
			return nil
		case "Pending":
			e.Message = ""
		case "Pending, in vain":
			e.State = openimv1.SyncStatePending
		case "Running, again":
			e.State, e.Attempts = openimv1.SyncStateRunning, 2
		}
		return []openimv1.GroupInfoSyncStatus{e}
	}
	failed := []string{corev1.EventTypeWarning + " SyncFailed: GroupSync mirror: trouble"}
	recovered := []string{corev1.EventTypeNormal + " SyncRecovered: GroupSync mirror: ConfigMap/mirror.g1 is in step again"}
	for name, tc := range map[string]struct {
		before, now openimv1.SyncState
		want        []string
	}{
		"written for the first time": {"", openimv1.SyncStateSynced, nil},
		"still in step":              {openimv1.SyncStateSynced, openimv1.SyncStateSynced, nil},
		"failed at once":             {"", openimv1.SyncStateFailed, failed},
		"failed":                     {openimv1.SyncStateSynced, openimv1.SyncStateFailed, failed},
		"failed again":               {openimv1.SyncStateFailed, openimv1.SyncStateFailed, nil},
		"conflict":                   {openimv1.SyncStateFailed, openimv1.SyncStateConflict, []string{corev1.EventTypeWarning + " SyncConflict: GroupSync mirror: trouble"}},
		"recovered":                  {openimv1.SyncStateConflict, openimv1.SyncStateSynced, recovered},
		"not selected any more":      {openimv1.SyncStateFailed, "", nil},
		"a run begins":               {"", openimv1.SyncStatePending, nil},
		"a run ends":                 {openimv1.SyncStateRunning, openimv1.SyncStateSynced, nil},
		"its Job cannot be created":  {openimv1.SyncStatePending, "Pending, in vain", failed},
		"it can be after all":        {"Pending, in vain", openimv1.SyncStateRunning, nil},
		"a run fails":                {openimv1.SyncStateRunning, openimv1.SyncStateFailed, failed},
		"another attempt":            {openimv1.SyncStateFailed, "Running, again", nil},
		"another attempt fails":      {"Running, again", openimv1.SyncStateFailed, failed},
		"another attempt succeeds":   {"Running, again", openimv1.SyncStateSynced, recovered},
		"given up":                   {openimv1.SyncStateRunning, openimv1.SyncStateGaveUp, []string{corev1.EventTypeWarning + " SyncGaveUp: GroupSync mirror: trouble"}},
	} {
		t.Run(name, func(t *testing.T) {
			told := &recorder{}
			group := &openimv1.GroupInfo{Status: openimv1.GroupInfoStatus{Syncs: entry(tc.before)}}
			(&Reconciler{Recorder: told}).tell(&scope{group: group, outcomes: entry(tc.now)})
			if diff := cmp.Diff(tc.want, slices.Clip(told.events)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
