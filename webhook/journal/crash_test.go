package journal

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// place is where an entry is.
type place string

const (
	nowhere     place = "nowhere"
	inWaiting   place = "waiting"
	inDead      place = "dead"
	inBoth      place = "in both"
	writers           = 4
	clonesInRun       = 5
	runsInRound       = 4
)

// life is what was done to one entry, by one writer, one thing after the other.
type life struct {
	// places are those where the entry may be: the first is certain, unless something of what follows was done.
	places []place
	// certain is how many of them are certain to be over.
	certain int
}

// history is what was asked of a journal, and what was acknowledged.
type history struct {
	mu       sync.Mutex
	lives    map[uint64]*life
	next     uint64
	clock    stamp.HLC
	snapshot struct{ asked, certain uint64 }
	done     int
	// recovered is the version of the snapshot after the last crash, and recoveredClock the highest time.
	recovered      uint64
	recoveredClock stamp.HLC
}

// copy returns the history as it is now.
func (h *history) copy() *history {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &history{lives: map[uint64]*life{}, clock: h.clock, snapshot: h.snapshot}
	for id, l := range h.lives {
		c.lives[id] = &life{places: slices.Clone(l.places), certain: l.certain}
	}
	return c
}

// begin notes that an entry is about to be brought somewhere.
func (h *history) begin(id uint64, to place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lives[id].places = append(h.lives[id].places, to)
}

// end notes that it is safely there.
func (h *history) end(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lives[id].certain = len(h.lives[id].places) - 1
	h.clock = max(h.clock, stamp.HLC(id))
	h.done++
}

// work does something to the journal, of which it knows what it did before.
func (h *history) work(j *Journal, random *rand.Rand, own map[uint64]Entry) error {
	if len(own) > 0 && random.IntN(3) > 0 {
		keys := slices.Sorted(maps.Keys(own))
		id := keys[random.IntN(len(keys))]
		sequence := []uint64{own[id].Sequence}
		h.mu.Lock()
		now := h.lives[id].places[len(h.lives[id].places)-1]
		h.mu.Unlock()
		switch {
		case now == inDead:
			h.begin(id, inWaiting)
			if err := j.Resurrect(sequence); err != nil {
				return err
			}
		case random.IntN(2) == 0:
			h.begin(id, inDead)
			if err := j.Bury(sequence); err != nil {
				return err
			}
		default:
			// A removal is never certain.
			h.begin(id, nowhere)
			delete(own, id)
			return j.Remove(sequence)
		}
		h.end(id)
		return nil
	}
	if random.IntN(10) == 0 {
		h.mu.Lock()
		h.snapshot.asked++
		version := h.snapshot.asked
		// One at a time: the order of two of them is nobody's.
		defer h.mu.Unlock()
		if err := j.SaveSnapshot(binary.BigEndian.AppendUint64(nil, version)); err != nil {
			return err
		}
		h.snapshot.certain = version
		h.done++
		return nil
	}
	if random.IntN(30) == 0 {
		// The engine flushes by itself only when much was written.
		_, err := j.db.AsyncFlush()
		return err
	}
	h.mu.Lock()
	id := h.next
	h.next++
	h.lives[id] = &life{places: []place{nowhere}}
	h.mu.Unlock()
	h.begin(id, inWaiting)
	entry, err := j.Append("chat", change(id, "text"))
	if err != nil {
		return err
	}
	own[id] = entry
	h.end(id)
	return nil
}

// look returns where the entries of the journal are.
func look(t *testing.T, j *Journal) map[uint64]place {
	t.Helper()
	found := map[uint64]place{}
	for _, id := range ids(waiting(t, j)) {
		found[id] = inWaiting
	}
	for _, id := range deadIDs(t, j) {
		if _, also := found[id]; also {
			found[id] = inBoth
			continue
		}
		found[id] = inDead
	}
	return found
}

