package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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
	replica := j.Replica()
	closed(t, j)

	j = open(t, fs, 1<<20)
	defer closed(t, j)
	if diff := cmp.Diff(want, waiting(t, j)); diff != "" {
		t.Error(diff)
	}
	if j.Replica() != replica {
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

func TestFullJournalRefusesAndTakesAgainWhenThereIsRoom(t *testing.T) {
	j := open(t, vfs.NewMem(), 4000)
	defer closed(t, j)
	// Each namespace takes what it may, and together they may not take more than there is.
	var accepted []Entry
	for namespace, refused := 0, 0; refused < 4; namespace++ {
		id := uint64(len(accepted))
		entry, err := j.Append(fmt.Sprint(namespace%4), change(id, strings.Repeat("x", 300)))
		switch {
		case err == nil:
			accepted, refused = append(accepted, entry), 0
		case errors.Is(err, ErrFull) && len(accepted) < 20:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if _, bytes := j.Depth(); bytes > 4000 || bytes < 3000 {
		t.Fatalf("%d entries of %d bytes fit into 4000", len(accepted), bytes)
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

// Whatever the moment of a crash, and whatever part of the unsynced data survives it, every acknowledged entry is there
// afterwards, nothing is there that was never appended, and the highest time is not below any acknowledged one.
func TestCrash(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	crashes, acknowledgedInAll := 0, 0
	for seed := range uint64(rounds) {
		random := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		expected := map[uint64]bool{} // acknowledged, and not removed since
		attempted := map[uint64]bool{}
		next := uint64(1)
		var highest stamp.HLC
		for range 4 {
			j := open(t, fs, 1<<20)
			var mu sync.Mutex
			removing := map[uint64]bool{}
			for _, e := range waiting(t, j) {
				if !attempted[uint64(e.Change.Stamp.HLC)] {
					t.Fatalf("seed %d: an entry that was never appended", seed)
				}
			}
			var writers sync.WaitGroup
			crashed, progress := make(chan struct{}), make(chan struct{})
			for range 4 {
				writers.Go(func() {
					for {
						select {
						case <-crashed:
							return
						default:
						}
						mu.Lock()
						id := next
						next++
						attempted[id] = true
						remove := id%5 == 0
						mu.Unlock()
						entry, err := j.Append("chat", change(id, "text"))
						if err != nil {
							return
						}
						mu.Lock()
						if remove {
							removing[id] = true
						} else {
							expected[id] = true
						}
						highest = max(highest, stamp.HLC(id))
						mu.Unlock()
						if remove && j.Remove([]uint64{entry.Sequence}) != nil {
							return
						}
						select {
						case progress <- struct{}{}:
						case <-crashed:
						}
					}
				})
			}
			for range 1 + random.IntN(40) {
				<-progress
			}
			mu.Lock()
			acknowledged := make([]uint64, 0, len(expected))
			for id := range expected {
				acknowledged = append(acknowledged, id)
			}
			highestThen := highest
			mu.Unlock()
			clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
			close(crashed)
			writers.Wait()
			closed(t, j)
			fs = clone
			crashes++
			acknowledgedInAll += len(acknowledged)

			j = open(t, fs, 1<<20)
			found := ids(waiting(t, j))
			slices.Sort(found)
			for _, id := range acknowledged {
				if _, there := slices.BinarySearch(found, id); !there {
					t.Fatalf("seed %d: entry %d was acknowledged and is lost", seed, id)
				}
			}
			if got := j.HighestTime(); got < highestThen {
				t.Fatalf("seed %d: the highest time went back from %d to %d", seed, highestThen, got)
			}
			// What was acknowledged after the clone is not part of this history.
			expected = map[uint64]bool{}
			for _, id := range found {
				if !removing[id] {
					expected[id] = true
				}
			}
			highest = j.HighestTime()
			closed(t, j)
		}
	}
	if crashes < 4*rounds || acknowledgedInAll < 10*crashes {
		t.Errorf("%d crashes with %d acknowledged entries prove too little", crashes, acknowledgedInAll)
	}
	t.Logf("%d crashes, %d acknowledged entries looked for", crashes, acknowledgedInAll)
}
