package groupinfo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/apierr"
)

// unfinishedIndex indexes unfinished Jobs by the UID of their GroupSync.
const unfinishedIndex = "unfinishedOf"

// errLate means that too much time has passed since the run was recorded: its Job must not be created any more.
var errLate = errors.New("held up: the run was recorded too long ago for its Job to be created")

// jobs keeps the Jobs of GroupSyncs with a Job target.
type jobs struct {
	// client reads Jobs from the cache.
	client client.Client
	// live reads from the API server.
	live  client.Reader
	now   func() time.Time
	slots *slots
}

var _ target = (*jobs)(nil)

// +kubebuilder:rbac:groups=batch,resources=jobs,verbs=get;list;watch;create;delete

// step implements target.
func (j *jobs) step(ctx context.Context, t *task) outcome {
	made, err := j.madeFor(ctx, t)
	if err != nil {
		return outcome{entry: t.recorded, err: err}
	}
	observed, err := j.observe(ctx, t, made)
	if err != nil {
		return outcome{entry: t.recorded, err: err}
	}
	due, err := t.rules.Due(t.group, recordedMembership(t))
	if err != nil {
		return outcome{entry: t.recorded, err: err}
	}
	p := planRun(t, due, observed)
	o := j.act(ctx, t, &p)
	if p.action != actStart && p.action != actCreate && !p.waits {
		j.slots.pass(t.sync.UID, client.ObjectKeyFromObject(t.group))
	}
	if t.fault != nil && !inFlight(p.entry.State) {
		p.entry.State, p.entry.Message = openimv1.SyncStateGaveUp, t.fault.Error()
	}
	t.finish(&p.entry)
	o.entry = &p.entry
	if at := p.entry.NextAttemptTime; at != nil && t.selected && !due.Nothing && p.entry.State == openimv1.SyncStateFailed {
		o.after = earlier(o.after, max(at.Sub(t.now), time.Second))
	}
	after, err := j.clean(ctx, t, made)
	o.after, o.err = earlier(earlier(o.after, p.after), after), errors.Join(o.err, err)
	return o
}

func recordedMembership(t *task) string {
	if t.recorded == nil {
		return ""
	}
	return t.recorded.Membership
}

// act does what the plan asks for, or leaves it for when the plan is recorded, and corrects the plan where it cannot be
// done.
func (j *jobs) act(ctx context.Context, t *task, p *plan) outcome {
	switch p.action {
	case actStart:
		job, ready, err := j.prepare(ctx, t, p)
		if err != nil || !ready {
			return outcome{err: err}
		}
		return outcome{then: func(ctx context.Context) error { return j.create(ctx, t, job, p.entry.StartTime.Time) }}
	case actCreate:
		job, ready, err := j.prepare(ctx, t, p)
		if err != nil || !ready {
			return outcome{err: err}
		}
		err = j.create(ctx, t, job, p.entry.StartTime.Time)
		switch {
		case err == nil:
		case refused(err):
			fail(&p.entry, t.now, fmt.Sprintf("could not be created: %s", apierr.Reason(err)), unlimited)
		default:
			p.entry.Message = fmt.Sprintf("%s could not be created (%s); the operator tries again", p.entry.Target, apierr.Reason(err))
			return outcome{err: err}
		}
	case actReplace:
		return outcome{err: j.replace(ctx, t)}
	case actNothing:
		if p.entry.State == openimv1.SyncStateConflict {
			return outcome{after: conflictRecheck}
		}
	}
	return outcome{}
}

// prepare computes the Job of the plan and takes a slot for it. If it is not ready, the plan says why.
func (j *jobs) prepare(ctx context.Context, t *task, p *plan) (*batchv1.Job, bool, error) {
	job, err := desiredJob(t.sync, t.group, t.rules.Content(t.group.Spec), &p.entry)
	if errors.Is(err, errGroupTooLarge) {
		p.entry, p.action = p.before, actNothing
		p.entry.State, p.entry.Message = openimv1.SyncStateGaveUp, err.Error()
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	free, err := j.slots.acquire(ctx, t.sync, client.ObjectKeyFromObject(t.group), job.Name)
	if err != nil {
		return nil, false, err
	}
	if !free {
		p.wait(t)
	}
	return job, free, nil
}

// create creates the Job of a run that was recorded at the given time. That it exists already is no failure: the next look
// tells whose it is.
func (j *jobs) create(ctx context.Context, t *task, job *batchv1.Job, recorded time.Time) error {
	left := recorded.Add(createWithin).Sub(j.now())
	if left <= 0 {
		j.slots.release(t.sync.UID, job.Name)
		return errLate
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	err := j.client.Create(ctx, job, client.FieldOwner(FieldManager))
	if err == nil || apierrors.IsAlreadyExists(err) {
		return nil
	}
	j.slots.release(t.sync.UID, job.Name)
	return fmt.Errorf("create Job/%s: %w", job.Name, apierr.WithoutValues(err))
}

// refused reports whether the API server has surely not done what it was asked to, and says so again if it is asked again.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) || apierrors.IsNotFound(err) || apierrors.IsRequestEntityTooLargeError(err)
}

// replace deletes the Job of the recorded run, and with it its pods. It stays until they are gone.
func (j *jobs) replace(ctx context.Context, t *task) error {
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{
		Namespace: t.sync.Namespace, Name: jobName(t.sync, t.group.UID, t.recorded.Revision),
	}}
	live := &batchv1.Job{}
	if err := j.live.Get(ctx, client.ObjectKeyFromObject(job), live); apierrors.IsNotFound(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read Job/%s: %w", job.Name, err)
	}
	if !isControlledBy(live, t.sync.UID) || observe(live).state != jobActive {
		return nil
	}
	return j.delete(ctx, live, metav1.DeletePropagationForeground)
}

