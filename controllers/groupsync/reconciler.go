package groupsync

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/controllers/groupinfo"
	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/conditions"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

const (
	// FieldManager is the name under which this controller writes.
	FieldManager = "groupinfo-operator-syncs"

	// summaryInterval is the least time between two summaries of one GroupSync. Every change to any of its groups asks for
	// one, and the object would be the busiest of the cluster.
	summaryInterval = 5 * time.Second
)

// Reconciler reconciles the status of GroupSyncs.
type Reconciler struct {
	Client   client.Client
	Recorder events.EventRecorder
	Now      func() time.Time
	Rules    *rules.Cache

	mu sync.Mutex
	// summed is when each GroupSync was summed up last, for which generation.
	summed map[client.ObjectKey]summary
}

type summary struct {
	at         time.Time
	generation int64
}

// Setup adds the controller to the manager.
func Setup(mgr manager.Manager, compiled *rules.Cache, now func() time.Time) error {
	r := &Reconciler{
		Client:   mgr.GetClient(),
		Recorder: mgr.GetEventRecorder("groupinfo-operator"),
		Now:      now,
		Rules:    compiled,
		summed:   map[client.ObjectKey]summary{},
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("groupsync").
		For(&openimv1.GroupSync{}).
		Watches(&openimv1.GroupInfo{}, handler.EnqueueRequestsFromMapFunc(r.syncsOf)).
		Complete(r)
}

// syncsOf returns the GroupSyncs of the group's namespace: any of them may select the group, or have selected it.
func (r *Reconciler) syncsOf(ctx context.Context, group client.Object) []reconcile.Request {
	var all openimv1.GroupSyncList
	if err := r.Client.List(ctx, &all, client.InNamespace(group.GetNamespace())); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "GroupSyncs not listed: their totals may be late")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(all.Items))
	for i := range all.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&all.Items[i])})
	}
	return requests
}

// +kubebuilder:rbac:groups=openim.io,resources=groupinfos;groupsyncs,verbs=get;list;watch
// +kubebuilder:rbac:groups=openim.io,resources=groupsyncs/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	sync := &openimv1.GroupSync{}
	if err := r.Client.Get(ctx, request.NamespacedName, sync); apierrors.IsNotFound(err) {
		r.forget(request.NamespacedName)
		r.Rules.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if !sync.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if wait := r.tooSoon(sync); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	status, err := r.status(ctx, sync)
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.applyStatus(ctx, sync, status)
}

// tooSoon returns how long to wait until the GroupSync may be summed up again. A change of its spec does not wait.
func (r *Reconciler) tooSoon(sync *openimv1.GroupSync) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := client.ObjectKeyFromObject(sync)
	if last, found := r.summed[key]; found && last.generation == sync.Generation {
		if wait := last.at.Add(summaryInterval).Sub(r.Now()); wait > 0 {
			return wait
		}
	}
	r.summed[key] = summary{r.Now(), sync.Generation}
	return 0
}

func (r *Reconciler) forget(key client.ObjectKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.summed, key)
}

// status computes the GroupSync's status from the GroupInfos.
func (r *Reconciler) status(ctx context.Context, sync *openimv1.GroupSync) (openimv1.GroupSyncStatus, error) {
	status := openimv1.GroupSyncStatus{ObservedGeneration: sync.Generation}
	compiled := r.Rules.Of(sync)
	if !compiled.Valid() {
		messages := make([]string, 0, len(compiled.Faults))
		for _, fault := range compiled.Faults {
			messages = append(messages, fault.Message)
		}
		status.Conditions = r.conditions(sync, compiled.Faults[0].Reason, openimv1.ConditionStalled, strings.Join(messages, "; "))
		return status, nil
	}
	var groups openimv1.GroupInfoList
	if err := r.Client.List(ctx, &groups, client.InNamespace(sync.Namespace), client.MatchingLabelsSelector{Selector: compiled.Selector()}); err != nil {
		return status, fmt.Errorf("list GroupInfos: %w", err)
	}
	t := count(sync, compiled, groups.Items)
	status.Matched, status.Synced, status.Failing, status.Running = &t.matched, &t.synced, &t.failing, &t.running
	switch {
	case groupinfo.Suspended(sync):
		status.Conditions = r.conditions(sync, openimv1.ReasonSuspended, openimv1.ConditionStalled,
			"spec.suspend is true: targets stay as they are until it is false")
	case t.failing > 0:
		status.Conditions = r.conditions(sync, openimv1.ReasonGroupsFailing, openimv1.ConditionReconciling,
			fmt.Sprintf("%d of %d groups are not in step; list those that are not ready with kubectl get groupinfos and see their status.syncs", t.failing, t.matched))
	case t.synced < t.matched:
		status.Conditions = r.conditions(sync, openimv1.ReasonProgressing, openimv1.ConditionReconciling,
			fmt.Sprintf("%d of %d groups are in step", t.synced, t.matched))
	default:
		status.Conditions = r.conditions(sync, openimv1.ReasonAllSynced, "", fmt.Sprintf("all %d groups are in step", t.matched))
	}
	return status, nil
}

