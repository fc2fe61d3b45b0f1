package simulation_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

var errCrashed = errors.New("the process has ended")

// disk stands for a receiver's volume with a journal on it. It keeps what the journal keeps over a crash: everything that
// was synced, and of the rest, which are removals, the first few.
type disk struct {
	*world
	of int

	mu       sync.Mutex
	sequence uint64
	// waiting and dead hold entries as bytes: nothing is shared with those who wrote them.
	waiting, buried map[uint64][]byte
	// reserved counts the entries that are being synced.
	reserved int
	highest  stamp.HLC
	// syncedHighest is the highest time as kept with removals that are synced, and unsynced are the others.
	syncedHighest stamp.HLC
	unsynced      []removal
	broken        bool
	correction    time.Duration
}

type removal struct {
	entries map[uint64][]byte
	highest stamp.HLC
}

// open returns the journal as a new process finds it, and the entries to replay.
func (d *disk) open(by *incarnation) (*openJournal, []journal.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.highest = d.syncedHighest
	for _, entries := range []map[uint64][]byte{d.waiting, d.buried} {
		for _, data := range entries {
			d.highest = max(d.highest, d.decode(data).Change.Stamp.HLC)
		}
	}
	d.broken, d.reserved = false, 0
	var replayed []journal.Entry
	for _, sequence := range slices.Sorted(maps.Keys(d.waiting)) {
		replayed = append(replayed, d.decode(d.waiting[sequence]))
		d.count("changes replayed")
	}
	return &openJournal{d, by}, replayed
}

// crash forgets what was not synced.
func (d *disk) crash(number int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := keyed(d.seed, "disk", d.of, number).IntN(len(d.unsynced) + 1)
	for _, r := range d.unsynced[kept:] {
		maps.Copy(d.waiting, r.entries)
		d.world.counts("removals undone by a crash", len(r.entries))
	}
	d.unsynced = d.unsynced[:kept]
	d.sync()
}

// sync makes what was written before outlive a crash. The caller holds the lock.
func (d *disk) sync() {
	for _, r := range d.unsynced {
		d.syncedHighest = max(d.syncedHighest, r.highest)
	}
	d.unsynced = nil
}

func (d *disk) decode(data []byte) journal.Entry {
	var entry journal.Entry
	if err := json.Unmarshal(data, &entry); err != nil {
		d.failf("an entry cannot be read: %v", err)
	}
	return entry
}

// left returns how many entries wait and how many are buried.
func (d *disk) left() (waiting, buried int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting), len(d.buried)
}

// openJournal is the journal in one process.
type openJournal struct {
	*disk
	by *incarnation
}

// Append has the semantics of journal.Journal.Append.
func (j *openJournal) Append(namespace string, told merge.Change) (journal.Entry, error) {
	j.mu.Lock()
	switch {
	case j.broken:
		j.mu.Unlock()
		return journal.Entry{}, &journal.BrokenError{Cause: errors.New("input/output error")}
	case len(j.waiting)+j.reserved >= j.room:
		j.mu.Unlock()
		j.count("appends to a full journal")
		return journal.Entry{}, journal.ErrFull
	}
	j.sequence++
	j.reserved++
	j.highest = max(j.highest, told.Stamp.HLC)
	entry := journal.Entry{Sequence: j.sequence, Namespace: namespace, Change: told}
	j.mu.Unlock()
	data, err := json.Marshal(entry)
	if err != nil {
		return journal.Entry{}, err
	}

	r := keyed(j.seed, "append", j.of, j.by.number, entry.Sequence)
	breaks := r.Float64() < j.breaking && time.Since(j.start) < j.end
	reached := r.IntN(2) == 0
	takes := anywhere(r, j.fsync)
	if r.Float64() < j.stuck && time.Since(j.start) < j.end {
		j.count("appends that the disk held up")
		takes = anywhere(r, 6*time.Second)
	}
	crashed := j.by.wait(j.by.ctx, takes)

	j.mu.Lock()
	defer j.mu.Unlock()
	if crashed != nil {
		if reached {
			j.keep(entry, data)
		}
		return journal.Entry{}, crashed
	}
	j.reserved--
	if breaks || j.broken {
		j.count("failed disks")
		j.broken = true
		if reached {
			j.keep(entry, data)
		}
		return journal.Entry{}, &journal.BrokenError{Cause: errors.New("input/output error")}
	}
	j.sync()
	j.keep(entry, data)
	j.changeOf(entry).committed.Store(time.Now().UnixNano())
	return entry, nil
}

func (j *openJournal) keep(entry journal.Entry, data []byte) {
	j.waiting[entry.Sequence] = data
	j.changeOf(entry).durable.Store(true)
}

// Load has the semantics of journal.Journal.Load.
func (j *openJournal) Load(sequence uint64) (journal.Entry, bool, error) {
	if j.by.isDead() {
		return journal.Entry{}, false, errCrashed
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	data, found := j.waiting[sequence]
	if !found {
		return journal.Entry{}, false, nil
	}
	entry := j.decode(data)
	j.by.loaded(entry.Change.Spec.GroupID, j.changeOf(entry))
	return entry, true, nil
}

// Remove has the semantics of journal.Journal.Remove.
func (j *openJournal) Remove(sequences []uint64) error {
	if j.by.isDead() {
		return errCrashed
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r := removal{entries: map[uint64][]byte{}, highest: j.highest}
	for _, sequence := range sequences {
		if data, found := j.waiting[sequence]; found {
			r.entries[sequence] = data
			delete(j.waiting, sequence)
		}
	}
	j.unsynced = append(j.unsynced, r)
	return nil
}

// Bury has the semantics of journal.Journal.Bury.
func (j *openJournal) Bury(sequences []uint64) error {
	if j.by.isDead() {
		return errCrashed
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sync()
	for _, sequence := range sequences {
		data, found := j.waiting[sequence]
		if !found {
			continue
		}
		j.buried[sequence] = data
		delete(j.waiting, sequence)
		c := j.changeOf(j.decode(data))
		c.buried.Store(true)
		j.by.checkDeadLetter(c)
	}
	return nil
}
