package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
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

// format is the version of the layout below. A journal of another one is not opened.
const format = 1

// The key space. Numbers are big-endian, so that entries come in the order of their acceptance.
var (
	formatKey   = []byte("meta/format")
	replicaKey  = []byte("meta/replica")
	clockKey    = []byte("meta/clock")
	snapshotKey = []byte("meta/snapshot")
	entryPrefix = []byte("entry/")
	deadPrefix  = []byte("dead/")
)

// ErrFull means that the entries waiting to be applied have reached the journal's bound.
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
	// MaxBytes bounds the entries that wait to be applied. The files take up to about twice as much.
	MaxBytes int64
	// Registry gets the metrics; nil for none.
	Registry prometheus.Registerer
	// Log gets what the storage engine has to say.
	Log logr.Logger
	// Fatal is told when the storage engine cannot go on; calls in progress never return then, and the process must end.
	Fatal func(error)
}

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	db       *pebble.DB
	replica  uint64
	maxBytes int64

	commits  prometheus.Histogram
	sequence atomic.Uint64
	broken   atomic.Pointer[BrokenError]

	mu sync.Mutex
	// sizes are the bytes of each waiting entry, and bytes is their sum.
	sizes map[uint64]int64
	bytes int64
	// clock is the highest time stamped in any entry, removed ones included.
	clock stamp.HLC
}

// Open opens or creates the journal in the directory, and fails if another process has it open.
func Open(dir string, options Options) (*Journal, error) {
	fs := options.FS
	if fs == nil {
		fs = vfs.Default
	}
	j := &Journal{maxBytes: options.MaxBytes, sizes: map[uint64]int64{}}
	fatal := func(err error) {
		// The engine holds whoever waits for it then; those who come later are told.
		err = j.fail(err)
		options.Fatal(err)
	}
	db, err := pebble.Open(dir, &pebble.Options{
		FS:                 fs,
		ErrorIfNotExists:   options.ReadExisting,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             engineLogger{options.Log, fatal},
		// Entries live for milliseconds: a small table is flushed rarely and keeps the disk small.
		MemTableSize: 16 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("open the journal in %s: %w", dir, err)
	}
	j.db = db
	j.commits = newMetrics(options.Registry, j)
	if err := errors.Join(j.identify(), j.take()); err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal in %s: %w", dir, err), db.Close())
	}
	return j, nil
}

// identify reads the journal's format and identity, and writes them into a new one.
func (j *Journal) identify() error {
	version, found, err := j.number(formatKey)
	switch {
	case err != nil:
		return err
	case found && version != format:
		return fmt.Errorf("its format is %d and this version reads %d: run the version that wrote it", version, format)
	case found:
		if j.replica, found, err = j.number(replicaKey); err == nil && !found {
			err = errors.New("it has no identity: files are missing")
		}
		return err
	}
	var random [8]byte
	// crypto/rand never fails.
	_, _ = rand.Read(random[:])
	j.replica = binary.BigEndian.Uint64(random[:])
	batch := j.db.NewBatch()
	defer batch.Close()
	return errors.Join(
		batch.Set(formatKey, encodeNumber(format), nil),
		batch.Set(replicaKey, random[:], nil),
		batch.Commit(pebble.Sync),
	)
}

