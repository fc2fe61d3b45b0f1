package applier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

// server stands for the API server: it merges what it is given, fails as it is told to, and watches how it is used.
type server struct {
	mu       sync.Mutex
	objects  map[string]*merge.State
	inFlight map[string]int
	writes   map[string]int
	overlaps int
	// latency of a write, and fail decides on its result.
	latency time.Duration
	fail    func(told merge.State) error
}

func newServer() *server {
	return &server{objects: map[string]*merge.State{}, inFlight: map[string]int{}, writes: map[string]int{}, fail: func(merge.State) error { return nil }}
}

func (s *server) Write(ctx context.Context, _ string, told merge.State, options ...groupwriter.Option) (groupwriter.Result, error) {
	group := told.Spec.GroupID
	s.mu.Lock()
	s.inFlight[group]++
	s.writes[group]++
	if s.inFlight[group] > 1 {
		s.overlaps++
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inFlight[group]--
	}()
	select {
	case <-time.After(s.latency):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail(told); err != nil {
		return "", err
	}
	object, found := s.objects[group]
	if !found {
		if slices.Contains(options, groupwriter.OnlyIfPresent) {
			return "", groupwriter.ErrAbsent
		}
		object = &merge.State{}
		object.Spec.ServerName, object.Spec.GroupID = told.Spec.ServerName, group
		s.objects[group] = object
	}
	object.Join(told)
	return groupwriter.Patched, nil
}

// disk stands for the journal.
type disk struct {
	mu      sync.Mutex
	waiting map[uint64]journal.Entry
	dead    []uint64
}

func (d *disk) Load(sequence uint64) (journal.Entry, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	entry, found := d.waiting[sequence]
	return entry, found, nil
}

func (d *disk) Remove(sequences []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range sequences {
		delete(d.waiting, s)
	}
	return nil
}

func (d *disk) Bury(sequences []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range sequences {
		delete(d.waiting, s)
		d.dead = append(d.dead, s)
	}
	return nil
}

type fixture struct {
	*Applier
	server *server
	disk   *disk
	next   uint64
}

// newFixture starts an applier that ends with the test's bubble.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{server: newServer(), disk: &disk{waiting: map[uint64]journal.Entry{}}}
	f.Applier = New(Options{Writer: f.server, Journal: f.disk, Now: time.Now, Log: logr.Discard(), Registry: prometheus.NewRegistry()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) tell(group, name string) journal.Entry {
	f.next++
	entry := journal.Entry{Sequence: f.next, Namespace: "chat", Change: merge.Change{
		Stamp:    stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLCAt(time.Now()), Replica: 1, Sequence: f.next},
		Received: time.Now(),
		Spec:     openimv1.GroupInfoSpec{ServerName: "demo", GroupID: group, GroupName: &name},
	}}
	f.disk.mu.Lock()
	f.disk.waiting[entry.Sequence] = entry
	f.disk.mu.Unlock()
	f.Add(entry)
	return entry
}

func (f *fixture) name(group string) string {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	object := f.server.objects[group]
	if object == nil || object.Spec.GroupName == nil {
		return ""
	}
	return *object.Spec.GroupName
}

// pass lets time pass in the bubble, where it takes none.
func pass(d time.Duration) { <-time.After(d) }

// rest is what is left when everything should be over.
type rest struct {
	waiting  int
	dead     []uint64
	overlaps int
	groups   int
	objects  map[string]*merge.State
	writes   map[string]int
}

func (f *fixture) rest() rest {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	return rest{
		waiting: len(f.disk.waiting), dead: slices.Clone(f.disk.dead), overlaps: f.server.overlaps,
		groups: len(f.groups), objects: maps.Clone(f.server.objects), writes: maps.Clone(f.server.writes),
	}
}

func TestHotGroupIsMergedAndStarvesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.server.latency = 5 * time.Millisecond
		const seconds, rate = 5, 1000
		cold := 0
		for i := range seconds * rate {
			f.tell("hot", fmt.Sprint(i))
			if i%100 == 50 {
				f.tell(fmt.Sprintf("cold-%d", i), "x")
				cold++
			}
			pass(time.Second / rate)
			if i%100 == 70 {
				if got := f.name(fmt.Sprintf("cold-%d", i-20)); got != "x" {
					t.Fatalf("a cold group waits behind the hot one (%q)", got)
				}
			}
		}
		pass(time.Second)
		if got, want := f.name("hot"), fmt.Sprint(seconds*rate-1); got != want {
			t.Errorf("the hot group is %q, want %q", got, want)
		}
		if perSecond := f.rest().writes["hot"] / seconds; perSecond > 10 || perSecond < 5 {
			t.Errorf("%d writes a second for the hot group", perSecond)
		}
		if r := f.rest(); cold < 40 || r.overlaps > 0 || r.waiting > 0 {
			t.Errorf("%d cold groups, %d overlapping writes, %d entries left", cold, r.overlaps, r.waiting)
		}
	})
}

