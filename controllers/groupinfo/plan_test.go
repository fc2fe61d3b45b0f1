package groupinfo

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

// Times of the tests, in seconds: the GroupSync is created at 1000, and now is 2000.
func at(seconds int64) *metav1.Time { return new(metav1.NewTime(time.Unix(seconds, 0))) }

type entry = openimv1.GroupInfoSyncStatus

func TestPlanRun(t *testing.T) {
	cache, err := rules.NewCache(CheckTarget)
	if err != nil {
		t.Fatal(err)
	}
	sync := &openimv1.GroupSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "crm", UID: "sync", Generation: 3, CreationTimestamp: *at(1000)},
		Spec: openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{
			ConcurrencyPolicy: openimv1.ConcurrencyForbid, RetryLimit: new(int32(2)),
		}}},
	}
	group := &openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "g1", UID: "group", CreationTimestamp: *at(900)},
		Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1", GroupName: new("B")},
		History:    []openimv1.HistoryEntry{{Stamp: "1", Time: *at(1500)}},
	}
	due, err := cache.Of(sync).Due(group, "")
	if err != nil {
		t.Fatal(err)
	}
	hash := due.Hash
	older := hash[:9] + "0123456789012345678901234567890123456789"
	target := func(revision int64) string { return "Job/" + jobName(sync, "group", revision) }

	// What is recorded. The content of the first two is the group's.
	done := entry{State: openimv1.SyncStateSynced, Revision: 4, ContentHash: hash, Target: target(4), StartTime: at(1600), CompletionTime: at(1700)}
	running := entry{State: openimv1.SyncStateRunning, Revision: 4, ContentHash: hash, Target: target(4), Attempts: 1, StartTime: at(1600)}
	pending := func(since int64) entry {
		return entry{State: openimv1.SyncStatePending, Revision: 4, ContentHash: hash, Target: target(4), Attempts: 1, StartTime: at(since)}
	}
	failed := entry{
		State: openimv1.SyncStateFailed, Revision: 4, ContentHash: hash, Target: target(4), Attempts: 1,
		StartTime: at(1600), CompletionTime: at(1995), NextAttemptTime: at(2005), Message: "it failed",
	}
	gaveUp := entry{State: openimv1.SyncStateGaveUp, Revision: 4, ContentHash: hash, Target: target(4), Attempts: 3, CompletionTime: at(1995), Message: "it failed"}
	ignored := entry{State: openimv1.SyncStateIgnored, ContentHash: hash}
	with := func(e entry, change ...func(*entry)) entry {
		for _, c := range change {
			c(&e)
		}
		return e
	}
	other := func(e *entry) { e.ContentHash = older }
	otherBasis := func(e *entry) { e.ContentHash = "00000000-" + older[9:] }
	// The next run.
	next := func(change ...func(*entry)) entry {
		return with(entry{State: openimv1.SyncStatePending, Revision: 5, ContentHash: hash, Target: target(5), Attempts: 1, StartTime: at(2000)}, change...)
	}
	message := func(text string) func(*entry) { return func(e *entry) { e.Message = text } }
	policy := func(policy openimv1.ConcurrencyPolicy) func(*task) {
		return func(t *task) { t.sync.Spec.Target.Job.ConcurrencyPolicy = policy }
	}
	unselected := func(t *task) { t.selected = false }
	requested := func(seconds int64) func(*task) {
		return func(t *task) {
			t.group.Annotations = map[string]string{openimv1.AnnotationSyncRequestedAt: at(seconds).UTC().Format(time.RFC3339)}
		}
	}
	handled := func(seconds int64) func(*entry) { return func(e *entry) { e.RequestedAt = at(seconds) } }
	told := func(seconds int64) func(*task) { return func(t *task) { t.group.History[0].Time = *at(seconds) } }
	existing := func(policy openimv1.ExistingGroupsPolicy) func(*task) {
		return func(t *task) { t.sync.Spec.ExistingGroups = policy }
	}

	active, gone := observedJob{state: jobActive}, observedJob{state: jobAbsent}
	succeeded := observedJob{state: jobSucceeded, at: time.Unix(1990, 0)}
	failure := observedJob{state: jobFailed, at: time.Unix(1990, 0), reason: "BackoffLimitExceeded"}

	for name, tc := range map[string]struct {
		recorded *entry
		job      observedJob
		change   []func(*task)
		want     entry
		action   runAction
	}{
		"a new group runs": {
			nil, gone, nil, next(func(e *entry) { e.Revision, e.Target = 1, target(1) }), actStart,
		},
		"a group of which nothing was told since the GroupSync was created does not": {
			nil, gone, []func(*task){told(999)}, ignored, actNothing,
		},
		"unless the GroupSync says so": {
			nil, gone, []func(*task){told(999), existing(openimv1.ExistingGroupsSync)}, next(func(e *entry) { e.Revision, e.Target = 1, target(1) }), actStart,
		},
		"or somebody asks": {
			nil, gone, []func(*task){told(999), requested(1800)}, next(func(e *entry) { e.Revision, e.Target = 1, target(1) }, handled(1800)), actStart,
		},
		"it stays ignored while nothing changes":               {&ignored, gone, []func(*task){told(999)}, ignored, actNothing},
		"and when the GroupSync looks at other fields":         {new(with(ignored, otherBasis)), gone, nil, ignored, actNothing},
		"and runs once it changes":                             {new(with(ignored, other)), gone, nil, next(func(e *entry) { e.Revision, e.Target = 1, target(1) }), actStart},
		"what has run does not run again":                      {&done, gone, nil, done, actNothing},
		"another content runs":                                 {new(with(done, other)), gone, nil, next(), actStart},
		"other fields of the GroupSync are no change":          {new(with(done, otherBasis)), gone, nil, done, actNothing},
		"unless existing groups count":                         {new(with(done, otherBasis)), gone, []func(*task){existing(openimv1.ExistingGroupsSync)}, next(), actStart},
		"a request runs it again":                              {&done, gone, []func(*task){requested(1800)}, next(handled(1800)), actStart},
		"once":                                                 {new(with(done, handled(1800))), gone, []func(*task){requested(1800)}, with(done, handled(1800)), actNothing},
		"a request from before the GroupSync does not count":   {&done, gone, []func(*task){requested(950)}, done, actNothing},
		"a group that is not picked any more keeps its record": {new(with(done, other)), gone, []func(*task){unselected}, with(done, other), actNothing},

		"a recorded run without a Job gets one": {new(pending(1995)), gone, nil, pending(1995), actCreate},
		"but not after ten seconds":             {new(pending(1990)), gone, nil, pending(1990), actNothing},
		"nor with what has changed since":       {new(with(pending(1995), other)), gone, nil, with(pending(1995), other), actNothing},
		"after half a minute the next one does": {new(pending(1970)), gone, nil, next(), actStart},
		"and so it does with what has changed":  {new(with(pending(1970), other)), gone, nil, next(), actStart},
		"a run that never was is due no more once the group is not picked": {
			new(pending(1970)), gone, []func(*task){unselected},
			with(pending(1970), func(e *entry) { e.State, e.ContentHash, e.Attempts = openimv1.SyncStateSynced, "", 0 }), actNothing,
		},
		"the Job of a recorded run is found": {new(pending(1600)), active, nil, running, actNothing},
		"and found to have ended": {
			new(pending(1600)), succeeded, nil, with(done, func(e *entry) { e.CompletionTime = at(1990) }), actNothing,
		},
		"something else of its name": {
			new(pending(1600)), observedJob{state: jobForeign}, nil,
			with(pending(1600), func(e *entry) { e.State = openimv1.SyncStateConflict }, message(target(4)+" exists and does not belong to this GroupSync; delete it")), actNothing,
		},
		"it is gone": {
			new(with(pending(1970), func(e *entry) { e.State = openimv1.SyncStateConflict })), gone, nil, next(), actStart,
		},

		"a Job runs":       {&running, active, nil, running, actNothing},
		"a Job is in line": {&running, observedJob{state: jobActive, suspended: true}, nil, with(running, message(target(4)+" is suspended: it waits for whoever queues it")), actNothing},
		"Forbid waits":     {new(with(running, other)), active, nil, with(running, other, message("the next run waits until "+target(4)+" has ended")), actNothing},
		"then goes on":     {new(with(running, other)), succeeded, nil, next(), actStart},
		"and if it failed": {new(with(running, other)), failure, nil, next(), actStart},
		"Replace deletes, but not at once": {
			new(with(running, other, func(e *entry) { e.StartTime = at(1971) })), active, []func(*task){policy(openimv1.ConcurrencyReplace)},
			with(running, other, func(e *entry) { e.StartTime = at(1971) }, message("the next run waits until "+target(4)+" is deleted")), actNothing,
		},
		"Replace deletes":   {new(with(running, other)), active, []func(*task){policy(openimv1.ConcurrencyReplace)}, with(running, other, message("the next run waits until "+target(4)+" is deleted")), actReplace},
		"waits":             {new(with(running, other)), observedJob{state: jobActive, deleting: true}, []func(*task){policy(openimv1.ConcurrencyReplace)}, with(running, other, message("the next run waits until "+target(4)+" is deleted")), actNothing},
		"and then goes on":  {new(with(running, other)), gone, []func(*task){policy(openimv1.ConcurrencyReplace)}, next(), actStart},
		"Allow overlaps":    {new(with(running, other)), active, []func(*task){policy(openimv1.ConcurrencyAllow)}, next(), actStart},
		"a request waits":   {&running, active, []func(*task){requested(1800)}, with(running, message("the next run waits until "+target(4)+" has ended")), actNothing},
		"then it is served": {&running, succeeded, []func(*task){requested(1800)}, next(handled(1800)), actStart},
		"a Job of a group that is not picked any more is left to end": {
			new(with(running, other)), active, []func(*task){unselected, policy(openimv1.ConcurrencyReplace)}, with(running, other), actNothing,
		},

		"success": {&running, succeeded, nil, with(done, func(e *entry) { e.CompletionTime = at(1990) }), actNothing},
		"failure is repeated after a while": {
			&running, failure, nil,
			with(failed, func(e *entry) { e.CompletionTime, e.NextAttemptTime = at(1990), at(2000) }, func(e *entry) {
				*e = next(func(e *entry) { e.Attempts = 2 })
			}), actStart,
		},
		"but not before": {
			&running, observedJob{state: jobFailed, at: time.Unix(1995, 0), reason: "X"}, nil,
			with(failed, message(target(4)+" failed (X), attempt 1")), actNothing,
		},
		"a failure stays on record": {&failed, gone, nil, failed, actNothing},
		"a Job that vanished has failed": {
			&running, gone, nil,
			with(failed, func(e *entry) { e.CompletionTime, e.NextAttemptTime = at(2000), at(2010) }, message(target(4)+" failed (JobLost), attempt 1")), actNothing,
		},
		"the last attempt": {
			new(with(running, func(e *entry) { e.Attempts = 3 })), failure, nil,
			with(gaveUp, func(e *entry) { e.StartTime, e.CompletionTime = at(1600), at(1990) },
				message(target(4)+" failed (BackoffLimitExceeded), the last of 3 attempts; see its log, then change the group or annotate it with openim.io/sync-requested-at")), actNothing,
		},
		"nothing more happens":                     {&gaveUp, gone, nil, gaveUp, actNothing},
		"until the group changes":                  {new(with(gaveUp, other)), gone, nil, next(), actStart},
		"or somebody asks for another attempt":     {&gaveUp, gone, []func(*task){requested(1800)}, next(handled(1800)), actStart},
		"a change does not wait for the next time": {new(with(failed, other)), gone, nil, next(), actStart},
		"what waited and is undone": {
			new(with(done, func(e *entry) { e.State = openimv1.SyncStateWaiting }, message("waits"))), gone, nil, done, actNothing,
		},
		"what waited after a failure and is undone": {
			new(with(failed, func(e *entry) { e.State = openimv1.SyncStateWaiting }, message("waits"))), gone, nil, with(failed, message("waits")), actNothing,
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := &task{sync: sync.DeepCopy(), group: group.DeepCopy(), selected: true, recorded: tc.recorded, now: time.Unix(2000, 0)}
			if tc.recorded != nil {
				tc.recorded.Name, tc.recorded.UID, tc.recorded.ObservedGeneration = "crm", "sync", 2
			}
			for _, change := range tc.change {
				change(task)
			}
			task.rules = cache.Of(task.sync)
			got := planRun(task, due, tc.job)
			tc.want.Name, tc.want.UID, tc.want.ObservedGeneration = "crm", "sync", 3
			if diff := cmp.Diff(tc.want, got.entry); diff != "" || got.action != tc.action {
				t.Errorf("action %d, want %d; (-want +got)\n%s", got.action, tc.action, diff)
			}
		})
	}
}

