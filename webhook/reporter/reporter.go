package reporter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/apierr"
	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/applier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

const (
	// interval is the least time between two reports of one OpenIMServer.
	interval = 30 * time.Second

	// heartbeat is the longest silence, and heartbeatPending that of a receiver that has changes to write. The controller takes
	// one that was silent for longer for gone.
	heartbeat        = 10 * time.Minute
	heartbeatPending = time.Minute

	// applyTimeout bounds one report, and farewellTimeout all those at the end.
	applyTimeout    = 10 * time.Second
	farewellTimeout = 5 * time.Second

	// maxManager is the API server's bound on the name of a field manager.
	maxManager = 128
)

// Options of a Reporter. All are required but Journal and Applier.
type Options struct {
	// Name is the receiver's, and Version the operator's.
	Name, Version string
	// Apply applies the status of an OpenIMServer for the given field manager.
	Apply func(ctx context.Context, manager string, server *openimac.OpenIMServerApplyConfiguration) error
	// LastCallbacks returns when the last callback came from each OpenIMServer that the receiver accepts, or the zero time.
	LastCallbacks func() map[types.NamespacedName]time.Time
	// Journal and Applier say what waits; nil for a receiver without a journal.
	Journal Journal
	Applier Applier
	// Offset is what is added to the clock, 0 if it needs no correction.
	Offset func() time.Duration
	Now    func() time.Time
	Log    logr.Logger
}

// Journal is what a *journal.Journal says of itself.
type Journal interface {
	Tallies() map[journal.Tenant]journal.Tally
	FullFor(namespace string) bool
	Quarantined() int
}

// Applier is what an *applier.Applier says of itself.
type Applier interface {
	Backlogs() map[journal.Tenant]applier.Backlog
}

// Reporter reports. It implements manager.Runnable.
type Reporter struct {
	Options
	manager string
	// reported is what was written last of each OpenIMServer.
	reported map[types.NamespacedName]openimv1.ReceiverStatus
}

// New returns a reporter that says nothing before Start.
func New(options Options) *Reporter {
	r := &Reporter{
		Options: options, manager: managerName(options.Name),
		reported: map[types.NamespacedName]openimv1.ReceiverStatus{},
	}
	if r.Journal != nil {
		// What the last process of this name said of them may be outdated by the first report.
		for tenant := range r.Journal.Tallies() {
			r.reported[types.NamespacedName{Namespace: tenant.Namespace, Name: tenant.Server}] = openimv1.ReceiverStatus{}
		}
	}
	return r
}

// managerName returns the field manager for a receiver: two receivers must not share one.
func managerName(receiver string) string {
	const prefix = "groupinfo-operator-receiver/"
	if len(prefix)+len(receiver) <= maxManager {
		return prefix + receiver
	}
	sum := sha256.Sum256([]byte(receiver))
	return prefix + hex.EncodeToString(sum[:])
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every receiver reports for itself.
func (r *Reporter) NeedLeaderElection() bool { return false }

// +kubebuilder:rbac:groups=openim.io,resources=openimservers/status,verbs=patch

// Start reports until the context ends.
func (r *Reporter) Start(ctx context.Context) error {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		r.report(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
	}
}

// Farewell is the last report, when the receiver has ended in order: nothing, where nothing is left. Start must have
// returned, and the journal must still be open.
func (r *Reporter) Farewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewellTimeout)
	defer cancel()
	entries := r.entries()
	if !r.forget(ctx, entries) {
		return
	}
	for server, entry := range entries {
		if entry.Pending == 0 && entry.DeadLetters == 0 {
			if _, said := r.reported[server]; said && !r.apply(ctx, server, nil) {
				return
			}
			continue
		}
		entry.State = openimv1.ReceiverStopped
		if !r.apply(ctx, server, &entry) {
			return
		}
	}
}

// report writes what is new.
func (r *Reporter) report(ctx context.Context) {
	entries := r.entries()
	if !r.forget(ctx, entries) {
		return
	}
	for _, server := range slices.SortedFunc(maps.Keys(entries), byName) {
		entry := entries[server]
		last, said := r.reported[server]
		silent := entry.ReportTime.Sub(last.ReportTime.Time)
		last.ReportTime = entry.ReportTime
		if said && equality.Semantic.DeepEqual(last, entry) && silent < longestSilence(entry) {
			continue
		}
		if !r.apply(ctx, server, &entry) {
			// The others would meet the same trouble.
			return
		}
	}
}

// longestSilence is after how long the entry is written again although nothing has changed.
func longestSilence(entry openimv1.ReceiverStatus) time.Duration {
	if entry.Pending > 0 {
		return heartbeatPending
	}
	return heartbeat
}