// While callbacks come the applier leaves the API server, and the disk under it, to the replies; then it makes up for it. It
// also does when it falls behind. One namespace never has all the writes in flight.
func TestFewWritesAreInFlightWhileCallbacksCome(t *testing.T) {
	const gentle, full = gentleInFlight - gentleInFlight/4, maxInFlight - maxInFlight/4
	// most is how many writes were in flight at most, in the time given.
	most := func(f *fixture, during time.Duration) (most int) {
		for range during / time.Millisecond {
			pass(time.Millisecond)
			n := 0
			f.server.mu.Lock()
			for _, writes := range f.server.inFlight {
				n += writes
			}
			f.server.mu.Unlock()
			most = max(most, n)
		}
		return most
	}
	for name, tc := range map[string]struct {
		// every is how often a callback comes, and soon and later what is in flight in the first tenth of a second, and three
		// seconds after.
		every       time.Duration
		soon, later int
	}{
		"a lull follows":     {0, gentle, full},
		"callbacks go on":    {20 * time.Millisecond, gentle, gentle},
		"too many for a few": {5 * time.Millisecond, gentle, full},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.server.latency = 50 * time.Millisecond
				groups := 0
				tell := func(n int) {
					for range n {
						f.tell(fmt.Sprintf("g%d", groups), "x")
						groups++
					}
				}
				tell(8)
				stop := make(chan struct{})
				if tc.every > 0 {
					go func() {
						for {
							select {
							case <-stop:
								return
							case <-time.After(tc.every):
								tell(1)
							}
						}
					}()
				} else {
					tell(200)
				}
				if got := most(f, lull-10*time.Millisecond); got != tc.soon {
					t.Errorf("up to %d writes were in flight at first, want %d", got, tc.soon)
				}
				if tc.every > 0 {
					pass(3 * time.Second)
				}
				if got := most(f, 2*lull); got != tc.later {
					t.Errorf("up to %d writes were in flight later, want %d", got, tc.later)
				}
				close(stop)
				pass(10 * time.Second)
				if left := f.rest().waiting; left > 0 {
					t.Errorf("%d changes are left", left)
				}
			})
		})
	}
}

func TestFirstChangeGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.tell("g", "a")
		synctest.Wait()
		pass(time.Millisecond)
		if got := f.name("g"); got != "a" {
			t.Errorf("after a millisecond the group is %q", got)
		}
	})
}

func TestOutageLosesNothingAndIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		down := true
		f.server.fail = func(merge.State) error {
			if down {
				return errors.New("connection refused")
			}
			return nil
		}
		for i := range 50 {
			f.tell(fmt.Sprintf("g%d", i), "before")
		}
		pass(10 * time.Minute)
		if oldest, found := f.Oldest(); !found || time.Since(oldest) < 10*time.Minute {
			t.Errorf("the oldest change is from %v (%v)", oldest, found)
		}
		if waiting := f.rest().waiting; waiting != 50 {
			t.Errorf("%d of 50 changes are still in the journal", waiting)
		}
		attempts := f.rest().writes["g0"]
		if attempts < 10 || attempts > 60 {
			t.Errorf("%d attempts in ten minutes", attempts)
		}
		f.server.mu.Lock()
		down = false
		f.server.mu.Unlock()
		pass(maxBackoff + time.Second)
		for i := range 50 {
			if got := f.name(fmt.Sprintf("g%d", i)); got != "before" {
				t.Errorf("g%d is %q", i, got)
			}
		}
		if _, found := f.Oldest(); found || f.rest().waiting > 0 {
			t.Error("something still waits")
		}
	})
}

// An API server that hangs holds every write: what is in flight is not there yet.
func TestOldestCountsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.server.latency = writeTimeout / 2
		first := f.tell("g", "first")
		pass(time.Second)
		f.tell("g", "second")
		if oldest, found := f.Oldest(); !found || !oldest.Equal(first.Change.Received) {
			t.Errorf("the oldest change is from %v (%v), want %v", oldest, found, first.Change.Received)
		}
		pass(writeTimeout + time.Second)
		if oldest, found := f.Oldest(); found {
			t.Errorf("a change from %v is left", oldest)
		}
	})
}

