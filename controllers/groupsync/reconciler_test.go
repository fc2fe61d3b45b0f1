package groupsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func group(generation, observed int64, syncs ...openimv1.GroupInfoSyncStatus) openimv1.GroupInfo {
	return openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Generation: generation},
		Status:     openimv1.GroupInfoStatus{ObservedGeneration: observed, Syncs: syncs},
	}
}

func TestCount(t *testing.T) {
	entry := func(name string, state openimv1.SyncState) openimv1.GroupInfoSyncStatus {
		return openimv1.GroupInfoSyncStatus{Name: name, State: state}
	}
	for name, tc := range map[string]struct {
		groups []openimv1.GroupInfo
		want   totals
	}{
		"no groups":                           {nil, totals{}},
		"in step":                             {[]openimv1.GroupInfo{group(1, 1, entry("mirror", openimv1.SyncStateSynced))}, totals{matched: 1, synced: 1}},
		"in step with an older generation":    {[]openimv1.GroupInfo{group(2, 1, entry("mirror", openimv1.SyncStateSynced))}, totals{matched: 1}},
		"not looked at yet":                   {[]openimv1.GroupInfo{group(1, 0)}, totals{matched: 1}},
		"a conflict counts as failing":        {[]openimv1.GroupInfo{group(1, 1, entry("mirror", openimv1.SyncStateConflict))}, totals{matched: 1, failing: 1}},
		"another GroupSync's entry is not it": {[]openimv1.GroupInfo{group(1, 1, entry("other", openimv1.SyncStateFailed))}, totals{matched: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, count("mirror", tc.groups), cmp.AllowUnexported(totals{})); diff != "" {
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