// take counts what is there: the waiting entries and the highest time stamped.
func (j *Journal) take() error {
	highest, _, err := j.number(clockKey)
	if err != nil {
		return err
	}
	j.clock = stamp.HLC(highest)
	for _, prefix := range [][]byte{entryPrefix, deadPrefix} {
		err := j.scan(prefix, func(sequence uint64, data []byte) error {
			j.sequence.Store(max(j.sequence.Load(), sequence))
			if entry, err := decode(sequence, data); err == nil {
				j.clock = max(j.clock, entry.Change.Stamp.HLC)
			}
			if prefix[0] == entryPrefix[0] {
				j.sizes[sequence] = int64(len(data))
				j.bytes += int64(len(data))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Replica is the journal's identity, for the stamps that are made beside it.
func (j *Journal) Replica() uint64 { return j.replica }

// HighestTime is the highest time stamped in any entry so far. A clock must observe it before it makes a stamp.
func (j *Journal) HighestTime() stamp.HLC {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.clock
}

// Append makes the change durable and returns its entry. The change is on the disk when it returns nil, and may or may
// not be when it returns a BrokenError.
func (j *Journal) Append(namespace string, change merge.Change) (Entry, error) {
	if broken := j.broken.Load(); broken != nil {
		return Entry{}, broken
	}
	data, err := encode(namespace, change)
	if err != nil {
		return Entry{}, err
	}
	sequence := j.sequence.Add(1)
	if !j.reserve(sequence, int64(len(data)), change.Stamp.HLC) {
		return Entry{}, ErrFull
	}
	started := time.Now()
	if err := j.db.Set(entryKey(entryPrefix, sequence), data, pebble.Sync); err != nil {
		return Entry{}, j.fail(err)
	}
	j.commits.Observe(time.Since(started).Seconds())
	return Entry{Sequence: sequence, Namespace: namespace, Change: change}, nil
}

// reserve counts an entry in, unless the journal is full.
func (j *Journal) reserve(sequence uint64, size int64, at stamp.HLC) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.bytes+size > j.maxBytes {
		return false
	}
	j.sizes[sequence] = size
	j.bytes += size
	j.clock = max(j.clock, at)
	return true
}

// release counts entries out.
func (j *Journal) release(sequences []uint64) (clock stamp.HLC) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, sequence := range sequences {
		j.bytes -= j.sizes[sequence]
		delete(j.sizes, sequence)
	}
	return j.clock
}

// Load returns an entry that waits, and false if it was removed or buried, or never was.
func (j *Journal) Load(sequence uint64) (Entry, bool, error) {
	data, closer, err := j.db.Get(entryKey(entryPrefix, sequence))
	if errors.Is(err, pebble.ErrNotFound) {
		return Entry{}, false, nil
	} else if err != nil {
		return Entry{}, false, err
	}
	entry, err := decode(sequence, data)
	if err != nil {
		err = errors.Join(ErrUnreadable, err)
	}
	return entry, true, errors.Join(err, closer.Close())
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
	// In the same batch as the deletions: what outlives the entries must outlive them in every crash.
	if err := batch.Set(clockKey, encodeNumber(uint64(j.release(sequences))), nil); err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return j.fail(err)
	}
	return nil
}

// Bury puts aside entries that can never be applied. They are kept until Resurrect.
func (j *Journal) Bury(sequences []uint64) error { return j.move(sequences, entryPrefix, deadPrefix) }

// Resurrect makes buried entries wait again. They are applied after the next Waiting.
func (j *Journal) Resurrect(sequences []uint64) error {
	return j.move(sequences, deadPrefix, entryPrefix)
}

func (j *Journal) move(sequences []uint64, from, to []byte) error {
	batch := j.db.NewBatch()
	defer batch.Close()
	for _, sequence := range sequences {
		data, closer, err := j.db.Get(entryKey(from, sequence))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		size := int64(len(data))
		err = errors.Join(
			batch.Set(entryKey(to, sequence), data, nil),
			batch.Delete(entryKey(from, sequence), nil),
			closer.Close(),
		)
		if err != nil {
			return err
		}
		if to[0] == entryPrefix[0] {
			j.mu.Lock()
			j.sizes[sequence] = size
			j.bytes += size
			j.mu.Unlock()
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return j.fail(err)
	}
	if from[0] == entryPrefix[0] {
		j.release(sequences)
	}
	return nil
}

// SaveSnapshot keeps what a receiver needs in order to serve before it has reached the API server.
func (j *Journal) SaveSnapshot(snapshot []byte) error {
	if err := j.db.Set(snapshotKey, snapshot, pebble.Sync); err != nil {
		return j.fail(err)
	}
	return nil
}

// Snapshot returns what SaveSnapshot kept last, or nil.
func (j *Journal) Snapshot() ([]byte, error) {
	data, closer, err := j.db.Get(snapshotKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	snapshot := append([]byte{}, data...)
	return snapshot, closer.Close()
}

// Depth returns the number of entries that wait, and their bytes.
func (j *Journal) Depth() (entries int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.sizes), j.bytes
}

// Err returns why the journal cannot be trusted any more, or nil.
func (j *Journal) Err() error {
	if broken := j.broken.Load(); broken != nil {
		return broken
	}
	return nil
}

// Close closes the journal. Nothing may be in progress.
func (j *Journal) Close() error { return j.db.Close() }

// fail remembers the first failure: after it nothing that the descriptor says can be believed.
func (j *Journal) fail(cause error) error {
	j.broken.CompareAndSwap(nil, &BrokenError{cause})
	return j.broken.Load()
}

func (j *Journal) scan(prefix []byte, each func(sequence uint64, data []byte) error) (err error) {
	upper := append([]byte{}, prefix...)
	upper[len(upper)-1]++
	entries, err := j.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, entries.Close()) }()
	for valid := entries.First(); valid; valid = entries.Next() {
		suffix := entries.Key()[len(prefix):]
		if len(suffix) != 8 {
			continue
		}
		if err := each(binary.BigEndian.Uint64(suffix), entries.Value()); err != nil {
			return err
		}
	}
	return entries.Error()
}

func (j *Journal) number(key []byte) (value uint64, found bool, err error) {
	data, closer, err := j.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	if len(data) != 8 {
		return 0, false, errors.Join(fmt.Errorf("%s has %d bytes", key, len(data)), closer.Close())
	}
	return binary.BigEndian.Uint64(data), true, closer.Close()
}

func entryKey(prefix []byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{}, prefix...), sequence)
}

func encodeNumber(value uint64) []byte { return binary.BigEndian.AppendUint64(nil, value) }

// engineLogger passes on what the storage engine says. It calls Fatalf when it cannot go on, and expects no return.
type engineLogger struct {
	log   logr.Logger
	fatal func(error)
}

func (l engineLogger) Infof(string, ...any) {}

func (l engineLogger) Errorf(format string, args ...any) {
	l.log.Error(nil, "Storage engine: "+fmt.Sprintf(format, args...))
}

func (l engineLogger) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf(format, args...))
	select {}
}