// forget takes back what was said of OpenIMServers of which there is nothing to say any more: their tokens are gone, and
// nothing of theirs is left. It reports whether the API server can be written to.
func (r *Reporter) forget(ctx context.Context, entries map[types.NamespacedName]openimv1.ReceiverStatus) bool {
	for _, server := range slices.SortedFunc(maps.Keys(r.reported), byName) {
		if _, left := entries[server]; !left && !r.apply(ctx, server, nil) {
			return false
		}
	}
	return true
}

func byName(a, b types.NamespacedName) int {
	return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
}

// apply writes an entry, or removes it if it is nil, and reports whether the API server can be written to.
func (r *Reporter) apply(ctx context.Context, server types.NamespacedName, entry *openimv1.ReceiverStatus) bool {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	status := openimac.OpenIMServerStatus()
	if entry != nil {
		status.WithReceivers(configuration(*entry))
	}
	err := r.Apply(ctx, r.manager, openimac.OpenIMServer(server.Name, server.Namespace).WithStatus(status))
	switch {
	case apierrors.IsNotFound(err):
		// It was deleted, and its last changes may still wait.
		delete(r.reported, server)
		return true
	case err != nil:
		invalid := apierrors.IsInvalid(err)
		if invalid {
			r.Log.Info("Status refused: status.receivers may be full of entries of receivers that are gone; remove them", "openIMServer", server, "reason", apierr.WithoutValues(err).Error())
		} else {
			r.Log.V(1).Info("Status not reported; trying again", "openIMServer", server, "reason", err.Error())
		}
		return invalid
	}
	if entry != nil {
		r.reported[server] = *entry
	} else {
		delete(r.reported, server)
	}
	return true
}

// entries returns what is to be said now of each OpenIMServer that the receiver accepts, or has something of.
func (r *Reporter) entries() map[types.NamespacedName]openimv1.ReceiverStatus {
	entries := map[types.NamespacedName]openimv1.ReceiverStatus{}
	entry := func(server types.NamespacedName) openimv1.ReceiverStatus {
		if known, found := entries[server]; found {
			return known
		}
		return openimv1.ReceiverStatus{
			Name:               r.Name,
			Version:            r.Version,
			ReportTime:         seconds(r.Now()),
			ClockOffsetSeconds: told(int64(r.Offset() / time.Second)),
			JournalState:       r.journalState(server.Namespace),
			Quarantines:        r.quarantines(),
		}
	}
	for server, at := range r.LastCallbacks() {
		e := entry(server)
		e.LastCallbackTime = seconds(at)
		entries[server] = e
	}
	if r.Journal == nil {
		return entries
	}
	for tenant, tally := range r.Journal.Tallies() {
		server := types.NamespacedName{Namespace: tenant.Namespace, Name: tenant.Server}
		e := entry(server)
		e.Pending, e.DeadLetters = int64(tally.Waiting), int64(tally.Dead)
		entries[server] = e
	}
	for tenant, backlog := range r.Applier.Backlogs() {
		server := types.NamespacedName{Namespace: tenant.Namespace, Name: tenant.Server}
		// What has just been applied is in the one and not in the other any more.
		if e := entries[server]; e.Pending > 0 {
			e.OldestPendingTime, e.PendingReason = seconds(backlog.Oldest), backlog.Reason
			entries[server] = e
		}
	}
	return entries
}

func (r *Reporter) journalState(namespace string) openimv1.JournalState {
	switch {
	case r.Journal == nil:
		return openimv1.JournalNone
	case r.Journal.FullFor(namespace):
		return openimv1.JournalFull
	}
	return ""
}

func (r *Reporter) quarantines() int64 {
	if r.Journal == nil {
		return 0
	}
	return int64(r.Journal.Quarantined())
}

// seconds is a time as the API server stores it, so that it equals itself after a round trip.
func seconds(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.UTC().Truncate(time.Second).Round(0))
}

func configuration(entry openimv1.ReceiverStatus) *openimac.ReceiverStatusApplyConfiguration {
	return &openimac.ReceiverStatusApplyConfiguration{
		Name:               &entry.Name,
		Version:            told(entry.Version),
		ReportTime:         &entry.ReportTime,
		LastCallbackTime:   told(entry.LastCallbackTime),
		Pending:            told(entry.Pending),
		OldestPendingTime:  told(entry.OldestPendingTime),
		PendingReason:      told(entry.PendingReason),
		DeadLetters:        told(entry.DeadLetters),
		JournalState:       told(entry.JournalState),
		Quarantines:        told(entry.Quarantines),
		ClockOffsetSeconds: entry.ClockOffsetSeconds,
		State:              told(entry.State),
	}
}

// told is the value, or nil if there is nothing to tell.
func told[T comparable](value T) *T {
	if value == *new(T) {
		return nil
	}
	return &value
}
