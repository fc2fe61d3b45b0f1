package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// slowWriter stands for the API server: a write takes a tenth of a second.
type slowWriter struct {
	mu       sync.Mutex
	inFlight map[string]int
	overlaps int
	writes   []merge.State
	fail     func(told merge.State, attempt int) error
}

const slowness = 100 * time.Millisecond

func (w *slowWriter) Write(ctx context.Context, _ string, told merge.State, _ ...groupwriter.Option) (groupwriter.Result, error) {
	w.mu.Lock()
	if w.inFlight == nil {
		w.inFlight = map[string]int{}
	}
	if w.inFlight[told.Spec.GroupID]++; w.inFlight[told.Spec.GroupID] > 1 {
		w.overlaps++
	}
	w.writes = append(w.writes, told)
	attempt := len(w.writes)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.inFlight[told.Spec.GroupID]--
	}()
	select {
	case <-time.After(slowness):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if w.fail == nil {
		return groupwriter.Patched, nil
	}
	return groupwriter.Patched, w.fail(told, attempt)
}

func tellNamed(group string, n uint64, name string) merge.Change {
	return merge.Change{
		Stamp:    stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(n), Replica: 7, Sequence: n},
		Received: received,
		Spec:     openimv1.GroupInfoSpec{ServerName: "demo", GroupID: group, GroupName: &name},
	}
}

// acceptAll sends changes one millisecond after the other, and returns what came of each and how long the slowest took.
func acceptAll(ctx context.Context, i Inbox, changes ...merge.Change) (errs []error, slowest time.Duration) {
	errs = make([]error, len(changes))
	took := make([]time.Duration, len(changes))
	var senders sync.WaitGroup
	for n, change := range changes {
		senders.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, acknowledgeTimeout)
			defer cancel()
			started := time.Now()
			errs[n] = i.Accept(bounded, "chat", change)
			took[n] = time.Since(started)
		})
		<-time.After(time.Millisecond)
	}
	senders.Wait()
	for _, t := range took {
		slowest = max(slowest, t)
	}
	return errs, slowest
}

func TestAPIServerInboxMergesWhatWaitsForOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{}
		i := NewAPIServerInbox(w)
		var changes []merge.Change
		want := map[string]string{}
		for n := range uint64(40) {
			group := fmt.Sprint("g", n%2)
			want[group] = fmt.Sprint(n)
			changes = append(changes, tellNamed(group, n+1, fmt.Sprint(n)))
		}
		errs, slowest := acceptAll(t.Context(), i, changes...)
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if slowest > 2*slowness {
			t.Errorf("a reply took %v: nobody waits for more than the write in flight and his own", slowest)
		}
		stored := map[string]string{}
		for _, told := range w.writes {
			stored[told.Spec.GroupID] = *told.Spec.GroupName
		}
		if diff := cmp.Diff(want, stored); diff != "" {
			t.Error(diff)
		}
		if len(w.writes) != 4 || w.overlaps > 0 {
			t.Errorf("%d writes for 2 groups, %d of them at once with another of the group", len(w.writes), w.overlaps)
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		if len(i.next) > 0 {
			t.Errorf("%d groups are remembered for nothing", len(i.next))
		}
	})
}

func TestAPIServerInboxRefusesOnlyWhatIsBad(t *testing.T) {
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "GroupInfo"}, "g", nil)
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{fail: func(told merge.State, _ int) error {
			for _, entry := range told.History {
				if entry.OperationID == "bad" {
					return invalid
				}
			}
			return nil
		}}
		bad := tellNamed("g", 3, "bad")
		bad.OperationID = "bad"
		errs, _ := acceptAll(t.Context(), NewAPIServerInbox(w), tellNamed("g", 1, "a"), tellNamed("g", 2, "b"), bad, tellNamed("g", 4, "c"))
		for n, err := range errs {
			if (n == 2) != errors.Is(err, invalid) || (n != 2) != (err == nil) {
				t.Errorf("change %d: %v", n, err)
			}
		}
	})
}

func TestAPIServerInboxTriesAgainWhileSomebodyWaits(t *testing.T) {
	away, foreign := errors.New("connection refused"), &groupwriter.IdentityError{Field: "groupID"}
	for name, tc := range map[string]struct {
		fail func(attempt int) error
		// want are the errors that may come of it; none, if it must succeed.
		want []error
	}{
		"a network that fails for a moment": {func(attempt int) error {
			if attempt < 4 {
				return away
			}
			return nil
		}, nil},
		"an API server that is away": {func(int) error { return away }, []error{away, context.DeadlineExceeded}},
		"what no attempt can mend":   {func(int) error { return foreign }, []error{foreign}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &slowWriter{fail: func(_ merge.State, attempt int) error { return tc.fail(attempt) }}
				i := NewAPIServerInbox(w)
				errs, slowest := acceptAll(t.Context(), i, tellNamed("g", 1, "a"))
				expected := slices.ContainsFunc(tc.want, func(want error) bool { return errors.Is(errs[0], want) })
				if expected != (tc.want != nil) || (errs[0] == nil) != (tc.want == nil) {
					t.Errorf("error is %v, want one of %v", errs[0], tc.want)
				}
				if slowest > acknowledgeTimeout {
					t.Errorf("the reply took %v", slowest)
				}
				// The write whose context has ended notices it.
				<-time.After(slowness)
				synctest.Wait()
				if len(i.next) > 0 || len(w.writes) > 10 {
					t.Errorf("%d writes, and %d groups are remembered for nothing", len(w.writes), len(i.next))
				}
			})
		})
	}
}
