package groupinfo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

// world is a cluster with one group and one GroupSync, as far as runs go. It plays the API server, the Job controller and
// the caches of two processes that both believe to be the leader, each of which may be behind, crash, or be held up
// between any two of its requests.
type world struct {
	client.Client // Nothing but what is overridden below is called.

	t     *rapid.T
	now   time.Time
	sync  *openimv1.GroupSync
	group *openimv1.GroupInfo
	jobs  map[string]*batchv1.Job

	// ever counts how often each Job was created.
	ever map[string]int
	// ran are the contents that Jobs succeeded with.
	ran map[string]string

	processes []*process
}

// process is one process of the operator.
type process struct {
	world *world
	*jobs
	// group and jobs are what its cache shows.
	group  *openimv1.GroupInfo
	cached map[string]*batchv1.Job
	// ahead is how far its clock is ahead.
	ahead time.Duration
	// then is what it has not come to yet: the status is written, and what follows is not.
	then func(context.Context) error
}

// cacheOf is how a process reads Jobs from its cache, and writes.
type cacheOf struct {
	client.Client
	*process
}

func (c cacheOf) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	return find(c.cached, key, into)
}

func (c cacheOf) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	for _, name := range slices.Sorted(maps.Keys(c.cached)) {
		list.(*batchv1.JobList).Items = append(list.(*batchv1.JobList).Items, *c.cached[name].DeepCopy())
	}
	return nil
}

func (c cacheOf) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	job := object.(*batchv1.Job).DeepCopy()
	w := c.world
	if w.jobs[job.Name] != nil {
		return apierrors.NewAlreadyExists(batchv1.Resource("jobs"), job.Name)
	}
	w.ever[job.Name]++
	if w.ever[job.Name] > 1 {
		w.t.Fatalf("Job %s was created twice", job.Name)
	}
	if w.sync.Spec.Target.Job.ConcurrencyPolicy != openimv1.ConcurrencyAllow {
		for _, other := range w.jobs {
			if observe(other).state == jobActive {
				w.t.Fatalf("Job %s was created while %s ran", job.Name, other.Name)
			}
		}
	}
	job.UID = types.UID(job.Name)
	w.jobs[job.Name] = job
	return nil
}

func (c cacheOf) Delete(_ context.Context, object client.Object, _ ...client.DeleteOption) error {
	if job := c.world.jobs[object.GetName()]; job != nil && observe(job).state == jobActive && job.DeletionTimestamp == nil {
		// It goes when its pods have gone.
		job.DeletionTimestamp = new(metav1.NewTime(c.world.now))
		return nil
	}
	delete(c.world.jobs, object.GetName())
	return nil
}

// Get is how processes read Jobs from the API server.
func (w *world) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	return find(w.jobs, key, into)
}

func find(in map[string]*batchv1.Job, key client.ObjectKey, into client.Object) error {
	job := in[key.Name]
	if job == nil {
		return apierrors.NewNotFound(batchv1.Resource("jobs"), key.Name)
	}
	job.DeepCopyInto(into.(*batchv1.Job))
	return nil
}

func (w *world) start(ahead time.Duration) *process {
	p := &process{world: w, group: w.group.DeepCopy(), cached: copyOf(w.jobs), ahead: ahead}
	now := func() time.Time { return w.now.Add(ahead) }
	cache := cacheOf{process: p}
	p.jobs = &jobs{client: cache, live: w, now: now, slots: newSlots(cache, now, func(client.ObjectKey) {})}
	return p
}

func copyOf(jobs map[string]*batchv1.Job) map[string]*batchv1.Job {
	copied := map[string]*batchv1.Job{}
	for name, job := range jobs {
		copied[name] = job.DeepCopy()
	}
	return copied
}

// reconcile is one reconcile of the process, up to the write of the status.
func (p *process) reconcile(compiled *rules.Rules) {
	if p.then != nil {
		return
	}
	w := p.world
	t := &task{sync: w.sync, rules: compiled, group: p.group, selected: true, recorded: findSync(p.group.Status.Syncs, w.sync), now: p.now()}
	o := p.step(context.Background(), t)
	if o.err != nil && !errors.Is(o.err, errLate) {
		w.t.Fatal(o.err)
	}
	if o.err != nil || (t.recorded != nil && equality.Semantic.DeepEqual(t.recorded, o.entry)) {
		return
	}
	if p.group.ResourceVersion != w.group.ResourceVersion {
		// A conflict.
		return
	}
	if old := t.recorded; old != nil && o.entry.Revision > old.Revision && o.entry.ContentHash == old.ContentHash && w.ran[jobName(w.sync, "group", old.Revision)] != "" {
		w.t.Fatalf("run %d succeeded, and its content is run again", old.Revision)
	}
	w.group.Status.Syncs = []openimv1.GroupInfoSyncStatus{*o.entry}
	w.touch()
	p.group = w.group.DeepCopy()
	p.then = o.then
}

// proceed is what follows the write of the status.
func (p *process) proceed() {
	if p.then == nil {
		return
	}
	then := p.then
	p.then = nil
	if err := then(context.Background()); err != nil && !errors.Is(err, errLate) {
		p.world.t.Fatal(err)
	}
}