// Where the triggers say that nothing happens for a group, neither a request nor a retry does: a Job that cleans up after
// dismissed groups must not be run for one that lives.
func TestNothingRunsWhereTheTriggersSayNothing(t *testing.T) {
	cache, err := rules.NewCache(CheckTarget)
	if err != nil {
		t.Fatal(err)
	}
	sync := &openimv1.GroupSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "cleanup", UID: "sync", Generation: 3, CreationTimestamp: *at(1000)},
		Spec: openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{
			ConcurrencyPolicy: openimv1.ConcurrencyReplace, RetryLimit: new(int32(2)),
		}}},
	}
	group := &openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "chat", Name: "g1", UID: "group", CreationTimestamp: *at(900),
			Annotations: map[string]string{openimv1.AnnotationSyncRequestedAt: at(1800).UTC().Format(time.RFC3339)},
		},
		Spec:    openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1"},
		History: []openimv1.HistoryEntry{{Stamp: "1", Time: *at(1500)}},
	}
	for name, tc := range map[string]struct {
		recorded *entry
		job      observedJob
	}{
		"a request":                     {nil, observedJob{state: jobAbsent}},
		"a retry":                       {&entry{State: openimv1.SyncStateFailed, Revision: 4, Attempts: 1, StartTime: at(1600), CompletionTime: at(1700), NextAttemptTime: at(1800)}, observedJob{state: jobAbsent}},
		"a request while a Job runs":    {&entry{State: openimv1.SyncStateRunning, Revision: 4, Attempts: 1, StartTime: at(1600)}, observedJob{state: jobActive}},
		"a record that has become void": {&entry{State: openimv1.SyncStatePending, Revision: 4, Attempts: 1, StartTime: at(1600)}, observedJob{state: jobAbsent}},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.recorded != nil {
				tc.recorded.Name, tc.recorded.UID, tc.recorded.ObservedGeneration = "cleanup", "sync", 3
			}
			task := &task{sync: sync, group: group, selected: true, recorded: tc.recorded, rules: cache.Of(sync), now: time.Unix(2000, 0)}
			if got := planRun(task, rules.Due{Nothing: true}, tc.job); got.action != actNothing {
				t.Errorf("action %d on the entry %+v", got.action, got.entry)
			}
		})
	}
}

