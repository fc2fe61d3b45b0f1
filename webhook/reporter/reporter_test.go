package reporter

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/applier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

// receiver stands for what the reporter asks, and for the API server.
type receiver struct {
	mu        sync.Mutex
	callbacks map[types.NamespacedName]time.Time
	tallies   map[journal.Tenant]journal.Tally
	backlogs  map[journal.Tenant]applier.Backlog
	full      bool
	offset    time.Duration

	fail   error
	writes []string
	// told are the entries as they stand in the API server.
	told map[string]openimac.ReceiverStatusApplyConfiguration
}

func (r *receiver) Tallies() map[journal.Tenant]journal.Tally    { return locked(r, &r.tallies) }
func (r *receiver) Backlogs() map[journal.Tenant]applier.Backlog { return locked(r, &r.backlogs) }
func (r *receiver) FullFor(string) bool                          { return r.full }
func (r *receiver) Quarantined() int                             { return 0 }

// locked returns a copy of a map that the test changes.
func locked[K comparable, V any](r *receiver, m *map[K]V) map[K]V {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(*m)
}

// count returns how many reports were written.
func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.writes)
}

// set changes what the reporter is told.
func (r *receiver) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *receiver) apply(_ context.Context, manager string, server *openimac.OpenIMServerApplyConfiguration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	name := *server.Namespace + "/" + *server.Name
	r.writes = append(r.writes, manager+" "+name)
	delete(r.told, name)
	for _, entry := range server.Status.Receivers {
		r.told[name] = entry
	}
	return nil
}

// newReporter returns a reporter that says nothing yet.
func newReporter(r *receiver) *Reporter {
	if r.told == nil {
		r.told = map[string]openimac.ReceiverStatusApplyConfiguration{}
	}
	return New(Options{
		Name: "receiver-0", Version: "v1", Apply: r.apply,
		LastCallbacks: func() map[types.NamespacedName]time.Time { return locked(r, &r.callbacks) },
		Journal:       r, Applier: r,
		Offset: func() time.Duration { return r.offset }, Now: time.Now, Log: logr.Discard(),
	})
}

// started starts a reporter, which ends with stop.
func started(t *testing.T, reporter *Reporter) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reporter.Start(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

var demo = types.NamespacedName{Namespace: "chat", Name: "demo"}

func TestReportsWhatIsNewAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{callbacks: map[types.NamespacedName]time.Time{demo: {}}}
		defer started(t, newReporter(r))()
		pass(time.Second)
		if diff := cmp.Diff([]string{"groupinfo-operator-receiver/receiver-0 chat/demo"}, r.writes); diff != "" {
			t.Fatalf("at the start: %s", diff)
		}
		pass(heartbeat - 2*interval)
		if r.count() != 1 {
			t.Errorf("%d reports while nothing happened", r.count())
		}
		pass(2 * interval)
		if r.count() != 2 {
			t.Errorf("%d reports after the longest silence, want 2", r.count())
		}
		for range 200 {
			r.set(func() { r.callbacks[demo] = time.Now() })
			pass(3 * time.Second)
		}
		if reports := r.count() - 2; reports < 19 || reports > 21 {
			t.Errorf("%d reports in ten minutes of callbacks", reports)
		}
		if got := locked(r, &r.told)["chat/demo"].LastCallbackTime; got == nil || time.Since(got.Time) > 2*interval {
			t.Errorf("the last callback came at %v", got)
		}
	})
}

func TestReportsWhatWaitsAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		received := time.Now().Add(-time.Minute).UTC()
		gone := journal.Tenant{Namespace: "chat", Server: "gone"}
		r := &receiver{
			callbacks: map[types.NamespacedName]time.Time{demo: received},
			tallies:   map[journal.Tenant]journal.Tally{{Namespace: "chat", Server: "demo"}: {Waiting: 3, Dead: 1}, gone: {Dead: 2}},
			backlogs: map[journal.Tenant]applier.Backlog{
				{Namespace: "chat", Server: "demo"}: {Oldest: received, Reason: openimv1.PendingForbidden},
				// Applied between the two looks.
				gone: {Oldest: received},
			},
			full: true, offset: -3700 * time.Millisecond * 1000,
		}
		defer started(t, newReporter(r))()
		pass(time.Second)
		now := seconds(time.Now().Add(-time.Second))
		at := seconds(received)
		want := map[string]openimac.ReceiverStatusApplyConfiguration{
			"chat/demo": {
				Name: new("receiver-0"), Version: new("v1"), ReportTime: &now, LastCallbackTime: &at,
				Pending: new(int64(3)), OldestPendingTime: &at, PendingReason: new(openimv1.PendingForbidden),
				DeadLetters: new(int64(1)), JournalState: new(openimv1.JournalFull), ClockOffsetSeconds: new(int64(-3700)),
			},
			"chat/gone": {
				Name: new("receiver-0"), Version: new("v1"), ReportTime: &now,
				DeadLetters: new(int64(2)), JournalState: new(openimv1.JournalFull), ClockOffsetSeconds: new(int64(-3700)),
			},
		}
		if diff := cmp.Diff(want, locked(r, &r.told)); diff != "" {
			t.Error(diff)
		}
	})
}

