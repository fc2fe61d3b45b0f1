// Package conditions builds the conditions of a status: a reconcile says which ones hold now, and only what changed gets
// a new transition time.
package conditions

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
)

// maxMessageBytes keeps a message readable in `kubectl describe`; the API allows 32 KiB.
const maxMessageBytes = 1024

// New returns the conditions that hold now, in the order of their types. A condition of the same status keeps the
// transition time that it has in old.
func New(old []metav1.Condition, generation int64, now time.Time, holding ...metav1.Condition) []metav1.Condition {
	result := slices.Clone(holding)
	for i := range result {
		c := &result[i]
		c.ObservedGeneration = generation
		c.Message = Truncate(c.Message, maxMessageBytes)
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		if before := meta.FindStatusCondition(old, c.Type); before != nil && before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
	}
	slices.SortFunc(result, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	return result
}

// Apply returns the conditions for a server-side apply.
func Apply(conditions []metav1.Condition) []*metav1ac.ConditionApplyConfiguration {
	applied := make([]*metav1ac.ConditionApplyConfiguration, 0, len(conditions))
	for _, c := range conditions {
		applied = append(applied, metav1ac.Condition().
			WithType(c.Type).
			WithStatus(c.Status).
			WithObservedGeneration(c.ObservedGeneration).
			WithLastTransitionTime(c.LastTransitionTime).
			WithReason(c.Reason).
			WithMessage(c.Message))
	}
	return applied
}

// Truncate cuts a message to at most limit bytes, between runes, and marks the cut.
func Truncate(message string, limit int) string {
	const mark = "…"
	if len(message) <= limit {
		return message
	}
	return strings.ToValidUTF8(message[:limit-len(mark)], "") + mark
}
