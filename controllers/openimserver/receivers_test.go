package openimserver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

func TestReceiverConditions(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	type holds struct {
		Type, Reason string
		// Says is a part of the message.
		Says string
	}
	for name, tc := range map[string]struct {
		receivers []openimv1.ReceiverStatus
		want      []holds
		again     time.Duration
	}{
		"no receiver": {},
		"nothing to write": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-0", ReportTime: ago(time.Minute)}},
			again:     silentIdle - time.Minute,
		},
		"a change has waited for less than a minute": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-0", ReportTime: ago(0), Pending: 5, OldestPendingTime: ago(20 * time.Second)}},
			again:     delayed - 20*time.Second,
		},
		"a change has waited for longer": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-0", ReportTime: ago(0), Pending: 5, OldestPendingTime: ago(time.Minute)}},
			want:      []holds{{openimv1.ConditionChangesDelayed, openimv1.ReasonBacklog, "receiver r-0 has 5 changes to write, the oldest received at 2026-11-24T11:59:00Z"}},
			again:     silentPending,
		},
		"the API server forbids it": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-0", ReportTime: ago(0), Pending: 5, OldestPendingTime: ago(time.Hour), PendingReason: openimv1.PendingForbidden}},
			want:      []holds{{openimv1.ConditionChangesDelayed, openimv1.ReasonWritesFailing, "not written because: Forbidden. The receiver's permissions are missing"}},
			again:     silentPending,
		},
		"gone with changes": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-2", ReportTime: ago(silentPending), Pending: 7, OldestPendingTime: ago(time.Hour)}},
			want:      []holds{{openimv1.ConditionJournalOrphaned, openimv1.ReasonReceiverGone, "receiver r-2 is gone and left 7 changes"}},
		},
		"ended with changes": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-2", ReportTime: ago(0), State: openimv1.ReceiverStopped, Pending: 7}},
			want:      []holds{{openimv1.ConditionJournalOrphaned, openimv1.ReasonReceiverGone, "receiver r-2 is gone and left 7 changes"}},
		},
		"ended with dead letters, which are nobody's to write": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-2", ReportTime: ago(48 * time.Hour), State: openimv1.ReceiverStopped, DeadLetters: 1}},
			want:      []holds{{openimv1.ConditionChangesRefused, openimv1.ReasonDeadLetters, "receiver r-2 keeps 1 dead letters"}},
		},
		"silent for long, with nothing to write at its last report": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-2", ReportTime: ago(silentIdle)}},
			want:      []holds{{openimv1.ConditionJournalOrphaned, openimv1.ReasonReceiverGone, "receiver r-2 has not reported since 2026-11-24T11:35:00Z"}},
		},
		"silent for long, and without a journal": {
			receivers: []openimv1.ReceiverStatus{{Name: "r-2", ReportTime: ago(silentIdle), JournalState: openimv1.JournalNone}},
		},
		"a clock is ahead, a journal full, and one was damaged": {
			receivers: []openimv1.ReceiverStatus{
				{Name: "r-0", ReportTime: ago(0), ClockOffsetSeconds: new(int64(-3600))},
				{Name: "r-1", ReportTime: ago(0), JournalState: openimv1.JournalFull, Quarantines: 2},
			},
			want: []holds{
				{openimv1.ConditionClockSkewed, openimv1.ReasonClockCorrected, "the clock of receiver r-0 is 1h0m0s ahead of the API server's"},
				{openimv1.ConditionJournalFull, openimv1.ReasonNoRoom, "the journal of receiver r-1 has no room"},
				{openimv1.ConditionJournalQuarantined, openimv1.ReasonJournalDamaged, "receiver r-1 has put aside 2 damaged parts"},
			},
			again: silentIdle,
		},
		"many": {
			receivers: []openimv1.ReceiverStatus{
				{Name: "r-0", ReportTime: ago(0), DeadLetters: 1}, {Name: "r-1", ReportTime: ago(0), DeadLetters: 1},
				{Name: "r-2", ReportTime: ago(0), DeadLetters: 1}, {Name: "r-3", ReportTime: ago(0), DeadLetters: 1},
			},
			want:  []holds{{openimv1.ConditionChangesRefused, openimv1.ReasonDeadLetters, "receiver r-2 keeps 1 dead letters; and 1 more. See why"}},
			again: silentIdle,
		},
	} {
		t.Run(name, func(t *testing.T) {
			conditions, again := receiverConditions(tc.receivers, now)
			var got []holds
			for i, c := range conditions {
				h := holds{c.Type, c.Reason, c.Message}
				if i < len(tc.want) && strings.Contains(c.Message, tc.want[i].Says) {
					h.Says = tc.want[i].Says
				}
				if c.Status != metav1.ConditionTrue || !slices.Contains(receiverConditionTypes, c.Type) {
					t.Errorf("condition %s is %s", c.Type, c.Status)
				}
				got = append(got, h)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if again != tc.again {
				t.Errorf("looks again after %v, want %v", again, tc.again)
			}
		})
	}
}

// A message that changed with the time that passes would be written again and again while nothing happens.
func TestReceiverConditionsDoNotChangeByThemselves(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	receivers := []openimv1.ReceiverStatus{
		{Name: "r-0", ReportTime: metav1.NewTime(now), Pending: 5, OldestPendingTime: metav1.NewTime(now.Add(-time.Hour)), ClockOffsetSeconds: new(int64(7)), DeadLetters: 3},
		{Name: "r-1", ReportTime: metav1.NewTime(now.Add(-time.Hour)), Pending: 1},
	}
	first, _ := receiverConditions(receivers, now)
	for later := time.Second; later < silentPending; later += 10 * time.Second {
		again, _ := receiverConditions(receivers, now.Add(later))
		if diff := cmp.Diff(fmt.Sprint(first), fmt.Sprint(again)); diff != "" {
			t.Fatalf("after %v: %s", later, diff)
		}
	}
}

// What receivers wrote is compared as it stands: otherwise each of their reports would be followed by a write of ours.
func TestStatusLeavesTheReceiversAlone(t *testing.T) {
	s := &scope{server: &openimv1.OpenIMServer{Status: openimv1.OpenIMServerStatus{Receivers: []openimv1.ReceiverStatus{{Name: "r-0"}}}}}
	status, _ := s.status(time.Unix(9, 0))
	if diff := cmp.Diff(s.server.Status.Receivers, status.Receivers); diff != "" {
		t.Error(diff)
	}
	if applied := statusConfiguration(status); len(applied.Receivers) > 0 {
		t.Error("the controller applies what is the receivers'")
	}
}