// While changes wait, a receiver says so often enough not to be taken for gone, although nothing new happens.
func TestReportsWhileChangesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		received := time.Now()
		tenant := journal.Tenant{Namespace: "chat", Server: "demo"}
		r := &receiver{
			callbacks: map[types.NamespacedName]time.Time{demo: received},
			tallies:   map[journal.Tenant]journal.Tally{tenant: {Waiting: 1}},
			backlogs:  map[journal.Tenant]applier.Backlog{tenant: {Oldest: received, Reason: openimv1.PendingForbidden}},
		}
		defer started(t, newReporter(r))()
		for range 20 {
			pass(time.Minute)
			if silent := time.Since(locked(r, &r.told)["chat/demo"].ReportTime.Time); silent > heartbeatPending+interval {
				t.Fatalf("the last report is from %v ago", silent)
			}
		}
		if r.count() > 25 {
			t.Errorf("%d reports in 20 minutes", r.count())
		}
	})
}

// An OpenIMServer whose tokens are gone, or whose last changes a restarted receiver has written before its first report, must
// not keep an entry for ever.
func TestTakesBackWhatItHasNothingToSayOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{
			callbacks: map[types.NamespacedName]time.Time{demo: {}},
			tallies:   map[journal.Tenant]journal.Tally{{Namespace: "chat", Server: "left-over"}: {Waiting: 1}},
		}
		r.told = map[string]openimac.ReceiverStatusApplyConfiguration{"chat/left-over": {Pending: new(int64(5))}}
		reporter := newReporter(r)
		// Applied before the first report.
		r.tallies = nil
		stop := started(t, reporter)
		pass(time.Second)
		if _, found := locked(r, &r.told)["chat/left-over"]; found {
			t.Error("what the last process said still stands")
		}
		r.set(func() { r.callbacks = nil })
		pass(interval)
		if len(locked(r, &r.told)) > 0 {
			t.Errorf("entries are left: %v", r.told)
		}
		stop()
		reporter.Farewell(t.Context())
	})
}

func TestReportsAgainWhatCouldNotBeWritten(t *testing.T) {
	notFound := apierrors.NewNotFound(schema.GroupResource{Resource: "openimservers"}, "demo")
	for name, fail := range map[string]error{"away": errors.New("connection refused"), "not there yet": notFound} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{callbacks: map[types.NamespacedName]time.Time{demo: {}}, fail: fail}
				defer started(t, newReporter(r))()
				pass(5 * time.Minute)
				r.set(func() { r.fail = nil })
				pass(interval)
				if r.count() != 1 {
					t.Errorf("%d reports after the trouble was over", r.count())
				}
			})
		})
	}
}

func TestFarewell(t *testing.T) {
	for name, tc := range map[string]struct {
		left journal.Tally
		want *openimac.ReceiverStatusApplyConfiguration
	}{
		"nothing is left":  {journal.Tally{}, nil},
		"changes are left": {journal.Tally{Waiting: 2}, &openimac.ReceiverStatusApplyConfiguration{Pending: new(int64(2))}},
		"the dead remain":  {journal.Tally{Dead: 1}, &openimac.ReceiverStatusApplyConfiguration{DeadLetters: new(int64(1))}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{callbacks: map[types.NamespacedName]time.Time{demo: {}}}
				reporter := newReporter(r)
				stop := started(t, reporter)
				pass(time.Second)
				stop()
				r.tallies = map[journal.Tenant]journal.Tally{{Namespace: "chat", Server: "demo"}: tc.left}
				reporter.Farewell(t.Context())
				now := seconds(time.Now())
				if tc.want != nil {
					tc.want.Name, tc.want.Version, tc.want.ReportTime, tc.want.State = new("receiver-0"), new("v1"), &now, new(openimv1.ReceiverStopped)
				}
				got, found := locked(r, &r.told)["chat/demo"]
				if found != (tc.want != nil) {
					t.Fatalf("an entry is left: %v", found)
				}
				if diff := cmp.Diff(tc.want, &got); found && diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Two receivers that shared a field manager would remove each other's entries.
func TestManagerNames(t *testing.T) {
	long := strings.Repeat("a-very-long-name-", 14)
	seen := map[string]bool{}
	for _, receiver := range []string{"r-0", "r-1", long + "0", long + "1"} {
		name := managerName(receiver)
		if len(name) > maxManager || seen[name] {
			t.Errorf("the manager of %s is %s", receiver, name)
		}
		seen[name] = true
	}
}
