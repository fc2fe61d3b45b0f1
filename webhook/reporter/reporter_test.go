package reporter

import (
	"context"
	"errors"
	"strings"
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

func (r *receiver) Tallies() map[journal.Tenant]journal.Tally    { return r.tallies }
func (r *receiver) Backlogs() map[journal.Tenant]applier.Backlog { return r.backlogs }
func (r *receiver) FullFor(string) bool                          { return r.full }
func (r *receiver) Quarantined() int                             { return 0 }

func (r *receiver) apply(_ context.Context, manager string, server *openimac.OpenIMServerApplyConfiguration) error {
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

// newReporter starts a reporter, which ends with stop.
func newReporter(t *testing.T, r *receiver) (reporter *Reporter, stop func()) {
	t.Helper()
	r.told = map[string]openimac.ReceiverStatusApplyConfiguration{}
	reporter = New(Options{
		Name: "receiver-0", Version: "v1", Apply: r.apply,
		LastCallbacks: func() map[types.NamespacedName]time.Time { return r.callbacks },
		Journal:       r, Applier: r,
		Offset: func() time.Duration { return r.offset }, Now: time.Now, Log: logr.Discard(),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reporter.Start(ctx) }()
	return reporter, func() {
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
		_, stop := newReporter(t, r)
		defer stop()
		pass(time.Second)
		if diff := cmp.Diff([]string{"groupinfo-operator-receiver/receiver-0 chat/demo"}, r.writes); diff != "" {
			t.Fatalf("at the start: %s", diff)
		}
		pass(heartbeat - 2*interval)
		if len(r.writes) != 1 {
			t.Errorf("%d reports while nothing happened", len(r.writes))
		}
		pass(2 * interval)
		if len(r.writes) != 2 {
			t.Errorf("%d reports after the longest silence, want 2", len(r.writes))
		}
		for range 200 {
			r.callbacks[demo] = time.Now()
			pass(3 * time.Second)
		}
		if reports := len(r.writes) - 2; reports < 19 || reports > 21 {
			t.Errorf("%d reports in ten minutes of callbacks", reports)
		}
		if got := r.told["chat/demo"].LastCallbackTime; got == nil || time.Since(got.Time) > 2*interval {
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
		_, stop := newReporter(t, r)
		defer stop()
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
		if diff := cmp.Diff(want, r.told); diff != "" {
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
		_, stop := newReporter(t, r)
		defer stop()
		for range 20 {
			pass(time.Minute)
			if silent := time.Since(r.told["chat/demo"].ReportTime.Time); silent > heartbeatPending+interval {
				t.Fatalf("the last report is from %v ago", silent)
			}
		}
		if len(r.writes) > 25 {
			t.Errorf("%d reports in 20 minutes", len(r.writes))
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
		reporter, stop := newReporter(t, r)
		r.told["chat/left-over"] = openimac.ReceiverStatusApplyConfiguration{Pending: new(int64(5))}
		// Applied before the first report.
		r.tallies = nil
		pass(time.Second)
		if _, found := r.told["chat/left-over"]; found {
			t.Error("what the last process said still stands")
		}
		r.callbacks = nil
		pass(interval)
		if len(r.told) > 0 {
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
				_, stop := newReporter(t, r)
				defer stop()
				pass(5 * time.Minute)
				r.fail = nil
				pass(interval)
				if len(r.writes) != 1 {
					t.Errorf("%d reports after the trouble was over", len(r.writes))
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
				reporter, stop := newReporter(t, r)
				pass(time.Second)
				stop()
				r.tallies = map[journal.Tenant]journal.Tally{{Namespace: "chat", Server: "demo"}: tc.left}
				reporter.Farewell(t.Context())
				now := seconds(time.Now())
				if tc.want != nil {
					tc.want.Name, tc.want.Version, tc.want.ReportTime, tc.want.State = new("receiver-0"), new("v1"), &now, new(openimv1.ReceiverStopped)
				}
				got, found := r.told["chat/demo"]
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
