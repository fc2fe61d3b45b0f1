package openimserver

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

const (
	// delayed is how long an acknowledged change may wait for the API server before somebody should know.
	delayed = time.Minute

	// silentPending is how long a receiver that has something to write may say nothing: it reports every minute.
	silentPending = 3 * time.Minute

	// silentIdle is the same for one that had nothing to write when it reported last. It reports every ten minutes, and may
	// have accepted callbacks since.
	silentIdle = 25 * time.Minute

	// named is how many receivers a message names.
	named = 3
)

// receiverConditionTypes are the conditions that receiverConditions may return.
var receiverConditionTypes = []string{
	openimv1.ConditionChangesDelayed,
	openimv1.ConditionChangesRefused,
	openimv1.ConditionClockSkewed,
	openimv1.ConditionJournalFull,
	openimv1.ConditionJournalOrphaned,
	openimv1.ConditionJournalQuarantined,
}

// finding is what a condition says of the receivers that it holds for.
type finding struct {
	conditionType, reason string
	// says what of whom, and advice what to do about it.
	says   []string
	advice string
}

func (f *finding) add(format string, args ...any) {
	f.says = append(f.says, fmt.Sprintf(format, args...))
}

func (f *finding) condition() metav1.Condition {
	message := strings.Join(f.says[:min(len(f.says), named)], "; ")
	if more := len(f.says) - named; more > 0 {
		message += fmt.Sprintf("; and %d more", more)
	}
	return metav1.Condition{
		Type: f.conditionType, Status: metav1.ConditionTrue, Reason: f.reason, Message: message + ". " + f.advice,
	}
}

// receiverConditions returns what is wrong with the receivers, by what they report and by their silence, and after how
// long to look again: silence makes no event. It says the same for as long as nothing new has happened, so that a status
// is not written for the mere passing of time.
func receiverConditions(receivers []openimv1.ReceiverStatus, now time.Time) (holding []metav1.Condition, again time.Duration) {
	delays := finding{conditionType: openimv1.ConditionChangesDelayed, reason: openimv1.ReasonBacklog, advice: "Nothing is lost, and the receivers go on writing"}
	refused := finding{conditionType: openimv1.ConditionChangesRefused, reason: openimv1.ReasonDeadLetters, advice: "See why in the receiver's log, and list and replay them with groupinfo-operator dead-letters"}
	skewed := finding{conditionType: openimv1.ConditionClockSkewed, reason: openimv1.ReasonClockCorrected, advice: "Its stamps are corrected; synchronize the clock of its node"}
	full := finding{conditionType: openimv1.ConditionJournalFull, reason: openimv1.ReasonNoRoom, advice: "Its replies wait for the API server until there is room: look after the API server, or enlarge the volume"}
	orphaned := finding{conditionType: openimv1.ConditionJournalOrphaned, reason: openimv1.ReasonReceiverGone, advice: "Its journal may hold acknowledged changes: scale the receivers up so that it comes back to its volume"}
	damaged := finding{conditionType: openimv1.ConditionJournalQuarantined, reason: openimv1.ReasonJournalDamaged, advice: "What could be read was taken up; check the disk, then delete the quarantine directories in the journal's directory"}

	for i := range receivers {
		r := &receivers[i]
		if gone, in := silence(r, now); gone {
			switch {
			case r.Pending > 0:
				orphaned.add("receiver %s is gone and left %d changes", r.Name, r.Pending)
			case r.State != openimv1.ReceiverStopped && r.JournalState != openimv1.JournalNone:
				orphaned.add("receiver %s has not reported since %s", r.Name, r.ReportTime.UTC().Format(time.RFC3339))
			}
		} else {
			again = sooner(again, in)
			if late, in := lateness(r, now); late {
				delays.add("receiver %s has %d changes to write, the oldest received at %s%s",
					r.Name, r.Pending, r.OldestPendingTime.UTC().Format(time.RFC3339), failure(r))
				if r.PendingReason != "" {
					delays.reason, delays.advice = openimv1.ReasonWritesFailing, advice(r.PendingReason)
				}
			} else {
				again = sooner(again, in)
			}
			if r.ClockOffsetSeconds != nil {
				skewed.add("the clock of receiver %s is %s", r.Name, apart(*r.ClockOffsetSeconds))
			}
			if r.JournalState == openimv1.JournalFull {
				full.add("the journal of receiver %s has no room", r.Name)
			}
		}
		if r.DeadLetters > 0 {
			refused.add("receiver %s keeps %d dead letters", r.Name, r.DeadLetters)
		}
		if r.Quarantines > 0 {
			damaged.add("receiver %s has put aside %d damaged parts of its journal", r.Name, r.Quarantines)
		}
	}
	for _, f := range []finding{delays, refused, skewed, full, orphaned, damaged} {
		if len(f.says) > 0 {
			holding = append(holding, f.condition())
		}
	}
	return holding, again
}

// silence reports whether the receiver must be taken for gone, and otherwise after how long it will be if it says nothing.
func silence(r *openimv1.ReceiverStatus, now time.Time) (gone bool, in time.Duration) {
	allowed := silentIdle
	if r.Pending > 0 {
		allowed = silentPending
	}
	in = r.ReportTime.Add(allowed).Sub(now)
	return r.State == openimv1.ReceiverStopped || in <= 0, in
}

// lateness reports whether the receiver's oldest change has waited for too long, and otherwise when it will have, or 0 if
// none waits.
func lateness(r *openimv1.ReceiverStatus, now time.Time) (late bool, in time.Duration) {
	if r.Pending == 0 || r.OldestPendingTime.IsZero() {
		return false, 0
	}
	in = r.OldestPendingTime.Add(delayed).Sub(now)
	return in <= 0, in
}

// sooner returns the smaller of two durations of which 0 stands for never.
func sooner(a, b time.Duration) time.Duration {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}

func failure(r *openimv1.ReceiverStatus) string {
	if r.PendingReason == "" {
		return ""
	}
	return ", not written because: " + r.PendingReason
}

// advice says what to do about what keeps a receiver from writing.
func advice(pendingReason string) string {
	switch pendingReason {
	case openimv1.PendingUnauthorized, openimv1.PendingForbidden:
		return "The receiver's permissions are missing: apply the operator's RBAC manifests again, and check quotas and admission policies. Nothing is lost, and it goes on trying"
	case openimv1.PendingNotInstalled:
		return "The API server does not know GroupInfos: install the CRDs. Nothing is lost, and it goes on trying"
	}
	return "Nothing is lost, and the receiver goes on trying"
}

// apart says how far a clock is off, roughly: exact seconds would change with every measurement.
func apart(offsetSeconds int64) string {
	offset := time.Duration(offsetSeconds) * time.Second
	direction := "behind"
	if offset < 0 {
		direction = "ahead"
	}
	return fmt.Sprintf("%s %s of the API server's", offset.Abs(), direction)
}
