package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// errNotExist is what a file system says of a file that is not there.
var errNotExist = fs.ErrNotExist

// format is the version of the layout below. A journal of another one is not opened.
const format = 1

// The key space. Numbers are big-endian, so that entries come in the order of their acceptance.
var (
	formatKey   = []byte("meta/format")
	identityKey = []byte("meta/replica")
	clockKey    = []byte("meta/clock")
	snapshotKey = []byte("meta/snapshot")
	offsetKey   = []byte("meta/offset")
	entryPrefix = []byte("entry/")
	deadPrefix  = []byte("dead/")
)

// ErrFull means that the disk has no room for an entry, or that its namespace holds its share of the journal.
var ErrFull = errors.New("the journal is full")

// ErrUnreadable means that an entry is there and cannot be understood.
var ErrUnreadable = errors.New("the entry cannot be read")

// BrokenError means that the journal cannot be trusted any more: a write or fsync failed, and the kernel may have dropped
// what it could not write. The process must end, and read back what is really on the disk.
type BrokenError struct{ Cause error }

// Error implements error.
func (e *BrokenError) Error() string { return fmt.Sprintf("the journal failed: %v", e.Cause) }

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Cause }

// Options of a Journal.
type Options struct {
	// FS is the file system; nil for the real one.
	FS vfs.FS
	// ReadExisting fails where there is no journal yet, instead of creating one.
	ReadExisting bool
	// MaxBytes bounds the entries, dead letters included. The files take up to about twice as much.
	MaxBytes int64
	// ReserveBytes are kept free on the disk for the storage engine, and half of them more below which no changes are
	// taken; 0 for none. Where ReadExisting finds a reserve, that one is kept.
	ReserveBytes int64
	// Registry gets the metrics; nil for none.
	Registry prometheus.Registerer
	// Log gets what the storage engine has to say.
	Log logr.Logger
	// Fatal is told when the journal cannot go on; calls in progress may never return then, and the process must end. What
	// can be read is read by the next Open.
	Fatal func(error)
	// Now is the time; nil for time.Now.
	Now func() time.Time
}

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	dir      string
	options  Options
	space    *space
	lock     *pebble.Lock
	db       *pebble.DB
	identity uint64
	// failed gets the first failure while the journal is opened; later ones go to Options.Fatal.
	failed chan error
	opened atomic.Bool

	commits prometheus.Histogram
	broken  atomic.Pointer[BrokenError]

	reclaiming reclaimer

	// removing orders what is written of the clock.
	removing sync.Mutex
	maxBytes int64
	mu       sync.Mutex
	sequence uint64
	tallies  tallies
	// clock is the highest time stamped in any entry, removed ones included.
	clock stamp.HLC
}