// A run that has no slot keeps its place in the line, and an intent looks again when it becomes void: nothing else may happen
// to the group.
func TestWaitingIsNotForgotten(t *testing.T) {
	task := &task{sync: &openimv1.GroupSync{Spec: openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{}}}}, now: time.Unix(2000, 0)}
	intent := plan{action: actCreate, entry: entry{State: openimv1.SyncStatePending, StartTime: at(1995)}}
	intent.wait(task)
	if want := voidAfter - 5*time.Second; !intent.waits || intent.after != want || intent.action != actNothing {
		t.Errorf("it waits: %v, and looks again after %v, want %v", intent.waits, intent.after, want)
	}
	overlapping := plan{action: actStart, before: entry{State: openimv1.SyncStateRunning}}
	overlapping.wait(task)
	if !overlapping.waits || overlapping.entry.State != openimv1.SyncStateRunning {
		t.Errorf("it waits: %v, in the state %s", overlapping.waits, overlapping.entry.State)
	}
}

// A cache that is behind does not show a GroupSync that exists. What was run for it must stay on record, or it runs again.
func TestRecordsOutliveACacheThatIsBehind(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := openimv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	existing := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "unseen", UID: "1"}}
	again := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "made-again", UID: "3"}}
	r := &Reconciler{jobs: &jobs{live: fake.NewClientBuilder().WithScheme(scheme).WithObjects(existing, again).Build()}}
	record := func(name, uid string, revision int64) openimv1.GroupInfoSyncStatus {
		return openimv1.GroupInfoSyncStatus{Name: name, UID: uid, Revision: revision}
	}
	s := &scope{group: &openimv1.GroupInfo{
		ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "g1"},
		Status: openimv1.GroupInfoStatus{Syncs: []openimv1.GroupInfoSyncStatus{
			record("unseen", "1", 5), record("made-again", "2", 5), record("gone", "4", 5), record("no-runs", "5", 0),
		}},
	}}
	if err := r.keepRecords(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]openimv1.GroupInfoSyncStatus{record("unseen", "1", 5)}, s.outcomes); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !recordsRuns(s.group.Status.Syncs) {
		t.Error("the status would be written without a guard")
	}
}

