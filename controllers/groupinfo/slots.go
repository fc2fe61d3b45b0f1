package groupinfo

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// reservationBelieved is how long a slot stays taken for a Job that the cache does not show: it may have been deleted
// before it was shown.
const reservationBelieved = 30 * time.Second

// slots bound how many Jobs of a GroupSync are unfinished at a time. What counts are the unfinished Jobs that the cache
// shows, and those that are being created and that it does not show yet. Groups without a slot wait in the order in which
// they came. All of it follows from the Jobs and the groups' status, so nothing is lost with the process. It is safe for
// concurrent use.
type slots struct {
	// client reads Jobs from the cache.
	client client.Reader
	now    func() time.Time
	// wake brings a group up for another reconcile.
	wake func(group client.ObjectKey)

	mu    sync.Mutex
	gates map[types.UID]*gate
}

// gate is where the groups of one GroupSync wait.
type gate struct {
	// reserved are the names of Jobs that are being created, and since when.
	reserved map[string]time.Time
	// waiting are the groups without a slot, and called those that were woken because one is free.
	waiting []client.ObjectKey
	called  map[client.ObjectKey]bool
}

func newSlots(reader client.Reader, now func() time.Time, wake func(client.ObjectKey)) *slots {
	return &slots{client: reader, now: now, wake: wake, gates: map[types.UID]*gate{}}
}

func (s *slots) gate(sync types.UID) *gate {
	g := s.gates[sync]
	if g == nil {
		g = &gate{reserved: map[string]time.Time{}, called: map[client.ObjectKey]bool{}}
		s.gates[sync] = g
	}
	return g
}

// acquire takes a slot for a Job, and reports whether there was one. If not, the group is woken once there is.
func (s *slots) acquire(ctx context.Context, sync *openimv1.GroupSync, group client.ObjectKey, job string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gate(sync.UID)
	taken, err := s.unfinished(ctx, sync)
	if err != nil {
		return false, err
	}
	for name, since := range g.reserved {
		shown, err := s.shown(ctx, client.ObjectKey{Namespace: sync.Namespace, Name: name})
		if err != nil {
			return false, err
		}
		if shown || s.now().Sub(since) > reservationBelieved {
			delete(g.reserved, name)
			continue
		}
		taken[name] = true
	}
	called := g.called[group]
	delete(g.called, group)
	if !taken[job] && len(taken) >= maxConcurrent(sync) {
		switch {
		case slices.Contains(g.waiting, group):
		case called:
			// Somebody was quicker, and it keeps its place.
			g.waiting = slices.Insert(g.waiting, 0, group)
		default:
			g.waiting = append(g.waiting, group)
		}
		return false, nil
	}
	g.reserved[job] = s.now()
	g.waiting = slices.DeleteFunc(g.waiting, func(key client.ObjectKey) bool { return key == group })
	return true, nil
}

// unfinished returns the names of the GroupSync's Jobs that the cache shows as unfinished.
func (s *slots) unfinished(ctx context.Context, sync *openimv1.GroupSync) (map[string]bool, error) {
	var all batchv1.JobList
	if err := s.client.List(ctx, &all, client.InNamespace(sync.Namespace), client.MatchingFields{unfinishedIndex: string(sync.UID)}); err != nil {
		return nil, fmt.Errorf("list unfinished Jobs: %w", err)
	}
	names := map[string]bool{}
	for i := range all.Items {
		if job := &all.Items[i]; isControlledBy(job, sync.UID) && observe(job).state == jobActive {
			names[job.Name] = true
		}
	}
	return names, nil
}

func (s *slots) shown(ctx context.Context, key client.ObjectKey) (bool, error) {
	err := s.client.Get(ctx, key, &batchv1.Job{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// release gives back the slot of a Job that was not created after all.
func (s *slots) release(sync types.UID, job string) {
	s.mu.Lock()
	delete(s.gate(sync).reserved, job)
	s.mu.Unlock()
	s.ended(sync)
}

// ended wakes the group that waits longest, since a slot has become free.
func (s *slots) ended(sync types.UID) {
	s.mu.Lock()
	g := s.gates[sync]
	if g == nil || len(g.waiting) == 0 {
		s.mu.Unlock()
		return
	}
	next := g.waiting[0]
	g.waiting = g.waiting[1:]
	g.called[next] = true
	s.mu.Unlock()
	s.wake(next)
}

// pass gives the turn of a group that was woken, and has no use for it any more, to the next. A group that waits no longer
// leaves the line.
func (s *slots) pass(sync types.UID, group client.ObjectKey) {
	s.mu.Lock()
	g := s.gates[sync]
	if g == nil {
		s.mu.Unlock()
		return
	}
	called := g.called[group]
	delete(g.called, group)
	g.waiting = slices.DeleteFunc(g.waiting, func(key client.ObjectKey) bool { return key == group })
	s.mu.Unlock()
	if called {
		s.ended(sync)
	}
}

// leave is pass for a group that is gone.
func (s *slots) leave(group client.ObjectKey) {
	s.mu.Lock()
	var syncs []types.UID
	for sync := range s.gates {
		syncs = append(syncs, sync)
	}
	s.mu.Unlock()
	for _, sync := range syncs {
		s.pass(sync, group)
	}
}