// Open opens or creates the journal in the directory, and reads every entry of it. It fails if another process has it open,
// if another version wrote it, and if the disk does not let it. If the journal is damaged, its files are put aside in a
// directory quarantine-<time> inside, and a new one starts with everything that can still be read.
//
// After a BrokenError the process must end.
func Open(dir string, options Options) (*Journal, error) {
	if options.FS == nil {
		options.FS = vfs.Default
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	j := &Journal{
		dir: dir, options: options, maxBytes: options.MaxBytes, tallies: newTallies(), failed: make(chan error, 1),
		space: newSpace(options.FS, dir, options.ReserveBytes, options.Now, options.Log),
	}
	j.space.exhausted = func(err error) {
		_ = j.fail(fmt.Errorf("there is no room on the disk, and no reserve is left; make some room: %w", err))
	}
	if err := j.lockDirectory(); err != nil {
		return nil, fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	loaded := make(chan error, 1)
	// The engine holds whoever calls it when it cannot go on, and so would hold this.
	go func() { loaded <- j.load() }()
	var err error
	select {
	case err = <-loaded:
	case err = <-j.failed:
	}
	if err != nil {
		if j.broken.Load() == nil {
			err = errors.Join(err, j.close())
		}
		return nil, fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	j.opened.Store(true)
	j.space.settle()
	j.commits = newMetrics(options.Registry, j)
	return j, nil
}

// lockDirectory makes sure that nobody else has the journal, and creates the directory.
func (j *Journal) lockDirectory() (err error) {
	if j.options.ReadExisting {
		if _, err := j.options.FS.Stat(j.dir); err != nil {
			return err
		}
	} else if err := makeDirectory(j.options.FS, j.dir); err != nil {
		return err
	}
	j.lock, err = pebble.LockDirectory(j.dir, j.options.FS)
	return err
}

// makeDirectory makes a directory and those above it durable.
func makeDirectory(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); !errors.Is(err, errNotExist) {
		return err
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := makeDirectory(fs, parent); err != nil {
			return err
		}
	}
	// What users wrote is for nobody else on the node.
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDirectory(fs, parent)
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// load opens the engine and takes stock, and starts a new journal with what can be read if this one is damaged.
func (j *Journal) load() error {
	if err := j.space.prepare(j.options.ReadExisting); err != nil {
		return err
	}
	damage := j.take()
	if damage != nil && !damaged(damage) {
		return damage
	}
	if damage != nil {
		if err := j.quarantine(); err != nil {
			return errors.Join(damage, err)
		}
		if err := j.take(); err != nil {
			return errors.Join(damage, err)
		}
	}
	// Also what an earlier start did not come to: it is removed from there only when it is safe here.
	salvaged, err := j.salvage(damage)
	if err != nil || !salvaged {
		return err
	}
	return j.count()
}

// take opens the engine, identifies the journal and counts what is there.
func (j *Journal) take() (err error) {
	behind, err := inspect(j.options.FS, j.dir, j.options.ReadExisting)
	if err != nil {
		return err
	}
	if j.db, err = j.openEngine(); err != nil {
		return err
	}
	if err = j.identify(); err == nil {
		err = j.count()
	}
	if err == nil {
		err = j.catchUp(behind)
	}
	if err != nil {
		// The first error says what is wrong, and a failed Close may be no more than its echo.
		_ = j.db.Close()
		j.db = nil
		return err
	}
	return nil
}

// identify reads the journal's format and identity, and writes them into a new one.
func (j *Journal) identify() error {
	version, found, err := j.number(formatKey)
	switch {
	case err != nil:
		return err
	case found && version != format:
		return &formatError{version}
	case found:
		if j.identity, found, err = j.number(identityKey); err == nil && !found {
			err = errors.New("the journal has no identity")
		}
		return err
	}
	if empty, err := j.empty(); err != nil || !empty {
		return errors.Join(err, errors.New("the journal has no format"))
	}
	return j.initialize(0)
}

// initialize gives the journal a format, and a new identity.
func (j *Journal) initialize(clock stamp.HLC) error {
	var random [8]byte
	// crypto/rand never fails.
	_, _ = rand.Read(random[:])
	batch := j.db.NewBatch()
	defer batch.Close()
	err := errors.Join(
		batch.Set(formatKey, encodeNumber(format), nil),
		batch.Set(identityKey, random[:], nil),
		batch.Set(clockKey, encodeNumber(uint64(clock)), nil),
		batch.Commit(pebble.Sync),
	)
	j.identity = binary.BigEndian.Uint64(random[:])
	return err
}

// count reads everything that is there, so that damage shows now, and counts it.
func (j *Journal) count() error {
	highest, _, err := j.number(clockKey)
	if err != nil {
		return err
	}
	_, snapshotErr := j.Snapshot()
	_, offsetErr := j.Offset()
	if err := errors.Join(snapshotErr, offsetErr); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.clock, j.tallies = stamp.HLC(highest), newTallies()
	for _, prefix := range [][]byte{entryPrefix, deadPrefix} {
		err := j.scan(prefix, func(sequence uint64, data []byte) error {
			j.sequence = max(j.sequence, sequence)
			var tenant Tenant
			if entry, err := decode(sequence, data); err == nil {
				j.clock = max(j.clock, entry.Change.Stamp.HLC)
				tenant = Tenant{entry.Namespace, entry.Change.Spec.ServerName}
			}
			j.tallies.add(sequence, tenant, int64(len(data)), prefix[0] == deadPrefix[0])
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Identity tells the journal from every other: where a damaged one was put aside, a new one has started.
func (j *Journal) Identity() uint64 { return j.identity }

// HighestTime is the highest time stamped in any entry so far. A clock must observe it before it makes a stamp.
func (j *Journal) HighestTime() stamp.HLC {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.clock
}

// Append makes the change durable and returns its entry. The change is on the disk when it returns nil, and may or may
// not be when it returns a BrokenError. After ErrFull it is not, and another change may be taken.
func (j *Journal) Append(namespace string, change merge.Change) (Entry, error) {
	if broken := j.broken.Load(); broken != nil {
		return Entry{}, broken
	}
	data, err := encode(namespace, change)
	if err != nil {
		return Entry{}, err
	}
	if j.space.isFull(int64(len(data))) {
		return Entry{}, ErrFull
	}
	sequence, admitted := j.admit(Tenant{namespace, change.Spec.ServerName}, int64(len(data)), change.Stamp.HLC)
	if !admitted {
		return Entry{}, ErrFull
	}
	started := time.Now()
	if err := j.db.Set(entryKey(entryPrefix, sequence), data, pebble.Sync); err != nil {
		return Entry{}, j.fail(err)
	}
	j.commits.Observe(time.Since(started).Seconds())
	return Entry{Sequence: sequence, Namespace: namespace, Change: change}, nil
}

// Full reports whether the journal takes no more changes of any namespace, because it has reached its bound or its disk is
// full.
func (j *Journal) Full() bool { return j.FullFor("") }

// FullFor reports whether it takes no more changes of the namespace, which may hold no more than its share.
func (j *Journal) FullFor(namespace string) bool {
	if j.space.isFull(0) {
		return true
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.tallies.fits(namespace, min(typicalSize, j.maxBytes/100), j.maxBytes)
}

// Load returns an entry that waits, and false if it was removed or buried, or never was.
func (j *Journal) Load(sequence uint64) (Entry, bool, error) {
	data, found, err := j.get(entryKey(entryPrefix, sequence))
	if err != nil || !found {
		return Entry{}, false, err
	}
	entry, err := decode(sequence, data)
	if err != nil {
		err = errors.Join(ErrUnreadable, err)
	}
	return entry, true, err
}

// Waiting calls each with every entry that was neither removed nor buried, in the order of acceptance. An entry that
// cannot be read is buried, and the others go on.
func (j *Journal) Waiting(each func(Entry) error) error {
	return j.scan(entryPrefix, func(sequence uint64, data []byte) error {
		entry, err := decode(sequence, data)
		if err != nil {
			return j.Bury([]uint64{sequence})
		}
		return each(entry)
	})
}

// Dead calls each with every buried entry, in the order of acceptance. Of one that cannot be read only the sequence is
// known.
func (j *Journal) Dead(each func(Entry, error) error) error {
	return j.scan(deadPrefix, func(sequence uint64, data []byte) error {
		entry, err := decode(sequence, data)
		entry.Sequence = sequence
		return each(entry, err)
	})
}

// Remove forgets entries that have been applied. It does not wait for the disk.
func (j *Journal) Remove(sequences []uint64) error {
	batch := j.db.NewBatch()
	defer batch.Close()
	for _, sequence := range sequences {
		if err := batch.Delete(entryKey(entryPrefix, sequence), nil); err != nil {
			return err
		}
	}
	// In the same batch as the deletions: what outlives the entries must outlive them in every crash. And one after the other,
	// so that a lower time never replaces a higher one.
	j.removing.Lock()
	defer j.removing.Unlock()
	if err := batch.Set(clockKey, encodeNumber(uint64(j.HighestTime())), nil); err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return j.abandon(err)
	}
	j.reclaim(j.release(sequences))
	return nil
}

// release counts entries out that waited, and returns their bytes and whether none waits any more.
func (j *Journal) release(sequences []uint64) (bytes int64, drained bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.tallies.waiting.bytes
	for _, sequence := range sequences {
		if !j.tallies.held[sequence].dead {
			j.tallies.remove(sequence)
		}
	}
	return before - j.tallies.waiting.bytes, j.tallies.waiting.entries == 0
}

// Bury puts aside entries that can never be applied. They are kept, and count, until Resurrect.
func (j *Journal) Bury(sequences []uint64) error { return j.move(sequences, entryPrefix, deadPrefix) }

// Resurrect makes buried entries wait again, confirmed by a person. They are applied after the next Waiting.
func (j *Journal) Resurrect(sequences []uint64) error {
	return j.move(sequences, deadPrefix, entryPrefix)
}

func (j *Journal) move(sequences []uint64, from, to []byte) error {
	batch := j.db.NewBatch()
	defer batch.Close()
	var moved []uint64
	for _, sequence := range sequences {
		data, found, err := j.get(entryKey(from, sequence))
		if err != nil {
			return err
		} else if !found {
			continue
		}
		if to[0] == entryPrefix[0] {
			data = confirm(data)
		}
		// salvage knows a move from a removal by its order.
		err = errors.Join(batch.Set(entryKey(to, sequence), data, nil), batch.Delete(entryKey(from, sequence), nil))
		if err != nil {
			return err
		}
		moved = append(moved, sequence)
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return j.abandon(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, sequence := range moved {
		j.tallies.move(sequence, to[0] == deadPrefix[0])
	}
	return nil
}

// SaveSnapshot keeps what a receiver needs in order to serve before it has reached the API server.
func (j *Journal) SaveSnapshot(snapshot []byte) error { return j.keep(snapshotKey, snapshot) }

// Snapshot returns what SaveSnapshot kept last, or nil.
func (j *Journal) Snapshot() ([]byte, error) {
	snapshot, _, err := j.get(snapshotKey)
	return snapshot, err
}

// SaveOffset keeps how far the API server's clock is ahead of this machine's.
func (j *Journal) SaveOffset(offset time.Duration) error {
	return j.keep(offsetKey, encodeNumber(uint64(offset))) //nolint:gosec // Offset turns it back
}

// Offset returns what SaveOffset kept last, or 0.
func (j *Journal) Offset() (time.Duration, error) {
	offset, _, err := j.number(offsetKey)
	return time.Duration(offset), err //nolint:gosec // see SaveOffset
}

func (j *Journal) keep(key, value []byte) error {
	if err := j.db.Set(key, value, pebble.Sync); err != nil {
		return j.fail(err)
	}
	return nil
}

// Err returns why the journal cannot be trusted any more, or nil.
func (j *Journal) Err() error {
	if broken := j.broken.Load(); broken != nil {
		return broken
	}
	return nil
}

// Close closes the journal. Nothing may be in progress.
func (j *Journal) Close() error {
	j.reclaiming.stop()
	return j.close()
}

func (j *Journal) close() (err error) {
	j.space.close()
	if j.db != nil {
		err = j.db.Close()
	}
	if noRoom(err) {
		// A mark of the end of the log is missing, which the last one need not have. What was acknowledged was synced.
		err = nil
	}
	return errors.Join(err, j.lock.Close())
}

// fail remembers the first failure: after it nothing that the descriptor says can be believed.
func (j *Journal) fail(cause error) error {
	j.broken.CompareAndSwap(nil, &BrokenError{cause})
	broken := j.broken.Load()
	if !j.opened.Load() {
		select {
		case j.failed <- broken:
		default:
		}
	}
	return broken
}

// abandon fails, and ends the process.
func (j *Journal) abandon(cause error) error {
	err := j.fail(cause)
	if j.opened.Load() && j.options.Fatal != nil {
		j.options.Fatal(err)
	}
	return err
}

func (j *Journal) scan(prefix []byte, each func(sequence uint64, data []byte) error) (err error) {
	upper := append([]byte{}, prefix...)
	upper[len(upper)-1]++
	entries, err := j.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return j.unlessDamaged(err)
	}
	defer func() { err = errors.Join(err, entries.Close()) }()
	for valid := entries.First(); valid; valid = entries.Next() {
		suffix := entries.Key()[len(prefix):]
		if len(suffix) != 8 {
			continue
		}
		data, err := entries.ValueAndErr()
		if err != nil {
			return j.unlessDamaged(err)
		}
		if err := each(binary.BigEndian.Uint64(suffix), data); err != nil {
			return err
		}
	}
	return j.unlessDamaged(entries.Error())
}

// get returns a copy of a value.
func (j *Journal) get(key []byte) (value []byte, found bool, err error) {
	data, closer, err := j.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, j.unlessDamaged(err)
	}
	return append([]byte{}, data...), true, closer.Close()
}

func (j *Journal) number(key []byte) (value uint64, found bool, err error) {
	data, found, err := j.get(key)
	if err == nil && found && len(data) != 8 {
		err = fmt.Errorf("%s has %d bytes", key, len(data))
	}
	if err != nil || !found {
		return 0, false, err
	}
	return binary.BigEndian.Uint64(data), true, nil
}

// empty says whether there is nothing at all.
func (j *Journal) empty() (empty bool, err error) {
	all, err := j.db.NewIter(nil)
	if err != nil {
		return false, err
	}
	empty = !all.First()
	return empty, errors.Join(all.Error(), all.Close())
}

// unlessDamaged returns the error. If it says that the disk has not what was written to it, nobody can go on: the next Open
// puts the damaged files aside and takes what can be read.
func (j *Journal) unlessDamaged(err error) error {
	if j.opened.Load() && pebble.IsCorruptionError(err) {
		return j.abandon(fmt.Errorf("what was written is damaged: %w", err))
	}
	return err
}

func entryKey(prefix []byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{}, prefix...), sequence)
}

func encodeNumber(value uint64) []byte { return binary.BigEndian.AppendUint64(nil, value) }