func TestBacklogsTellWhoWaitsSinceWhenAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.server.fail = func(told merge.State) error {
			if told.Spec.GroupID == "barred" {
				return apierrors.NewForbidden(schema.GroupResource{}, "g", errors.New("quota"))
			}
			return nil
		}
		first := f.tell("barred", "a")
		f.tell("fine", "a")
		pass(time.Second)
		f.tell("barred", "b")
		pass(time.Second)
		want := map[journal.Tenant]Backlog{{Namespace: "chat", Server: "demo"}: {Oldest: first.Change.Received, Reason: openimv1.PendingForbidden}}
		if diff := cmp.Diff(want, f.Backlogs()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSettleWaitsForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.server.latency = time.Second
		if !f.Settle(t.Context()) {
			t.Error("nothing waits, and it does not settle")
		}
		f.tell("g1", "a")
		f.tell("g2", "a")
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if f.Settle(impatient) {
			t.Error("settled with two writes in flight")
		}
		f.tell("g1", "b")
		if !f.Settle(t.Context()) || f.rest().waiting > 0 || f.name("g1") != "b" {
			t.Errorf("settled with %d entries waiting", f.rest().waiting)
		}
	})
}

func TestPoisonIsPutAsideAlone(t *testing.T) {
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "GroupInfo"}, "g", nil)
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		open := false
		f.server.fail = func(told merge.State) error {
			switch {
			case !open:
				return errors.New("not yet")
			case told.Spec.Ex != nil || *told.Spec.GroupName == "poison":
				return invalid
			}
			return nil
		}
		f.tell("g", "good 1")
		poison := f.tell("g", "poison")
		f.tell("g", "good 2")
		f.tell("other", "fine")
		// A second poisonous field, which a merge with good names carries along.
		f.next++
		worse := journal.Entry{Sequence: f.next, Namespace: "chat", Change: merge.Change{
			Stamp: stamp.Stamp{Rank: stamp.RankTold, HLC: 9, Sequence: f.next}, Received: time.Now(),
			Spec: openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g", GroupName: new("poison"), Ex: new("e")},
		}}
		f.disk.mu.Lock()
		f.disk.waiting[worse.Sequence] = worse
		f.disk.mu.Unlock()
		f.Add(worse)
		pass(time.Second)
		f.server.mu.Lock()
		open = true
		f.server.mu.Unlock()
		pass(maxBackoff)
		if diff := cmp.Diff([]uint64{poison.Sequence, worse.Sequence}, f.rest().dead, cmpopts.SortSlices(func(a, b uint64) bool { return a < b })); diff != "" {
			t.Errorf("dead letters: %s", diff)
		}
		if f.name("g") != "good 2" || f.name("other") != "fine" || f.rest().waiting > 0 {
			t.Errorf("g is %q, other %q, %d entries wait", f.name("g"), f.name("other"), f.rest().waiting)
		}
	})
}

func TestLateEntryResurrectsNoGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		down := true
		f.server.fail = func(merge.State) error {
			if down {
				return errors.New("connection refused")
			}
			return nil
		}
		late := f.tell("gone", "late")
		f.tell("alive", "late")
		pass(maxAge)
		f.tell("alive", "fresh")
		f.server.mu.Lock()
		down = false
		f.server.mu.Unlock()
		pass(2 * maxBackoff)
		if diff := cmp.Diff([]uint64{late.Sequence}, f.rest().dead); diff != "" {
			t.Errorf("dead letters: %s", diff)
		}
		if f.name("gone") != "" || f.name("alive") != "fresh" {
			t.Errorf("gone is %q, alive %q", f.name("gone"), f.name("alive"))
		}
	})
}