func (w *world) touch() {
	var version int
	_, _ = fmt.Sscan(w.group.ResourceVersion, &version)
	w.group.ResourceVersion = fmt.Sprint(version + 1)
}

// end ends a Job that runs.
func (w *world) end(job *batchv1.Job, kind batchv1.JobConditionType) {
	job.Status.Conditions = []batchv1.JobCondition{{Type: kind, Status: corev1.ConditionTrue, Reason: "X", LastTransitionTime: metav1.NewTime(w.now)}}
	if kind == batchv1.JobComplete {
		w.ran[job.Name] = job.Spec.Template.Annotations[annotationGroupName]
	}
}

func (w *world) active() []*batchv1.Job {
	var active []*batchv1.Job
	for _, name := range slices.Sorted(maps.Keys(w.jobs)) {
		if observe(w.jobs[name]).state == jobActive {
			active = append(active, w.jobs[name])
		}
	}
	return active
}

// Whatever happens in whatever order, no run happens twice, and in the end the newest content has run.
func TestTheProtocolOfRuns(t *testing.T) {
	cache, err := rules.NewCache(CheckTarget)
	if err != nil {
		t.Fatal(err)
	}
	check := func(t *rapid.T) {
		limits := rapid.Int32Range(0, 1)
		sync := &openimv1.GroupSync{
			ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "run", UID: "sync", Generation: 1},
			Spec: openimv1.GroupSyncSpec{ExistingGroups: openimv1.ExistingGroupsSync, Target: openimv1.SyncTarget{Job: &openimv1.JobTarget{
				ConcurrencyPolicy:          rapid.SampledFrom([]openimv1.ConcurrencyPolicy{"Forbid", "Replace", "Allow"}).Draw(t, "policy"),
				SuccessfulJobsHistoryLimit: new(limits.Draw(t, "successes kept")),
				FailedJobsHistoryLimit:     new(limits.Draw(t, "failures kept")),
				TTLSecondsAfterFinished:    rapid.Ptr(rapid.Just(int32(0)), true).Draw(t, "TTL"),
				RetryLimit:                 new(int32(2)),
			}}},
		}
		w := &world{
			t: t, now: time.Unix(1_800_000_000, 0), sync: sync, jobs: map[string]*batchv1.Job{}, ever: map[string]int{}, ran: map[string]string{},
			group: &openimv1.GroupInfo{
				ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "g1", UID: "group", ResourceVersion: "1"},
				Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1", GroupName: new("A")},
			},
		}
		w.processes = []*process{w.start(0), w.start(15 * time.Second)}
		compiled := cache.Of(sync)
		which := rapid.IntRange(0, 1)
		t.Repeat(map[string]func(*rapid.T){
			"the group changes": func(t *rapid.T) {
				w.group.Spec.GroupName = new(rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "content"))
				w.touch()
			},
			"a process reconciles": func(t *rapid.T) { w.processes[which.Draw(t, "process")].reconcile(compiled) },
			"a process goes on":    func(t *rapid.T) { w.processes[which.Draw(t, "process")].proceed() },
			"a process crashes": func(t *rapid.T) {
				i := which.Draw(t, "process")
				w.processes[i] = w.start(w.processes[i].ahead)
			},
			"a cache of groups catches up": func(t *rapid.T) {
				w.processes[which.Draw(t, "process")].group = w.group.DeepCopy()
			},
			"a cache of Jobs catches up": func(t *rapid.T) {
				p := w.processes[which.Draw(t, "process")]
				p.cached = copyOf(w.jobs)
			},
			"a Job ends": func(t *rapid.T) {
				if active := w.active(); len(active) > 0 && active[0].DeletionTimestamp == nil {
					w.end(active[0], rapid.SampledFrom([]batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobComplete, batchv1.JobFailed}).Draw(t, "how"))
				}
			},
			"a Job is gone that was deleted": func(*rapid.T) {
				for _, job := range w.active() {
					if job.DeletionTimestamp != nil {
						delete(w.jobs, job.Name)
					}
				}
			},
			"time passes": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			},
		})
		// Quiet: one process, whose cache is current, and Jobs that succeed.
		want := *w.group.Spec.GroupName
		p := w.start(0)
		for range 20 {
			p.group, p.cached = w.group.DeepCopy(), copyOf(w.jobs)
			p.reconcile(compiled)
			p.proceed()
			for _, job := range w.active() {
				if job.DeletionTimestamp != nil {
					delete(w.jobs, job.Name)
				} else {
					w.end(job, batchv1.JobComplete)
				}
			}
			w.now = w.now.Add(2 * time.Minute)
		}
		entry := findSync(w.group.Status.Syncs, sync)
		switch {
		case entry.State == openimv1.SyncStateGaveUp:
			due, err := compiled.Due(w.group, "")
			if err != nil || entry.ContentHash != due.Hash {
				t.Fatalf("given up on another content than the newest: %+v", entry)
			}
		case entry.State != openimv1.SyncStateSynced:
			t.Fatalf("not settled: %+v", entry)
		case w.ran[jobName(sync, "group", entry.Revision)] != want:
			t.Fatalf("the newest content %s is not what the last run %d ran with; these ran: %v", want, entry.Revision, w.ran)
		}
	}
	// What goes wrong takes an unlucky order of many steps, and a try is quick.
	for range 20 {
		rapid.Check(t, check)
	}
}
