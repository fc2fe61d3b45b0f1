package conditions

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNew(t *testing.T) {
	before := metav1.NewTime(time.Unix(1000, 0))
	now := time.Unix(2000, 5)
	old := []metav1.Condition{
		{Type: "Ready", Status: metav1.ConditionTrue, Reason: "InSync", LastTransitionTime: before, ObservedGeneration: 1},
		{Type: "Stalled", Status: metav1.ConditionTrue, Reason: "Gone", LastTransitionTime: before},
	}
	for name, tc := range map[string]struct {
		holding metav1.Condition
		want    metav1.Condition
	}{
		"same status: the transition time stays, the reason moves": {
			metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "NothingToSync"},
			metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "NothingToSync", LastTransitionTime: before, ObservedGeneration: 2},
		},
		"another status: the transition time is now": {
			metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "SyncFailed"},
			metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "SyncFailed", LastTransitionTime: metav1.NewTime(time.Unix(2000, 0)), ObservedGeneration: 2},
		},
		"a new condition: the transition time is now": {
			metav1.Condition{Type: "Truncated", Status: metav1.ConditionTrue, Reason: "FieldTooLarge"},
			metav1.Condition{Type: "Truncated", Status: metav1.ConditionTrue, Reason: "FieldTooLarge", LastTransitionTime: metav1.NewTime(time.Unix(2000, 0)), ObservedGeneration: 2},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff([]metav1.Condition{tc.want}, New(old, 2, now, tc.holding)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTruncate(t *testing.T) {
	if diff := cmp.Diff("ab", Truncate("ab", 2)); diff != "" {
		t.Error(diff)
	}
	if got := Truncate(strings.Repeat("群", 10), 10); len(got) > 10 || !strings.HasSuffix(got, "…") || !strings.HasPrefix(got, "群群") {
		t.Errorf("got %q", got)
	}
}
