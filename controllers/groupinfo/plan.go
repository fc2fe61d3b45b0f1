package groupinfo

import (
	"cmp"
	"fmt"
	"math"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

// The wait before a run that failed is repeated: it doubles from the first to the longest.
const (
	firstRetry   = 10 * time.Second
	longestRetry = 10 * time.Minute
)

const (
	// createWithin is how soon after a run was recorded its Job must be created, and voidAfter when the record is void: then
	// nobody creates the Job any more, and if it does not exist it never will. In between lies how far the clocks of two
	// processes may differ.
	createWithin = 10 * time.Second
	voidAfter    = 30 * time.Second

	// keptFor is how long a Job is kept after it has ended, so that whoever could still create it finds that it exists. It
	// ended by a third clock.
	keptFor = time.Minute
)

// reasonJobLost is why a run failed whose Job vanished before its outcome was recorded.
const reasonJobLost = "JobLost"

// jobState is what there is of the Job of a run.
type jobState int

const (
	// jobAbsent: it does not exist, as the API server says.
	jobAbsent jobState = iota
	// jobForeign: something else has its name.
	jobForeign
	jobActive
	jobSucceeded
	jobFailed
)

// observedJob is the Job of the recorded run.
type observedJob struct {
	state jobState
	// at is when it ended, and reason why it failed.
	at     time.Time
	reason string
	// suspended: it waits for somebody, such as Kueue, to let it run.
	suspended bool
	// deleting: it is on its way out.
	deleting bool
}

// observe reads a Job's outcome off its status.
func observe(job *batchv1.Job) observedJob {
	o := observedJob{
		state:     jobActive,
		suspended: job.Spec.Suspend != nil && *job.Spec.Suspend,
		deleting:  !job.DeletionTimestamp.IsZero(),
	}
	for _, c := range job.Status.Conditions {
		switch {
		case c.Status != corev1.ConditionTrue:
		case c.Type == batchv1.JobComplete:
			o.state, o.at = jobSucceeded, c.LastTransitionTime.Time
		case c.Type == batchv1.JobFailed:
			o.state, o.at, o.reason = jobFailed, c.LastTransitionTime.Time, c.Reason
		}
	}
	return o
}

// runAction is what is to be done about a run, beside recording it.
type runAction int

const (
	actNothing runAction = iota
	// actStart: the entry is the intent of a new run. Its Job may be created once the entry is recorded, and needs a slot.
	actStart
	// actCreate: the intent is recorded already, and its Job is missing. It needs a slot.
	actCreate
	// actReplace: the Job that runs has to go first.
	actReplace
)

// plan is what a step for a target with runs comes to.
type plan struct {
	entry  openimv1.GroupInfoSyncStatus
	action runAction
	// after is when to look again, if it is not zero.
	after time.Duration
	// waits: the run has to wait until another one of the GroupSync has ended.
	waits bool
	// before is the entry without the run that the action is about: what to record if it has to wait.
	before openimv1.GroupInfoSyncStatus
}

// planRun decides on the next step of a GroupSync with runs for a group. It depends on nothing but what is recorded, what
// is due, and what there is of the recorded run's Job.
//
// A run is recorded before its Job is created, and the Job is named by what is recorded. Whoever finds a recorded run
// without a Job may create it, since it is the same Job whoever does, but only for a short time. After that the record is
// void, and the next run takes its place. A process that is held up, or whose cache is behind, thus cannot run anything
// again: it is too late, or the Job exists, or the record is not the one that it has seen and cannot be replaced by it.
func planRun(t *task, due rules.Due, job observedJob) plan {
	p := plan{entry: t.newEntry()}
	e := &p.entry
	settle(t, e, job)
	p.before = *e
	request := t.request()
	switch {
	case e.State == openimv1.SyncStateRunning:
		p.whileRunning(t, due, request, job)
	case unstarted(e.State):
		p.whileUnstarted(t, due, request, job)
	case t.ignored(due.Hash):
		e.State, e.ContentHash, e.Membership = openimv1.SyncStateIgnored, due.Hash, due.Membership
	case t.selected && !due.Nothing && (request != nil || changed(t, e, due)):
		p.start(t, due, request, 1)
	case t.selected && !due.Nothing && e.NextAttemptTime != nil && !t.now.Before(e.NextAttemptTime.Time):
		p.start(t, due, nil, e.Attempts+1)
	default:
		e.State = settledState(e)
		if e.Attempts > 0 && e.Message == "" {
			e.Message = t.recorded.Message
		}
	}
	return p
}

// unstarted reports whether an entry in this state is an intent whose Job was not seen yet.
func unstarted(state openimv1.SyncState) bool {
	return state == openimv1.SyncStatePending || state == openimv1.SyncStateConflict
}

// settle takes over into the entry what became of the recorded run.
func settle(t *task, e *openimv1.GroupInfoSyncStatus, job observedJob) {
	switch {
	case e.State != openimv1.SyncStateRunning && !unstarted(e.State):
		return
	case job.state == jobActive:
		e.State = openimv1.SyncStateRunning
	case job.state == jobSucceeded:
		e.State, e.Attempts = openimv1.SyncStateSynced, 0
		e.CompletionTime, e.NextAttemptTime = new(wholeSeconds(job.at)), nil
	case job.state == jobFailed:
		fail(e, job.at, job.reason, tries(t.sync))
	case job.state == jobForeign:
		e.State = openimv1.SyncStateConflict
	case e.State == openimv1.SyncStateRunning:
		fail(e, t.now, reasonJobLost, tries(t.sync))
	default:
		e.State = openimv1.SyncStatePending
	}
}

// unlimited is for attempts that are repeated for ever.
const unlimited = math.MaxInt32

// fail records that an attempt failed, and when it is repeated, if at all: after that many tries it is not.
func fail(e *openimv1.GroupInfoSyncStatus, at time.Time, reason string, tries int32) {
	e.State, e.CompletionTime, e.NextAttemptTime = openimv1.SyncStateGaveUp, new(wholeSeconds(at)), nil
	e.Attempts = max(e.Attempts, 1)
	if e.Attempts < tries {
		e.State, e.NextAttemptTime = openimv1.SyncStateFailed, new(wholeSeconds(at.Add(retryAfter(e.Attempts))))
		e.Message = fmt.Sprintf("%s failed (%s), attempt %d", e.Target, reason, e.Attempts)
		return
	}
	e.Message = fmt.Sprintf("%s failed (%s), the last of %d attempts; see its log, then change the group or annotate it with %s",
		e.Target, reason, tries, openimv1.AnnotationSyncRequestedAt)
}

func tries(sync *openimv1.GroupSync) int32 { return number(sync.Spec.Target.Job.RetryLimit, 3) + 1 }

// retryAfter returns how long to wait after so many attempts.
func retryAfter(attempts int32) time.Duration {
	wait := firstRetry
	for range attempts - 1 {
		if wait *= 2; wait >= longestRetry {
			return longestRetry
		}
	}
	return wait
}

// number returns the value of a field with a default, which the API server fills in for all but objects of an older CRD.
func number(field *int32, byDefault int32) int32 {
	if field == nil {
		return byDefault
	}
	return *field
}

// settledState is the state of an entry that no run is on its way for.
func settledState(e *openimv1.GroupInfoSyncStatus) openimv1.SyncState {
	switch {
	case e.Attempts > 0 && e.NextAttemptTime != nil:
		return openimv1.SyncStateFailed
	case e.Attempts > 0:
		return openimv1.SyncStateGaveUp
	case e.Revision == 0:
		return openimv1.SyncStateIgnored
	default:
		return openimv1.SyncStateSynced
	}
}

// changed reports whether the group is in another state than it was last run with. Where only fields or triggers of the
// GroupSync have changed, and existing groups do not count, the state is taken as it is.
func changed(t *task, e *openimv1.GroupInfoSyncStatus, due rules.Due) bool {
	if due.Nothing || due.Hash == e.ContentHash {
		return false
	}
	if e.ContentHash != "" && !t.rules.SameBasis(e.ContentHash) && existingGroups(t.sync) == openimv1.ExistingGroupsIgnore {
		e.ContentHash, e.Membership = due.Hash, due.Membership
		return false
	}
	return true
}

// whileRunning decides what a change means for the Job that runs.
func (p *plan) whileRunning(t *task, due rules.Due, request *metav1.Time, job observedJob) {
	e := &p.entry
	switch {
	case job.deleting:
		e.Message = fmt.Sprintf("%s is being deleted", e.Target)
	case job.suspended:
		e.Message = fmt.Sprintf("%s is suspended: it waits for whoever queues it", e.Target)
	}
	if !t.selected || due.Nothing || (!changed(t, e, due) && request == nil) {
		return
	}
	switch t.sync.Spec.Target.Job.ConcurrencyPolicy {
	case openimv1.ConcurrencyAllow:
		p.start(t, due, request, 1)
	case openimv1.ConcurrencyReplace:
		e.Message = fmt.Sprintf("the next run waits until %s is deleted", e.Target)
		// Not before its record is void: whoever could still create it has to find it.
		p.after = e.StartTime.Add(voidAfter).Sub(t.now)
		if p.after <= 0 && !job.deleting {
			p.action = actReplace
		}
		p.after = max(p.after, 0)
	default:
		e.Message = fmt.Sprintf("the next run waits until %s has ended", e.Target)
	}
}

// whileUnstarted decides what becomes of an intent whose Job does not exist.
func (p *plan) whileUnstarted(t *task, due rules.Due, request *metav1.Time, job observedJob) {
	e := &p.entry
	same := t.selected && !due.Nothing && request == nil && !changed(t, e, due)
	switch {
	case job.state == jobForeign && (same || t.now.Before(e.StartTime.Add(voidAfter))):
		e.Message = fmt.Sprintf("%s exists and does not belong to this GroupSync; delete it", e.Target)
	case t.now.Before(e.StartTime.Add(createWithin)) && same:
		p.action = actCreate
	case t.now.Before(e.StartTime.Add(voidAfter)):
		p.after = e.StartTime.Add(voidAfter).Sub(t.now)
	default:
		// It did not happen, so its content is due as long as it is the group's.
		attempts := int32(1)
		if same {
			attempts = e.Attempts
		}
		e.ContentHash, e.Attempts, e.NextAttemptTime = "", 0, nil
		e.State = settledState(e)
		p.before = *e
		if t.selected && !due.Nothing {
			p.start(t, due, request, attempts)
		}
	}
}

// start makes the entry the intent of another run.
func (p *plan) start(t *task, due rules.Due, request *metav1.Time, attempts int32) {
	e := &p.entry
	e.State = openimv1.SyncStatePending
	e.Revision++
	e.ContentHash, e.Membership, e.Attempts = due.Hash, due.Membership, attempts
	e.Target = "Job/" + jobName(t.sync, t.group.UID, e.Revision)
	e.StartTime, e.CompletionTime, e.NextAttemptTime = new(wholeSeconds(t.now)), nil, nil
	if request != nil {
		e.RequestedAt = request
	}
	e.Message = ""
	p.action = actStart
}

// wait makes the run wait for its turn: recorded is what was so far, and why it waits.
func (p *plan) wait(t *task) {
	if p.action == actStart {
		p.entry = p.before
		if !inFlight(p.entry.State) {
			p.entry.State = openimv1.SyncStateWaiting
		}
		p.entry.Message = fmt.Sprintf("waits for its turn: %d Jobs of this GroupSync are unfinished, as many as its maxConcurrent allows", maxConcurrent(t.sync))
	}
	if p.action == actCreate {
		// An intent goes on as one, and becomes void if its turn does not come in time.
		p.after = max(p.entry.StartTime.Add(voidAfter).Sub(t.now), time.Second)
	}
	p.action, p.waits = actNothing, true
}

// inFlight reports whether a run is recorded of which the outcome is not.
func inFlight(state openimv1.SyncState) bool {
	return state == openimv1.SyncStateRunning || unstarted(state)
}

func maxConcurrent(sync *openimv1.GroupSync) int {
	return int(cmp.Or(sync.Spec.Target.Job.MaxConcurrent, 10))
}
