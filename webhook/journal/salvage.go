package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/block/blockkind"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// salvageBatch is how much is written at once.
const salvageBatch = 1 << 20

// written is one operation that was found in the files of a damaged journal.
type written struct {
	// number orders the operations of one journal.
	number uint64
	key    []byte
	// value is nil for a deletion.
	value []byte
}

// find is the last that is known of an entry.
type find struct {
	number uint64
	dead   bool
	// removed: it was applied.
	removed bool
}

// index is what the files of a damaged journal hold.
type index struct {
	entries map[uint64]find
	clock   stamp.HLC
	// snapshot and offset are the last that were kept.
	snapshot, offset written
	// unreadable counts the files that could not be read to the end.
	unreadable int
}

// salvage brings what can be read of damaged journals into this one. Merging again what had been applied changes nothing, so
// anything is taken of which it is not certain that it was removed. Entries keep their sequences, so that doing this twice
// does no harm: a crash in the middle lets the next Open do it again.
func (j *Journal) salvage(cause error) (salvaged bool, err error) {
	fs := j.space
	names, err := fs.List(j.dir)
	if err != nil {
		return false, err
	}
	slices.Sort(names)
	for _, name := range names {
		if !isUnread(name) {
			continue
		}
		if err := j.salvageFrom(name, cause); err != nil {
			return false, fmt.Errorf("salvage the damaged journal in %s: %w", name, err)
		}
		salvaged = true
	}
	return salvaged, nil
}