func TestRetryAfter(t *testing.T) {
	for attempts, want := range map[int32]time.Duration{
		1: 10 * time.Second, 2: 20 * time.Second, 3: 40 * time.Second, 6: 320 * time.Second, 7: 10 * time.Minute, 1000: 10 * time.Minute,
	} {
		if got := retryAfter(attempts); got != want {
			t.Errorf("after %d attempts %s, want %s", attempts, got, want)
		}
	}
}

func TestObserve(t *testing.T) {
	condition := func(kind batchv1.JobConditionType, status corev1.ConditionStatus) batchv1.JobCondition {
		return batchv1.JobCondition{Type: kind, Status: status, Reason: "R", LastTransitionTime: *at(5)}
	}
	for name, tc := range map[string]struct {
		job  batchv1.Job
		want observedJob
	}{
		"new":       {batchv1.Job{}, observedJob{state: jobActive}},
		"suspended": {batchv1.Job{Spec: batchv1.JobSpec{Suspend: new(true)}}, observedJob{state: jobActive, suspended: true}},
		"complete": {
			batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{condition(batchv1.JobSuccessCriteriaMet, "True"), condition(batchv1.JobComplete, "True")}}},
			observedJob{state: jobSucceeded, at: time.Unix(5, 0)},
		},
		"failed": {
			batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{condition(batchv1.JobFailed, "True")}}},
			observedJob{state: jobFailed, at: time.Unix(5, 0), reason: "R"},
		},
		"about to fail, while its pods end": {
			batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{condition(batchv1.JobFailureTarget, "True"), condition(batchv1.JobComplete, "False")}}},
			observedJob{state: jobActive},
		},
		"being deleted": {batchv1.Job{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: at(5)}}, observedJob{state: jobActive, deleting: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, observe(&tc.job), cmp.AllowUnexported(observedJob{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}
