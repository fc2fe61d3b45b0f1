package groupinfo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

const (
	// maxSyncs bounds status.syncs, as the API documents.
	maxSyncs = 32

	// maxSyncMessageBytes bounds a message in status.syncs, as the API documents.
	maxSyncMessageBytes = 256

	// conflictRecheck is how often a foreign object in a target's place is looked at again: it is in no cache, so nothing
	// tells when it goes.
	conflictRecheck = time.Minute
)

// Reconciler reconciles GroupInfos.
type Reconciler struct {
	Client   client.Client
	Recorder events.EventRecorder
	Namer    naming.Namer
	Now      func() time.Time
	Rules    *rules.Cache

	configMaps   *configMaps
	jobs         *jobs
	statusWrites *ownwrites.Writes
}

// scope is what one reconcile knows and finds out.
type scope struct {
	group *openimv1.GroupInfo
	// syncs are all GroupSyncs of the namespace, by name, and active those whose targets are ours to write and remove.
	syncs, active []openimv1.GroupSync
	// tasks are what is to be done, those in progress first, and then by the name of the GroupSync.
	tasks []*task
	// selecting is how many GroupSyncs pick the group, and unserved how many of them have no room in the status.
	selecting, unserved int
	// serverMissing: the OpenIMServer that told of the group does not exist.
	serverMissing bool
	// unexpectedName is the name that the object should have had.
	unexpectedName string
	// outcomes are the entries of status.syncs.
	outcomes []openimv1.GroupInfoSyncStatus
	// runs is true if the entries record runs.
	runs bool
	// then is to be done once the status is written.
	then   []func(context.Context) error
	result ctrl.Result
}

// +kubebuilder:rbac:groups=openim.io,resources=groupinfos;groupsyncs;openimservers,verbs=get;list;watch
// +kubebuilder:rbac:groups=openim.io,resources=groupinfos/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	group := &openimv1.GroupInfo{}
	err := r.Client.Get(ctx, request.NamespacedName, group)
	if apierrors.IsNotFound(err) || (err == nil && !group.DeletionTimestamp.IsZero()) {
		r.statusWrites.Forget(request.NamespacedName)
		return ctrl.Result{}, r.removeTargets(ctx, request.NamespacedName)
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if _, unseen := r.statusWrites.Unseen(request.NamespacedName, group.ResourceVersion); unseen {
		// The cache is behind; the event that brings it up to date brings us back.
		return ctrl.Result{}, nil
	}
	s := &scope{group: group}
	if err := r.look(ctx, s); err != nil {
		return ctrl.Result{}, err
	}
	err = errors.Join(r.stepTargets(ctx, s), r.pruneTargets(ctx, s))
	if apierrors.IsConflict(err) {
		// Somebody else wrote in between, which is no trouble to tell of: look again.
		return ctrl.Result{}, err
	}
	recorded, statusErr := r.applyStatus(ctx, s)
	err = errors.Join(err, statusErr)
	if recorded {
		for _, act := range s.then {
			err = errors.Join(err, act(ctx))
		}
	}
	return s.result, err
}

// look collects what the reconcile depends on.
func (r *Reconciler) look(ctx context.Context, s *scope) error {
	if name := r.Namer.GroupInfo(s.group.Spec.GroupID); name != s.group.Name {
		s.unexpectedName = name
	}
	server := client.ObjectKey{Namespace: s.group.Namespace, Name: s.group.Spec.ServerName}
	if err := r.Client.Get(ctx, server, &openimv1.OpenIMServer{}); apierrors.IsNotFound(err) {
		s.serverMissing = true
	} else if err != nil {
		return fmt.Errorf("look up OpenIMServer %s: %w", server, err)
	}
	syncs, err := r.listSyncs(ctx, s.group.Namespace)
	if err != nil {
		return err
	}
	s.syncs = syncs
	r.findTasks(s)
	return r.keepRecords(ctx, s)
}

// keepRecords keeps what is recorded of runs of GroupSyncs that the cache does not show, unless they are really gone: a cache
// may be behind, and without its record a run would be repeated.
func (r *Reconciler) keepRecords(ctx context.Context, s *scope) error {
	for _, entry := range s.group.Status.Syncs {
		shown := slices.ContainsFunc(s.syncs, func(sync openimv1.GroupSync) bool {
			return sync.Name == entry.Name && string(sync.UID) == entry.UID
		})
		if entry.Revision == 0 || shown {
			continue
		}
		live := &openimv1.GroupSync{}
		err := r.jobs.live.Get(ctx, client.ObjectKey{Namespace: s.group.Namespace, Name: entry.Name}, live)
		switch {
		case err == nil && string(live.UID) == entry.UID && live.DeletionTimestamp.IsZero():
			s.outcomes = append(s.outcomes, entry)
		case client.IgnoreNotFound(err) != nil:
			return fmt.Errorf("look up GroupSync %s: %w", entry.Name, err)
		}
	}
	return nil
}