// Whatever the moment of a crash, and whatever part of the unsynced data survives it, everything acknowledged is there
// afterwards: entries wait or are dead as they were, nothing is there that was never appended, the highest time is not below
// any acknowledged one, and the snapshot is not older than the last one kept.
func TestCrash(t *testing.T) {
	rounds := 120
	switch {
	case os.Getenv("TEST_LONG") != "":
		rounds *= 10
	case testing.Short():
		rounds = 20
	}
	crashes, done, quarantined := 0, 0, 0
	for seed := range uint64(rounds) {
		random := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		h := &history{lives: map[uint64]*life{}, next: 1}
		// Entries that were removed may come back when damage is suspected, and are applied again.
		gone := map[uint64]bool{}
		for range runsInRound {
			j := open(t, fs, 1<<20)
			entries := map[uint64]Entry{}
			for _, entry := range waiting(t, j) {
				entries[uint64(entry.Change.Stamp.HLC)] = entry
			}
			if err := j.Dead(func(entry Entry, err error) error {
				entries[uint64(entry.Change.Stamp.HLC)] = entry
				return err
			}); err != nil {
				t.Fatal(err)
			}
			var working sync.WaitGroup
			crashed, progress := make(chan struct{}), make(chan struct{})
			for writer := range uint64(writers) {
				own := maps.Clone(entries)
				maps.DeleteFunc(own, func(id uint64, _ Entry) bool { return id%writers != writer })
				random := rand.New(rand.NewPCG(random.Uint64(), writer))
				working.Go(func() {
					for {
						if err := h.work(j, random, own); err != nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						select {
						case progress <- struct{}{}:
						case <-crashed:
							return
						}
					}
				})
			}
			var found map[uint64]place
			var crashedFS *vfs.MemFS
			for range clonesInRun {
				for range 1 + random.IntN(24) {
					<-progress
				}
				before := h.copy()
				crashedFS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
				after := h.copy()
				recovered := open(t, crashedFS, 1<<20)
				found = look(t, recovered)
				salvaged := recovered.Quarantined() > 0
				if salvaged {
					quarantined++
				}
				for id, l := range after.lives {
					first := 0
					if known := before.lives[id]; known != nil {
						first = known.certain
					}
					is := found[id]
					if is == "" {
						is = nowhere
					}
					allowed := l.places[first:]
					// What may have been removed may also have been brought back.
					broughtBack := salvaged && slices.Contains(allowed, nowhere)
					if !broughtBack && !slices.Contains(allowed, is) {
						t.Fatalf("seed %d: entry %d is %s, and can only be one of %v", seed, id, is, allowed)
					}
				}
				for id := range found {
					broughtBack := salvaged && gone[id]
					if !broughtBack && after.lives[id] == nil {
						t.Fatalf("seed %d: entry %d was never appended", seed, id)
					}
				}
				if got := recovered.HighestTime(); got < before.clock {
					t.Fatalf("seed %d: the highest time went back from %d to %d", seed, before.clock, got)
				}
				var version uint64
				if snapshot, err := recovered.Snapshot(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				} else if snapshot != nil {
					version = binary.BigEndian.Uint64(snapshot)
				}
				if version < before.snapshot.certain || version > after.snapshot.asked {
					t.Fatalf("seed %d: the snapshot is version %d, kept were %d to %d", seed, version, before.snapshot.certain, after.snapshot.asked)
				}
				h.mu.Lock()
				h.recovered, h.recoveredClock = version, recovered.HighestTime()
				h.mu.Unlock()
				closed(t, recovered)
				crashes++
			}
			close(crashed)
			working.Wait()
			closed(t, j)
			// What was done after the last crash is not part of this history.
			done += h.done
			for id := range h.lives {
				if _, there := found[id]; !there {
					gone[id] = true
				}
			}
			h.lives, h.done = map[uint64]*life{}, 0
			for id, is := range found {
				h.lives[id] = &life{places: []place{is}}
			}
			h.snapshot.asked, h.snapshot.certain = h.recovered, h.recovered
			h.clock = h.recoveredClock
			fs = crashedFS
		}
	}
	if crashes < 20*rounds || done < 10*crashes {
		t.Errorf("%d crashes after %d acknowledged operations prove too little", crashes, done)
	}
	if quarantined > crashes/100 {
		t.Errorf("%d of %d crashes look like damage", quarantined, crashes)
	}
	t.Logf("%d crashes, %d acknowledged operations, %d taken for damage", crashes, done, quarantined)
}
