package groupsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/controllers/groupinfo"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

func group(generation, observed int64, syncs ...openimv1.GroupInfoSyncStatus) openimv1.GroupInfo {
	return openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Generation: generation},
		Spec:       openimv1.GroupInfoSpec{GroupType: new(int32(2))},
		Status:     openimv1.GroupInfoStatus{ObservedGeneration: observed, Syncs: syncs},
	}
}

func TestCount(t *testing.T) {
	sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Name: "mirror", UID: "1", Generation: 2}}
	// Only groups of type 2 are picked, and of others those of type 0 make the expression fail.
	sync.Spec.MatchConditions = []openimv1.MatchCondition{{Name: "working", Expression: "4 / group.groupType == 2"}}
	cache, err := rules.NewCache(groupinfo.CheckTarget)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(state openimv1.SyncState, change ...func(*openimv1.GroupInfoSyncStatus)) openimv1.GroupInfoSyncStatus {
		e := openimv1.GroupInfoSyncStatus{Name: "mirror", UID: "1", ObservedGeneration: 2, State: state}
		for _, c := range change {
			c(&e)
		}
		return e
	}
	because := func(reason string) openimv1.GroupInfo {
		g := group(1, 1)
		g.Status.Conditions = []metav1.Condition{{Type: openimv1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason}}
		return g
	}
	for name, tc := range map[string]struct {
		group openimv1.GroupInfo
		want  totals
	}{
		"in step":                          {group(1, 1, entry(openimv1.SyncStateSynced)), totals{matched: 1, synced: 1}},
		"in step with an older generation": {group(2, 1, entry(openimv1.SyncStateSynced)), totals{matched: 1}},
		"not looked at yet":                {group(1, 0), totals{matched: 1}},
		"a conflict counts as failing":     {group(1, 1, entry(openimv1.SyncStateConflict)), totals{matched: 1, failing: 1}},
		"another GroupSync's entry": {
			group(1, 1, entry(openimv1.SyncStateFailed, func(e *openimv1.GroupInfoSyncStatus) { e.Name = "other" })), totals{matched: 1},
		},
		"an entry for the GroupSync as it was": {
			group(1, 1, entry(openimv1.SyncStateSynced, func(e *openimv1.GroupInfoSyncStatus) { e.ObservedGeneration = 1 })), totals{matched: 1},
		},
		"an entry for an earlier GroupSync of the name": {
			group(1, 1, entry(openimv1.SyncStateSynced, func(e *openimv1.GroupInfoSyncStatus) { e.UID = "0" })), totals{matched: 1},
		},
		"waits for its turn":   {group(1, 1, entry(openimv1.SyncStateWaiting)), totals{matched: 1}},
		"runs":                 {group(1, 1, entry(openimv1.SyncStateRunning)), totals{matched: 1, running: 1}},
		"is about to run":      {group(1, 1, entry(openimv1.SyncStatePending)), totals{matched: 1, running: 1}},
		"failed for good":      {group(1, 1, entry(openimv1.SyncStateGaveUp)), totals{matched: 1, failing: 1}},
		"is left alone":        {group(1, 1, entry(openimv1.SyncStateIgnored)), totals{matched: 1, synced: 1}},
		"cannot be run at all": {group(1, 1, entry(openimv1.SyncStatePending, func(e *openimv1.GroupInfoSyncStatus) { e.Message = "Forbidden" })), totals{matched: 1, failing: 1}},
		"does not meet the conditions": {
			func() openimv1.GroupInfo {
				g := group(1, 1)
				g.Spec.GroupType = new(int32(1))
				return g
			}(), totals{},
		},
		"conditions cannot be evaluated": {
			func() openimv1.GroupInfo {
				g := group(1, 1, entry(openimv1.SyncStateGaveUp))
				g.Spec.GroupType = new(int32(0))
				return g
			}(), totals{matched: 1, failing: 1},
		},
		"a group that is never served":          {because(openimv1.ReasonNameMismatch), totals{matched: 1, failing: 1}},
		"a group with more syncs than it holds": {because(openimv1.ReasonTooManySyncs), totals{matched: 1, failing: 1}},
		"a group that is not ready otherwise":   {because(openimv1.ReasonSyncFailed), totals{matched: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, count(sync, cache.Of(sync), []openimv1.GroupInfo{tc.group}), cmp.AllowUnexported(totals{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSummariesAreSpacedOut(t *testing.T) {
	now := time.Unix(0, 0)
	r := &Reconciler{Now: func() time.Time { return now }, summed: map[client.ObjectKey]summary{}}
	sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Name: "mirror", Generation: 1}}
	steps := []struct {
		what       string
		passes     time.Duration
		generation int64
		want       time.Duration
	}{
		{"the first goes at once", 0, 1, 0},
		{"the second waits for the rest of the interval", 2 * time.Second, 1, 3 * time.Second},
		{"a change of the spec does not wait", 0, 2, 0},
		{"after the interval the next one goes", summaryInterval, 2, 0},
	}
	for _, step := range steps {
		now = now.Add(step.passes)
		sync.Generation = step.generation
		if got := r.tooSoon(sync); got != step.want {
			t.Errorf("%s: waits %s, want %s", step.what, got, step.want)
		}
	}
}
