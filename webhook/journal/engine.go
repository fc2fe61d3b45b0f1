package journal

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/go-logr/logr"
)

const (
	// maxMemTable is how much is written before the engine flushes. Entries live for milliseconds: a large table keeps most of
	// them away from the tables on the disk, and a small one keeps the disk small.
	maxMemTable = 16 << 20
	minMemTable = 1 << 20
	// quiet is how often an error that the engine meets again and again is told.
	quiet = time.Minute
)

// formatError says that another version wrote the journal.
type formatError struct{ version uint64 }

// Error implements error.
func (e *formatError) Error() string {
	return fmt.Sprintf("its format is %d and this version reads %d: run the version that wrote it", e.version, format)
}

// damaged says whether an error of opening means that the files do not hold what was written to them, rather than that they
// cannot be read now, or not by us.
func damaged(err error) bool {
	if _, ok := errors.AsType[*formatError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*BrokenError](err); ok || errors.Is(err, pebble.ErrDBDoesNotExist) {
		return false
	}
	if pebble.IsCorruptionError(err) || errors.Is(err, errNotExist) {
		return true
	}
	// What the operating system says: no permission, no memory, no space, a device that fails. Another attempt may read it.
	_, system := errors.AsType[syscall.Errno](err)
	return !system
}

// memTableSize makes sure that the reserve holds several flushes.
func (s *space) memTableSize() uint64 {
	if s.size == 0 {
		return maxMemTable
	}
	return uint64(min(max(s.size/4, minMemTable), maxMemTable))
}

func (j *Journal) openEngine() (*pebble.DB, error) {
	var told atomic.Int64
	return pebble.Open(j.dir, &pebble.Options{
		FS:                 j.space,
		Lock:               j.lock,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             engineLogger{j.options.Log, func(err error) { _ = j.abandon(err) }},
		MemTableSize:       j.space.memTableSize(),
		EventListener: &pebble.EventListener{
			// The engine tries again at once and without end; a full disk is told by who sees it, see space.
			BackgroundError: func(err error) {
				now := j.options.Now().UnixNano()
				last := told.Load()
				if noRoom(err) || last != 0 && now-last < int64(quiet) || !told.CompareAndSwap(last, now) {
					return
				}
				j.options.Log.Error(err, "The journal's storage engine failed, and tries again")
			},
			// By default the engine ends the process. Who opens a journal takes care of damage, so it must not.
			DataCorruption: func(info pebble.DataCorruptionInfo) { _ = j.unlessDamaged(info.Details) },
		},
	})
}

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
