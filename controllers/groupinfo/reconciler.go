package groupinfo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/apierr"
	"github.com/groupinfo-operator/groupinfo-operator/internal/conditions"
	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
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

	configMaps   *configMaps
	statusWrites *ownwrites.Writes
}

// scope is what one reconcile knows and finds out.
type scope struct {
	group *openimv1.GroupInfo
	// syncs are all GroupSyncs of the namespace, by name, and selecting those of them that want a target for the group.
	syncs     []openimv1.GroupSync
	selecting []*openimv1.GroupSync
	// serverMissing: the OpenIMServer that told of the group does not exist.
	serverMissing bool
	// unexpectedName is the name that the object should have had.
	unexpectedName string
	// outcomes are the entries of status.syncs.
	outcomes []openimv1.GroupInfoSyncStatus
	result   ctrl.Result
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
	err = errors.Join(r.writeTargets(ctx, s), r.pruneTargets(ctx, s))
	if apierrors.IsConflict(err) {
		// Somebody else wrote in between, which is no trouble to tell of: look again.
		return ctrl.Result{}, err
	}
	return s.result, errors.Join(err, r.applyStatus(ctx, s))
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
	for i := range s.syncs {
		if s.unexpectedName == "" && selects(&s.syncs[i], s.group) {
			s.selecting = append(s.selecting, &s.syncs[i])
		}
	}
	return nil
}

func (r *Reconciler) listSyncs(ctx context.Context, namespace string) ([]openimv1.GroupSync, error) {
	var all openimv1.GroupSyncList
	if err := r.Client.List(ctx, &all, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list GroupSyncs: %w", err)
	}
	slices.SortFunc(all.Items, func(a, b openimv1.GroupSync) int { return strings.Compare(a.Name, b.Name) })
	return all.Items, nil
}

// writeTargets brings the target of each GroupSync in step. One that fails keeps no other from it.
func (r *Reconciler) writeTargets(ctx context.Context, s *scope) error {
	var failures []error
	for _, sync := range s.selecting[:min(len(s.selecting), maxSyncs)] {
		want, err := desire(sync, s.group)
		if err != nil {
			return err
		}
		before := findSync(s.group.Status.Syncs, sync.Name)
		err = r.configMaps.ensure(ctx, want, before != nil && before.State == openimv1.SyncStateConflict)
		outcome := outcomeOf(err, sync, want, before, r.Now())
		switch outcome.State {
		case openimv1.SyncStateConflict:
			s.result.RequeueAfter = conflictRecheck
		case openimv1.SyncStateFailed:
			failures = append(failures, err)
		}
		s.outcomes = append(s.outcomes, outcome)
	}
	return errors.Join(failures...)
}

// outcomeOf returns the entry in status.syncs for an attempt to bring a target in step that ended with err. before is the
// entry for the previous attempt, or nil.
func outcomeOf(err error, sync *openimv1.GroupSync, want desired, before *openimv1.GroupInfoSyncStatus, now time.Time) openimv1.GroupInfoSyncStatus {
	outcome := openimv1.GroupInfoSyncStatus{
		Name:               sync.Name,
		UID:                string(sync.UID),
		ObservedGeneration: sync.Generation,
		State:              openimv1.SyncStateSynced,
		Target:             want.target(),
		ContentHash:        want.hash,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	}
	switch conflict, isConflict := errors.AsType[*conflictError](err); {
	case isConflict:
		outcome.State = openimv1.SyncStateConflict
		outcome.Message = conflict.Error()
	case err != nil:
		outcome.State = openimv1.SyncStateFailed
		outcome.Message = fmt.Sprintf("%s could not be written (%s); the operator tries again", want.target(), apierr.Reason(err))
	}
	if outcome.State != openimv1.SyncStateSynced {
		outcome.Message = conditions.Truncate(outcome.Message, maxSyncMessageBytes)
		// What the target holds is what it held before.
		outcome.ContentHash = ""
		if before != nil {
			outcome.ContentHash = before.ContentHash
		}
	}
	if before != nil && before.State == outcome.State {
		outcome.LastTransitionTime = before.LastTransitionTime
	}
	return outcome
}

// pruneTargets removes the targets of GroupSyncs that do not select the group any more.
func (r *Reconciler) pruneTargets(ctx context.Context, s *scope) error {
	return r.configMaps.prune(ctx, client.ObjectKeyFromObject(s.group), s.syncs, func(sync *openimv1.GroupSync) bool {
		return active(sync) && !slices.Contains(s.selecting, sync)
	})
}

// removeTargets removes what was kept for a group that is gone. At start it is the sweep of orphans: the watch of the
// targets brings up every group that has any.
func (r *Reconciler) removeTargets(ctx context.Context, group client.ObjectKey) error {
	syncs, err := r.listSyncs(ctx, group.Namespace)
	if err != nil {
		return err
	}
	return r.configMaps.prune(ctx, group, syncs, active)
}

func findSync(syncs []openimv1.GroupInfoSyncStatus, name string) *openimv1.GroupInfoSyncStatus {
	for i := range syncs {
		if syncs[i].Name == name {
			return &syncs[i]
		}
	}
	return nil
}