// conditions returns Ready, which is true if there is no companion, and the companion that says why it is not.
func (r *Reconciler) conditions(sync *openimv1.GroupSync, reason, companion, message string) []metav1.Condition {
	ready := metav1.Condition{Type: openimv1.ConditionReady, Status: metav1.ConditionTrue, Reason: reason, Message: message}
	holding := []metav1.Condition{ready}
	if companion != "" {
		holding[0].Status = metav1.ConditionFalse
		holding = append(holding, metav1.Condition{Type: companion, Status: metav1.ConditionTrue, Reason: reason, Message: message})
	}
	return conditions.New(sync.Status.Conditions, sync.Generation, r.Now(), holding...)
}

type totals struct{ matched, synced, failing, running int32 }

// count sums up what the groups that the GroupSync picks say of it: of this generation of it, and of no other that had its
// name.
func count(sync *openimv1.GroupSync, compiled *rules.Rules, groups []openimv1.GroupInfo) totals {
	var t totals
	for i := range groups {
		if picked, err := compiled.Select(&groups[i]); !picked && err == nil {
			continue
		}
		t.matched++
		switch entry := entryOf(sync, &groups[i]); {
		case entry == nil && unservable(&groups[i]), entry != nil && !groupinfo.Settled(entry) && !groupinfo.InProgress(entry):
			t.failing++
		case entry == nil:
		case entry.State == openimv1.SyncStateRunning || entry.State == openimv1.SyncStatePending:
			t.running++
		case groupinfo.Settled(entry) && groups[i].Status.ObservedGeneration == groups[i].Generation:
			t.synced++
		}
	}
	return t
}

// entryOf returns what the group says of the GroupSync, or nil.
func entryOf(sync *openimv1.GroupSync, group *openimv1.GroupInfo) *openimv1.GroupInfoSyncStatus {
	for i := range group.Status.Syncs {
		entry := &group.Status.Syncs[i]
		if entry.Name == sync.Name && entry.UID == string(sync.UID) && entry.ObservedGeneration == sync.Generation {
			return entry
		}
	}
	return nil
}

// unservable reports whether the group is one of those that never get an entry for some GroupSync that selects them.
func unservable(group *openimv1.GroupInfo) bool {
	ready := meta.FindStatusCondition(group.Status.Conditions, openimv1.ConditionReady)
	return ready != nil && (ready.Reason == openimv1.ReasonNameMismatch || ready.Reason == openimv1.ReasonTooManySyncs)
}

// applyStatus writes the status if it says anything new, and tells when Ready changes.
func (r *Reconciler) applyStatus(ctx context.Context, sync *openimv1.GroupSync, status openimv1.GroupSyncStatus) error {
	if equality.Semantic.DeepEqual(sync.Status, status) {
		return nil
	}
	configuration := openimac.GroupSyncStatus().
		WithObservedGeneration(status.ObservedGeneration).
		WithConditions(conditions.Apply(status.Conditions)...)
	configuration.Matched, configuration.Synced = status.Matched, status.Synced
	configuration.Failing, configuration.Running = status.Failing, status.Running
	applied := openimac.GroupSync(sync.Name, sync.Namespace).WithStatus(configuration)
	if err := r.Client.Status().Apply(ctx, applied, client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("apply status: %w", err))
	}
	before := meta.FindStatusCondition(sync.Status.Conditions, openimv1.ConditionReady)
	now := meta.FindStatusCondition(status.Conditions, openimv1.ConditionReady)
	switch {
	case before != nil && before.Reason == now.Reason, now.Reason == openimv1.ReasonProgressing:
	case now.Status == metav1.ConditionTrue:
		r.Recorder.Eventf(sync, nil, corev1.EventTypeNormal, now.Reason, "Summarize", "%s", now.Message)
	default:
		r.Recorder.Eventf(sync, nil, corev1.EventTypeWarning, now.Reason, "Summarize", "%s", now.Message)
	}
	return nil
}