// Whatever fails, and whenever: in the end every entry is applied or put aside, each group holds the merge of what was
// told, and no two writes to one group were in flight at once.
func TestSimulation(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 50
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			random, faults := rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 8))
			f := newFixture(t)
			f.server.latency = time.Duration(random.IntN(300)) * time.Millisecond
			var failing bool
			f.server.fail = func(merge.State) error {
				if failing && faults.IntN(3) > 0 {
					return apierrors.NewTooManyRequests("slow down", faults.IntN(3))
				}
				return nil
			}
			want := map[string]*merge.State{}
			for range 100 {
				group := fmt.Sprintf("g%d", random.IntN(5))
				entry := f.tell(group, fmt.Sprint(random.IntN(3)))
				if want[group] == nil {
					want[group] = &merge.State{}
					want[group].Spec.ServerName, want[group].Spec.GroupID = "demo", group
				}
				want[group].Join(entry.Change.State())
				if random.IntN(10) == 0 {
					f.Add(entry) // A replay.
				}
				pass(time.Duration(random.IntN(100)) * time.Millisecond)
				f.server.mu.Lock()
				failing = random.IntN(4) == 0
				f.server.mu.Unlock()
			}
			f.server.mu.Lock()
			failing = false
			f.server.mu.Unlock()
			pass(2 * maxBackoff)
			r := f.rest()
			if diff := cmp.Diff(want, r.objects); diff != "" {
				t.Errorf("seed %d: %s", seed, diff)
			}
			if r.waiting > 0 || len(r.dead) > 0 || r.overlaps > 0 {
				t.Errorf("seed %d: %d wait, %d dead, %d overlapping writes", seed, r.waiting, len(r.dead), r.overlaps)
			}
			if r.groups > 0 {
				t.Errorf("seed %d: %d groups are remembered for nothing", seed, r.groups)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	groups := schema.GroupResource{Group: "openim.io", Resource: "groupinfos"}
	for name, tc := range map[string]struct {
		err  error
		want verdict
	}{
		"no error":                     {nil, applied},
		"network":                      {errors.New("connection refused"), passing},
		"timeout":                      {context.DeadlineExceeded, passing},
		"401":                          {apierrors.NewUnauthorized("x"), passing},
		"403: an administrator's turn": {apierrors.NewForbidden(groups, "g", errors.New("x")), passing},
		"409 after all attempts":       {apierrors.NewConflict(groups, "g", errors.New("x")), passing},
		"413":                          {apierrors.NewRequestEntityTooLargeError("x"), impossible},
		"422":                          {apierrors.NewInvalid(schema.GroupKind{}, "g", nil), impossible},
		"429":                          {apierrors.NewTooManyRequests("x", 1), passing},
		"500":                          {apierrors.NewInternalError(errors.New("x")), passing},
		"the CRD is not installed":     {&apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonNotFound, Code: 404, Message: "the server could not find the requested resource"}}, passing},
		"an entry that cannot be read": {fmt.Errorf("load: %w", journal.ErrUnreadable), impossible},
		"the namespace is gone":        {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "chat"), impossible},
		"another group's object":       {fmt.Errorf("write: %w", &groupwriter.IdentityError{}), impossible},
		"too late to create":           {fmt.Errorf("write: %w", groupwriter.ErrAbsent), impossible},
	} {
		t.Run(name, func(t *testing.T) {
			if got := judge(tc.err); got != tc.want {
				t.Errorf("judge is %v, want %v", got, tc.want)
			}
		})
	}
}

func TestReasonOf(t *testing.T) {
	groups := schema.GroupResource{Group: "openim.io", Resource: "groupinfos"}
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"network":                  {errors.New("connection refused"), openimv1.PendingUnreachable},
		"the time for it is over":  {fmt.Errorf("write: %w", context.DeadlineExceeded), openimv1.PendingTimeout},
		"504":                      {apierrors.NewTimeoutError("x", 1), openimv1.PendingTimeout},
		"401":                      {apierrors.NewUnauthorized("x"), openimv1.PendingUnauthorized},
		"403":                      {fmt.Errorf("write: %w", apierrors.NewForbidden(groups, "g", errors.New("x"))), openimv1.PendingForbidden},
		"429":                      {apierrors.NewTooManyRequests("x", 1), openimv1.PendingThrottled},
		"409":                      {apierrors.NewConflict(groups, "g", errors.New("x")), openimv1.PendingConflict},
		"the CRD is not installed": {apierrors.NewNotFound(groups, ""), openimv1.PendingNotInstalled},
		"500":                      {apierrors.NewInternalError(errors.New("x")), openimv1.PendingServerError},
		"what nobody thought of":   {&apierrors.StatusError{ErrStatus: metav1.Status{Code: 418}}, openimv1.PendingOther},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reasonOf(tc.err); got != tc.want {
				t.Errorf("reason is %s, want %s", got, tc.want)
			}
		})
	}
}