func (j *jobs) delete(ctx context.Context, job *batchv1.Job, propagation metav1.DeletionPropagation) error {
	err := j.client.Delete(ctx, job, client.Preconditions{UID: &job.UID}, client.PropagationPolicy(propagation))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Job/%s: %w", job.Name, apierr.WithoutValues(err))
	}
	return nil
}

// madeFor returns the Jobs that the cache shows of this GroupSync and group, the newest run first.
func (j *jobs) madeFor(ctx context.Context, t *task) ([]*batchv1.Job, error) {
	all, err := j.ofGroup(ctx, client.ObjectKeyFromObject(t.group))
	if err != nil {
		return nil, err
	}
	var made []*batchv1.Job
	for i := range all {
		// A Job of another name is another group's, or of an earlier group of this name.
		if job := &all[i]; isControlledBy(job, t.sync.UID) && job.Name == jobName(t.sync, t.group.UID, revisionOf(job)) {
			made = append(made, job)
		}
	}
	slices.SortFunc(made, func(a, b *batchv1.Job) int { return cmp.Compare(revisionOf(b), revisionOf(a)) })
	return made, nil
}

func (j *jobs) ofGroup(ctx context.Context, group client.ObjectKey) ([]batchv1.Job, error) {
	var all batchv1.JobList
	if err := j.client.List(ctx, &all, client.InNamespace(group.Namespace), client.MatchingFields{groupIndex: group.Name}); err != nil {
		return nil, fmt.Errorf("list the group's Jobs: %w", err)
	}
	return all.Items, nil
}

func revisionOf(job *batchv1.Job) int64 {
	revision, err := strconv.ParseInt(job.Annotations[openimv1.AnnotationRevision], 10, 64)
	if err != nil {
		// Somebody removed it. No run has this revision.
		return 0
	}
	return revision
}

// observe returns what there is of the recorded run's Job, where it matters. What the cache does not show may exist all the
// same, so the API server is asked.
func (j *jobs) observe(ctx context.Context, t *task, made []*batchv1.Job) (observedJob, error) {
	if t.recorded == nil || !inFlight(t.recorded.State) {
		return observedJob{}, nil
	}
	name := jobName(t.sync, t.group.UID, t.recorded.Revision)
	for _, job := range made {
		if job.Name == name {
			return observe(job), nil
		}
	}
	job := &batchv1.Job{}
	err := j.live.Get(ctx, client.ObjectKey{Namespace: t.sync.Namespace, Name: name}, job)
	switch {
	case apierrors.IsNotFound(err):
		return observedJob{state: jobAbsent}, nil
	case err != nil:
		return observedJob{}, fmt.Errorf("read Job/%s: %w", name, err)
	case !isControlledBy(job, t.sync.UID):
		return observedJob{state: jobForeign}, nil
	}
	return observe(job), nil
}

// clean removes ended Jobs whose outcome is recorded: those beyond the history limits, and those whose time is up. It
// returns when to look again.
func (j *jobs) clean(ctx context.Context, t *task, made []*batchv1.Job) (time.Duration, error) {
	if t.recorded == nil {
		return 0, nil
	}
	target := t.sync.Spec.Target.Job
	left := map[jobState]int32{
		jobSucceeded: number(target.SuccessfulJobsHistoryLimit, 1),
		jobFailed:    number(target.FailedJobsHistoryLimit, 1),
	}
	var next time.Duration
	var failures []error
	for _, job := range made {
		o := observe(job)
		told := revisionOf(job) < t.recorded.Revision || (revisionOf(job) == t.recorded.Revision && !inFlight(t.recorded.State))
		if o.state == jobActive || o.deleting || !told {
			continue
		}
		left[o.state]--
		keep := keptFor
		if left[o.state] >= 0 {
			if target.TTLSecondsAfterFinished == nil {
				continue
			}
			keep = max(keep, time.Duration(*target.TTLSecondsAfterFinished)*time.Second)
		}
		if rest := o.at.Add(keep).Sub(t.now); rest > 0 {
			next = earlier(next, rest)
			continue
		}
		failures = append(failures, j.delete(ctx, job, metav1.DeletePropagationBackground))
	}
	return next, errors.Join(failures...)
}

// earlier returns the earlier of two times from now, where zero stands for never.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// remove implements target. A Job that runs is left to end: it may be in the middle of something.
func (j *jobs) remove(ctx context.Context, group client.ObjectKey, syncs []openimv1.GroupSync) error {
	j.slots.leave(group)
	all, err := j.ofGroup(ctx, group)
	if err != nil {
		return err
	}
	var failures []error
	for i := range all {
		job := &all[i]
		owned := slices.ContainsFunc(syncs, func(sync openimv1.GroupSync) bool {
			return isControlledBy(job, sync.UID) && strings.HasPrefix(job.Name, jobPrefix(&sync))
		})
		if o := observe(job); owned && o.state != jobActive && !o.deleting {
			failures = append(failures, j.delete(ctx, job, metav1.DeletePropagationBackground))
		}
	}
	return errors.Join(failures...)
}
