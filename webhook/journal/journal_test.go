package journal

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

func change(id uint64, text string) merge.Change {
	return merge.Change{
		Stamp:       stamp.Stamp{Rank: stamp.RankTold, HLC: stamp.HLC(id), Replica: 7, Sequence: id},
		Command:     "callbackAfterSetGroupInfoExCommand",
		OperationID: "op",
		Received:    time.UnixMilli(int64(id)).UTC(),
		Spec:        openimv1.GroupInfoSpec{ServerName: "demo", GroupID: fmt.Sprint(id), GroupName: &text, Ex: new("")},
	}
}

func open(t *testing.T, fs vfs.FS, maxBytes int64) *Journal {
	t.Helper()
	j, err := Open("journal", Options{FS: fs, MaxBytes: maxBytes, Log: logr.Discard(), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func appended(t *testing.T, j *Journal, id uint64) Entry {
	t.Helper()
	entry, err := j.Append("chat", change(id, "text"))
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func waiting(t *testing.T, j *Journal) []Entry {
	t.Helper()
	var entries []Entry
	if err := j.Waiting(func(e Entry) error { entries = append(entries, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return entries
}

func ids(entries []Entry) []uint64 {
	found := []uint64{}
	for _, e := range entries {
		found = append(found, uint64(e.Change.Stamp.HLC))
	}
	return found
}

func closed(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEntriesReturnAsTheyWere(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, 1<<20)
	want := []Entry{appended(t, j, 1), appended(t, j, 2), appended(t, j, 3)}
	replica := j.Identity()
	closed(t, j)

	j = open(t, fs, 1<<20)
	defer closed(t, j)
	if diff := cmp.Diff(want, waiting(t, j)); diff != "" {
		t.Error(diff)
	}
	if j.Identity() != replica {
		t.Error("the identity changed")
	}
	if next := appended(t, j, 4); next.Sequence <= want[2].Sequence {
		t.Errorf("sequence %d is used again", next.Sequence)
	}
}

func TestRemovedAndBuriedEntriesDoNotWait(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, 1<<20)
	entries := []Entry{appended(t, j, 1), appended(t, j, 2), appended(t, j, 3)}
	if err := errors.Join(j.Remove([]uint64{entries[0].Sequence}), j.Bury([]uint64{entries[1].Sequence})); err != nil {
		t.Fatal(err)
	}
	closed(t, j)

	j = open(t, fs, 1<<20)
	defer closed(t, j)
	if diff := cmp.Diff([]uint64{3}, ids(waiting(t, j))); diff != "" {
		t.Error(diff)
	}
	var dead []Entry
	if err := j.Dead(func(e Entry, err error) error { dead = append(dead, e); return err }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries[1:2], dead); diff != "" {
		t.Error(diff)
	}
	if err := j.Resurrect([]uint64{entries[1].Sequence}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{2, 3}, ids(waiting(t, j))); diff != "" {
		t.Error(diff)
	}
	if n, _ := j.Depth(); n != 2 {
		t.Errorf("depth is %d, want 2", n)
	}
}

// The clock must not go back when everything was applied and removed, and the wall clock went back in the meantime.
func TestHighestTimeOutlivesTheEntries(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, 1<<20)
	entry := appended(t, j, 1000)
	if err := j.Remove([]uint64{entry.Sequence}); err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	j = open(t, fs, 1<<20)
	defer closed(t, j)
	if got := j.HighestTime(); got < 1000 {
		t.Errorf("highest time is %d", got)
	}
}

// Nor when several are removed at the same time.
func TestHighestTimeOutlivesConcurrentRemovals(t *testing.T) {
	j := open(t, vfs.NewMem(), 1<<20)
	defer closed(t, j)
	var next atomic.Uint64
	var removing sync.WaitGroup
	for range 8 {
		removing.Go(func() {
			for range 2000 {
				id := next.Add(1)
				entry, err := j.Append("chat", change(id, "text"))
				if err == nil {
					err = j.Remove([]uint64{entry.Sequence})
				}
				kept, _, keptErr := j.number(clockKey)
				if err := errors.Join(err, keptErr); err != nil {
					t.Error(err)
					return
				}
				if kept < id {
					t.Errorf("the entry of time %d is removed, and the highest time kept is %d", id, kept)
					return
				}
			}
		})
	}
	removing.Wait()
}

func TestFullJournalRefusesAndTakesAgainWhenThereIsRoom(t *testing.T) {
	j := open(t, vfs.NewMem(), 8000)
	defer closed(t, j)
	// Each namespace takes what it may, and together they may not take more than there is.
	var accepted []Entry
	for namespace, refused := 0, 0; refused < 4; namespace++ {
		id := uint64(len(accepted))
		entry, err := j.Append(fmt.Sprint(namespace%4), change(id, strings.Repeat("x", 300)))
		switch {
		case err == nil && len(accepted) < 20:
			accepted, refused = append(accepted, entry), 0
		case errors.Is(err, ErrFull):
			refused++
		default:
			t.Fatalf("%d entries were taken, error %v", len(accepted), err)
		}
	}
	if n, bytes := j.Depth(); bytes+int64(n)*overhead > 8000 || bytes+int64(n)*overhead < 6000 {
		t.Fatalf("%d entries of %d bytes fit into 8000", len(accepted), bytes)
	}
	tell := func(namespace string, id uint64) error {
		_, err := j.Append(namespace, change(id, strings.Repeat("x", 300)))
		return err
	}
	if err := j.Remove([]uint64{accepted[0].Sequence}); err != nil {
		t.Fatal(err)
	}
	if err := tell("0", 98); err != nil {
		t.Error(err)
	}
	if err := tell("0", 99); !errors.Is(err, ErrFull) {
		t.Errorf("one was removed and two fit: %v", err)
	}
	// Dead letters are on the disk as well.
	if err := j.Bury([]uint64{accepted[1].Sequence}); err != nil {
		t.Fatal(err)
	}
	if err := tell("1", 100); !errors.Is(err, ErrFull) {
		t.Errorf("one was buried, and one more fits: %v", err)
	}
}

func TestUnreadableEntryIsBuriedAndTheOthersGoOn(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, 1<<20)
	appended(t, j, 1)
	replaced := appended(t, j, 3)
	if err := j.db.Set(entryKey(entryPrefix, replaced.Sequence), []byte("not a record"), nil); err != nil {
		t.Fatal(err)
	}
	appended(t, j, 2)
	closed(t, j)
	j = open(t, fs, 1<<20)
	defer closed(t, j)
	if diff := cmp.Diff([]uint64{1, 2}, ids(waiting(t, j))); diff != "" {
		t.Error(diff)
	}
	unreadable := 0
	if err := j.Dead(func(_ Entry, err error) error {
		if err != nil {
			unreadable++
		}
		return nil
	}); err != nil || unreadable != 1 {
		t.Errorf("%d unreadable entries are dead, error %v", unreadable, err)
	}
}

func TestAnotherFormatIsNotOpened(t *testing.T) {
	fs := vfs.NewMem()
	j := open(t, fs, 1<<20)
	if err := j.db.Set(formatKey, encodeNumber(2), nil); err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	_, err := Open("journal", Options{FS: fs, Log: logr.Discard()})
	if err == nil || !strings.Contains(err.Error(), "run the version that wrote it") {
		t.Errorf("error is %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{MaxBytes: 1 << 20, Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, j)
	if second, err := Open(dir, Options{MaxBytes: 1 << 20, Log: logr.Discard()}); err == nil {
		t.Errorf("a second one is open: %v", second)
	}
}

// A failed fsync says nothing about what is on the disk, and the next one may succeed without it: nothing is accepted any
// more.
func TestFailedSyncIsFinal(t *testing.T) {
	failing := errorfs.Toggle{Injector: errorfs.ErrInjected.If(errorfs.Writes)}
	fatal := make(chan struct{})
	var once sync.Once
	j, err := Open("journal", Options{
		FS: errorfs.Wrap(vfs.NewMem(), &failing), MaxBytes: 1 << 20, Log: logr.Discard(),
		Fatal: func(error) { once.Do(func() { close(fatal) }) },
	})
	if err != nil {
		t.Fatal(err)
	}
	tell := func(id uint64) <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := j.Append("chat", change(id, "text"))
			result <- err
		}()
		return result
	}
	appended(t, j, 1)
	if err := j.Err(); err != nil {
		t.Errorf("broken before anything failed: %v", err)
	}
	failing.On()
	var broken *BrokenError
	select {
	case err := <-tell(2):
		if !errors.As(err, &broken) {
			t.Fatalf("Append returned %v", err)
		}
	case <-fatal:
		// The engine keeps the call for ever, and nothing was acknowledged.
	}
	// The disk is well again, as far as it says itself.
	failing.Off()
	select {
	case err := <-tell(3):
		if !errors.As(err, &broken) {
			t.Errorf("Append returned %v after a failed sync", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("whoever comes after a failed sync waits for ever")
	}
	if err := j.Err(); !errors.As(err, &broken) {
		t.Errorf("the journal says of itself: %v", err)
	}
}