func (j *Journal) salvageFrom(name string, cause error) error {
	fs := j.space
	from := fs.PathJoin(j.dir, name)
	found, err := readIndex(fs, from)
	if err != nil {
		return err
	}
	batch := j.db.NewBatch()
	defer func() { _ = batch.Close() }()
	waiting, dead := 0, 0
	read, err := readWritten(fs, from, func(operations []written) error {
		for _, w := range operations {
			prefix, sequence, ok := entryOf(w.key)
			if !ok || w.value == nil {
				continue
			}
			last, known := found.entries[sequence]
			buried := prefix[0] == deadPrefix[0]
			if !known || last.removed || last.dead != buried || last.number != w.number {
				continue
			}
			delete(found.entries, sequence)
			other := deadPrefix
			if buried {
				other = entryPrefix
				dead++
			} else {
				waiting++
			}
			err := errors.Join(batch.Set(w.key, w.value, nil), batch.Delete(entryKey(other, sequence), nil))
			if err == nil && batch.Len() > salvageBatch {
				err = errors.Join(batch.Commit(pebble.NoSync), batch.Close())
				batch = j.db.NewBatch()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if found.snapshot.value != nil {
		err = errors.Join(err, batch.Set(snapshotKey, found.snapshot.value, nil))
	}
	if found.offset.value != nil {
		err = errors.Join(err, batch.Set(offsetKey, found.offset.value, nil))
	}
	if err = errors.Join(err, batch.Commit(pebble.NoSync)); err != nil {
		return err
	}
	// The last stamps of the old identity may be lost, and must not be made again.
	if err := j.initialize(max(found.clock, j.HighestTime())); err != nil {
		return err
	}
	kept := strings.TrimSuffix(name, unreadSuffix)
	if err := fs.Rename(from, fs.PathJoin(j.dir, kept)); err != nil {
		return err
	}
	j.options.Log.Error(cause, "The journal was damaged: what can be read was taken over, and the files are kept",
		"directory", fs.PathJoin(j.dir, kept), "changes", waiting, "deadLetters", dead, "unreadableFiles", read)
	return syncDirectory(fs, j.dir)
}

// readIndex finds out what the files in the directory hold. It fails if another version wrote them.
func readIndex(fs vfs.FS, dir string) (*index, error) {
	found := &index{entries: map[uint64]find{}}
	var err error
	found.unreadable, err = readWritten(fs, dir, found.add)
	return found, err
}

// add takes what was written at once.
func (x *index) add(operations []written) error {
	for i, w := range operations {
		prefix, sequence, ok := entryOf(w.key)
		switch {
		case ok && w.value != nil:
			if last, known := x.entries[sequence]; !known || w.number >= last.number {
				x.entries[sequence] = find{number: w.number, dead: prefix[0] == deadPrefix[0]}
			}
			if entry, err := decode(sequence, w.value); err == nil {
				x.clock = max(x.clock, entry.Change.Stamp.HLC)
			}
		case ok:
			// An entry that moves is written to its other place right before.
			moved := false
			if i > 0 && operations[i-1].value != nil {
				_, other, ok := entryOf(operations[i-1].key)
				moved = ok && other == sequence
			}
			if last := x.entries[sequence]; !moved && w.number >= last.number {
				x.entries[sequence] = find{number: w.number, removed: true}
			}
		case w.value == nil:
		case bytes.Equal(w.key, clockKey) && len(w.value) == 8:
			x.clock = max(x.clock, stamp.HLC(binary.BigEndian.Uint64(w.value)))
		case bytes.Equal(w.key, snapshotKey) && w.number >= x.snapshot.number:
			x.snapshot = written{number: w.number, value: bytes.Clone(w.value)}
		case bytes.Equal(w.key, offsetKey) && len(w.value) == 8 && w.number >= x.offset.number:
			x.offset = written{number: w.number, value: bytes.Clone(w.value)}
		case bytes.Equal(w.key, formatKey) && len(w.value) == 8:
			if version := binary.BigEndian.Uint64(w.value); version != format {
				return &formatError{version}
			}
		}
	}
	return nil
}

// entryOf returns the parts of an entry's key.
func entryOf(key []byte) (prefix []byte, sequence uint64, ok bool) {
	for _, prefix := range [][]byte{entryPrefix, deadPrefix} {
		if suffix, found := bytes.CutPrefix(key, prefix); found && len(suffix) == 8 {
			return prefix, binary.BigEndian.Uint64(suffix), true
		}
	}
	return nil, 0, false
}

// readWritten calls each with everything that can be read in the engine's files, in no order, and together what was written
// together where that is known. Keys and values are valid until each returns. It returns the number of files that could
// not be read to the end.
func readWritten(fs vfs.FS, dir string, each func([]written) error) (unreadable int, err error) {
	names, err := fs.List(dir)
	if err != nil {
		return 0, err
	}
	slices.Sort(names)
	for _, name := range names {
		path := fs.PathJoin(dir, name)
		var damage, failed error
		switch {
		case strings.HasSuffix(name, logSuffix):
			damage, failed = readLog(fs, path, logNumber(name), each)
		case strings.HasSuffix(name, tableSuffix):
			damage, failed = readTable(fs, path, each)
		}
		if failed != nil {
			return unreadable, failed
		}
		if damage != nil {
			unreadable++
		}
	}
	return unreadable, nil
}

// readLog reads a write-ahead log. What is wrong with the file is damage; failed is what each returned.
func readLog(fs vfs.FS, path string, number uint64, each func([]written) error) (damage, failed error) {
	data, err := readFile(fs, path)
	if err != nil {
		return err, nil
	}
	broken := scanLog(data, number, func(record []byte, _ bool) {
		if failed == nil {
			failed = each(operationsOf(record))
		}
	})
	if broken {
		damage = errors.New("damaged before the end")
	}
	return damage, failed
}

// operationsOf returns what a record of a log writes at once.
func operationsOf(record []byte) (operations []written) {
	header, ok := batchrepr.ReadHeader(record)
	if !ok {
		return nil
	}
	number := uint64(header.SeqNum)
	for rest := batchrepr.Read(record); ; number++ {
		kind, key, value, more, err := rest.Next()
		if err != nil || !more {
			return operations
		}
		switch kind {
		case pebble.InternalKeyKindSet:
			operations = append(operations, written{number, key, nonNil(value)})
		case pebble.InternalKeyKindDelete:
			operations = append(operations, written{number: number, key: key})
		}
	}
}

// catchUp does what was written behind the point at which the engine stopped reading its log.
func (j *Journal) catchUp(behind [][]written) error {
	if len(behind) == 0 {
		return nil
	}
	batch := j.db.NewBatch()
	defer batch.Close()
	for _, w := range slices.Concat(behind...) {
		var err error
		switch {
		case bytes.Equal(w.key, formatKey), bytes.Equal(w.key, identityKey):
			// The journal has been identified.
		case bytes.Equal(w.key, clockKey):
			// It never goes back; what it says is in the entries as well, as far as they were written after the tear.
			if len(w.value) == 8 {
				err = batch.Set(clockKey, encodeNumber(max(uint64(j.clock), binary.BigEndian.Uint64(w.value))), nil)
			}
		case w.value == nil:
			err = batch.Delete(w.key, nil)
		default:
			err = batch.Set(w.key, w.value, nil)
		}
		if err != nil {
			return err
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	j.options.Log.Info("The end of the journal's log was torn: what is readable behind the tear was taken over", "writes", len(behind))
	return j.count()
}

// readTable reads a table, block by block, so that a damaged block hides no other. Deletions are left out: whether an entry
// was moved or removed does not show, and where it went to may be lost.
func readTable(fs vfs.FS, path string, each func([]written) error) (damage, failed error) {
	file, err := fs.Open(path)
	if err != nil {
		return err, nil
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return errors.Join(err, file.Close()), nil
	}
	options := &pebble.Options{}
	options.EnsureDefaults()
	ctx := context.Background()
	table, err := sstable.NewReader(ctx, readable, options.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close()), nil
	}
	defer func() { damage = errors.Join(damage, table.Close()) }()
	layout, err := table.Layout()
	if err != nil {
		return err, nil
	}
	schema := options.KeySchemas[options.KeySchema]
	for _, handle := range layout.Data {
		err := func() (err error) {
			// Nothing that the engine makes of a file that it did not write may end the process.
			defer func() {
				if r := recover(); r != nil {
					err = errors.New("a block is not as the engine writes it")
				}
			}()
			h, err := table.BlockReader().Read(ctx, block.NoReadEnv, nil, handle.Handle, blockkind.SSTableData,
				func(*block.Metadata, []byte) error { return nil })
			if err != nil {
				return err
			}
			defer h.Release()
			var decoder colblk.DataBlockDecoder
			var rows colblk.DataBlockIter
			decoder.Init(schema, h.BlockData())
			rows.InitOnce(schema, options.Comparer, nil)
			if err := rows.Init(&decoder, block.IterTransforms{}); err != nil {
				return err
			}
			for row := rows.First(); row != nil && failed == nil; row = rows.Next() {
				if row.K.Kind() == pebble.InternalKeyKindSet && row.V.IsInPlaceValue() {
					failed = each([]written{{uint64(row.K.SeqNum()), row.K.UserKey, nonNil(row.V.InPlaceValue())}})
				}
			}
			return rows.Close()
		}()
		damage = errors.Join(damage, err)
	}
	return damage, failed
}

// nonNil tells an empty value from none.
func nonNil(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}