// findTasks finds out which GroupSyncs there is something to do for.
func (r *Reconciler) findTasks(s *scope) {
	now := r.Now()
	for i := range s.syncs {
		sync := &s.syncs[i]
		compiled := r.Rules.Of(sync)
		t := &task{sync: sync, rules: compiled, group: s.group, recorded: findSync(s.group.Status.Syncs, sync), now: now}
		if !active(sync, compiled) {
			// What was run stays on record, so that nothing is run twice once it goes on.
			if t.recorded != nil && hasRuns(sync) && sync.DeletionTimestamp.IsZero() {
				s.outcomes = append(s.outcomes, *t.recorded)
				s.runs = true
			}
			continue
		}
		s.active = append(s.active, *sync)
		if s.unexpectedName == "" {
			t.selected, t.fault = compiled.Select(s.group)
		}
		if t.selected || t.fault != nil || (t.recorded != nil && hasRuns(sync)) {
			s.tasks = append(s.tasks, t)
		}
		if t.selected || t.fault != nil {
			s.selecting++
		}
	}
	slices.SortStableFunc(s.tasks, func(a, b *task) int {
		switch {
		case (a.recorded == nil) == (b.recorded == nil):
			return 0
		case a.recorded != nil:
			return -1
		default:
			return 1
		}
	})
	if room := max(maxSyncs-len(s.outcomes), 0); len(s.tasks) > room {
		s.unserved = len(s.tasks) - room
		s.tasks = s.tasks[:room]
	}
}

// hasRuns reports whether the GroupSync's target acts on changes, so that what it has done must stay on record.
func hasRuns(sync *openimv1.GroupSync) bool { return sync.Spec.Target.ConfigMap == nil }

func (r *Reconciler) listSyncs(ctx context.Context, namespace string) ([]openimv1.GroupSync, error) {
	var all openimv1.GroupSyncList
	if err := r.Client.List(ctx, &all, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list GroupSyncs: %w", err)
	}
	slices.SortFunc(all.Items, func(a, b openimv1.GroupSync) int { return strings.Compare(a.Name, b.Name) })
	return all.Items, nil
}

// targetOf returns what keeps the target of the GroupSync, or nil if its kind is not known: a newer version wrote it.
func (r *Reconciler) targetOf(sync *openimv1.GroupSync) target {
	switch {
	case sync.Spec.Target.ConfigMap != nil:
		return r.configMaps
	case sync.Spec.Target.Job != nil:
		return r.jobs
	default:
		return nil
	}
}

// stepTargets brings the target of each GroupSync nearer to the group. One that fails keeps no other from it.
func (r *Reconciler) stepTargets(ctx context.Context, s *scope) error {
	var failures []error
	for _, t := range s.tasks {
		target := r.targetOf(t.sync)
		if target == nil {
			if t.recorded != nil {
				s.outcomes = append(s.outcomes, *t.recorded)
			}
			continue
		}
		o := target.step(ctx, t)
		if o.entry != nil {
			s.outcomes = append(s.outcomes, *o.entry)
			s.runs = s.runs || hasRuns(t.sync)
		}
		if o.then != nil {
			s.then = append(s.then, o.then)
		}
		s.result.RequeueAfter = earlier(s.result.RequeueAfter, o.after)
		failures = append(failures, o.err)
	}
	slices.SortFunc(s.outcomes, func(a, b openimv1.GroupInfoSyncStatus) int { return strings.Compare(a.Name, b.Name) })
	return errors.Join(failures...)
}

// pruneTargets removes the ConfigMaps of GroupSyncs that do not select the group any more, or have another name for it.
func (r *Reconciler) pruneTargets(ctx context.Context, s *scope) error {
	return r.configMaps.prune(ctx, client.ObjectKeyFromObject(s.group), s.active, func(sync *openimv1.GroupSync, name string) bool {
		if !s.counts(sync.Name) {
			return false
		}
		entry := findSync(s.outcomes, sync)
		// As long as the other one does not exist, this one is better than none.
		return entry == nil || entry.State != openimv1.SyncStateSynced || entry.Target == "ConfigMap/"+name
	})
}

// removeTargets removes what was kept for a group that is gone. At start it is the sweep of orphans: the watch of the
// targets brings up every group that has any.
func (r *Reconciler) removeTargets(ctx context.Context, group client.ObjectKey) error {
	syncs, err := r.listSyncs(ctx, group.Namespace)
	if err != nil {
		return err
	}
	syncs = slices.DeleteFunc(syncs, func(sync openimv1.GroupSync) bool { return !active(&sync, r.Rules.Of(&sync)) })
	return errors.Join(r.configMaps.remove(ctx, group, syncs), r.jobs.remove(ctx, group, syncs))
}

// findSync returns the entry for the GroupSync, and for no other that had its name, or nil.
func findSync(syncs []openimv1.GroupInfoSyncStatus, sync *openimv1.GroupSync) *openimv1.GroupInfoSyncStatus {
	for i := range syncs {
		if syncs[i].Name == sync.Name && syncs[i].UID == string(sync.UID) {
			return &syncs[i]
		}
	}
	return nil
}
