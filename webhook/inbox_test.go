package webhook

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

// appender stands for a journal that does what it is told.
type appender func(namespace string, change merge.Change) (journal.Entry, error)

func (a appender) Append(namespace string, change merge.Change) (journal.Entry, error) {
	return a(namespace, change)
}

// queue stands for the applier.
type queue []journal.Entry

func (q *queue) Add(entry journal.Entry) { *q = append(*q, entry) }

func toldName(name string) merge.Change {
	return merge.Change{
		Stamp:    stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLCAt(received), Replica: 7, Sequence: 1},
		Received: received,
		Spec:     openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "G002", GroupName: &name},
	}
}

func openJournal(t *testing.T, maxBytes int64) *journal.Journal {
	t.Helper()
	j, err := journal.Open("journal", journal.Options{
		FS: vfs.NewMem(), MaxBytes: maxBytes, Log: logr.Discard(), Fatal: func(err error) { panic(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// uncounted is a counter that nobody reads.
func uncounted() prometheus.Counter { return NewOverflowCounter(prometheus.NewRegistry()) }

// unwanted fails the test if it is called.
func unwanted(t *testing.T) (Inbox, func(error)) {
	t.Helper()
	return &inbox{accept: func(context.Context) error { t.Error("the change went to the API server"); return nil }},
		func(err error) { t.Errorf("the journal is taken for broken: %v", err) }
}

func TestJournalInboxLeavesTheChangeToTheApplier(t *testing.T) {
	var applier queue
	j := openJournal(t, 1<<20)
	overflow, broken := unwanted(t)
	accepting := &JournalInbox{Journal: j, Applier: &applier, Overflow: overflow, Overflowed: uncounted(), Broken: broken}
	if err := accepting.Accept(t.Context(), "chat", toldName("n")); err != nil {
		t.Fatal(err)
	}
	var kept queue
	if err := j.Waiting(func(e journal.Entry) error { kept.Add(e); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, applier); diff != "" || len(applier) != 1 {
		t.Errorf("kept and applied differ (-kept +applied)\n%s", diff)
	}
	if diff := cmp.Diff(toldName("n"), applier[0].Change); diff != "" || applier[0].Namespace != "chat" {
		t.Errorf("namespace %q, change (-want +got)\n%s", applier[0].Namespace, diff)
	}
}

// Slower is better than lost, and what then comes of it is the answer.
func TestJournalInboxWhoseJournalIsFullWaitsForTheAPIServer(t *testing.T) {
	for name, want := range map[string]error{"and it takes the change": nil, "and it is away": errors.New("away")} {
		t.Run(name, func(t *testing.T) {
			var applier queue
			_, broken := unwanted(t)
			overflow := &inbox{accept: func(context.Context) error { return want }}
			accepting := &JournalInbox{Journal: openJournal(t, 10), Applier: &applier, Overflow: overflow, Overflowed: uncounted(), Broken: broken}
			if err := accepting.Accept(t.Context(), "chat", toldName("n")); !errors.Is(err, want) {
				t.Errorf("error is %v, want %v", err, want)
			}
			if diff := cmp.Diff([]merge.Change{toldName("n")}, overflow.changes); diff != "" || overflow.namespaces[0] != "chat" {
				t.Errorf("written to %q: (-want +got)\n%s", overflow.namespaces, diff)
			}
			if len(applier) > 0 {
				t.Error("the applier writes it again")
			}
		})
	}
}

// A disk may hang for as long as it likes: a network volume whose network is away. What it has taken in the end is applied,
// too.
func TestJournalInboxDoesNotWaitForAStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applier queue
		_, broken := unwanted(t)
		overflow := &inbox{}
		stuck := make(chan struct{})
		accepting := &JournalInbox{
			Journal: appender(func(namespace string, change merge.Change) (journal.Entry, error) {
				<-stuck
				return journal.Entry{Namespace: namespace, Change: change}, nil
			}),
			Applier: &applier, Overflow: overflow, Overflowed: uncounted(), Broken: broken,
		}
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), acknowledgeTimeout)
		defer cancel()
		if err := accepting.Accept(ctx, "chat", toldName("n")); err != nil || len(overflow.changes) != 1 {
			t.Errorf("error %v, %d changes went to the API server", err, len(overflow.changes))
		}
		if took := time.Since(started); took >= acknowledgeTimeout {
			t.Errorf("the reply took %v", took)
		}
		close(stuck)
		synctest.Wait()
		if diff := cmp.Diff(queue{{Namespace: "chat", Change: toldName("n")}}, applier); diff != "" {
			t.Error(diff)
		}
	})
}

// The process must end although nobody waits for the disk any more: what came before and is on the disk waits for that.
func TestJournalInboxTellsOfADiskThatHangsBeforeItFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applier queue
		told := 0
		stuck := make(chan struct{})
		accepting := &JournalInbox{
			Journal: appender(func(string, merge.Change) (journal.Entry, error) {
				<-stuck
				return journal.Entry{}, &journal.BrokenError{Cause: errors.New("input/output error")}
			}),
			Applier: &applier, Overflow: &inbox{}, Overflowed: uncounted(), Broken: func(error) { told++ },
		}
		if err := accepting.Accept(t.Context(), "chat", toldName("n")); err != nil || told > 0 {
			t.Fatalf("error %v, the journal is taken for broken %d times", err, told)
		}
		close(stuck)
		synctest.Wait()
		if told != 1 || len(applier) > 0 {
			t.Errorf("the journal is taken for broken %d times, %d entries are applied", told, len(applier))
		}
	})
}

func TestJournalInboxBoundsWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applier queue
		_, broken := unwanted(t)
		stuck := make(chan struct{})
		accepting := &JournalInbox{
			Journal: appender(func(string, merge.Change) (journal.Entry, error) {
				<-stuck
				return journal.Entry{}, journal.ErrFull
			}),
			Applier: &applier, Overflow: &sharedInbox{}, Overflowed: uncounted(), Broken: broken,
		}
		large := toldName(strings.Repeat("x", 1<<20))
		for range maxStuck / memoryOf(large) {
			go func() { _ = accepting.Accept(t.Context(), "chat", large) }()
		}
		synctest.Wait()
		started := time.Now()
		if err := accepting.Accept(t.Context(), "chat", large); err != nil || time.Since(started) > 0 {
			t.Errorf("error %v after %v", err, time.Since(started))
		}
		close(stuck)
		synctest.Wait()
		if left := accepting.stuck.Load(); left != 0 {
			t.Errorf("%d bytes are counted as stuck", left)
		}
	})
}

// sharedInbox takes everything, from many at once.
type sharedInbox struct{}

func (*sharedInbox) Accept(context.Context, string, merge.Change) error { return nil }

func TestJournalInboxTellsOfABrokenJournal(t *testing.T) {
	broken := &journal.BrokenError{Cause: errors.New("input/output error")}
	for name, tc := range map[string]struct {
		err   error
		fatal bool
	}{
		"a failed fsync ends the process":   {broken, true},
		"a change that has no form on disk": {errors.New("unsupported value"), false},
	} {
		t.Run(name, func(t *testing.T) {
			var applier queue
			var told []error
			overflow := &inbox{}
			accepting := &JournalInbox{
				Journal:  appender(func(string, merge.Change) (journal.Entry, error) { return journal.Entry{}, tc.err }),
				Applier:  &applier,
				Overflow: overflow, Overflowed: uncounted(),
				Broken: func(err error) { told = append(told, err) },
			}
			// The API server may take what the disk could not.
			want := tc.err
			if tc.fatal {
				want = nil
			}
			if err := accepting.Accept(t.Context(), "chat", toldName("n")); !errors.Is(err, want) {
				t.Errorf("error is %v, want %v", err, want)
			}
			if (len(overflow.changes) == 1) != tc.fatal {
				t.Errorf("%d changes went to the API server", len(overflow.changes))
			}
			if len(applier) > 0 {
				t.Error("the applier writes what is not on the disk")
			}
			if (len(told) == 1) != tc.fatal {
				t.Errorf("told of %v", told)
			}
		})
	}
}
