package journal

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
)

// DefaultReserveBytes is room for several flushes of the engine, whatever else fills the disk.
const DefaultReserveBytes = 64 << 20

const (
	// reserveFile holds the reserve. It is of no other use, and may be removed by hand when nothing else helps.
	reserveFile = "reserve"
	// samplePeriod is how long a look at the free space is believed.
	samplePeriod = time.Second
	// roomPeriod is how long a write that found no room waits before it looks again.
	roomPeriod = 250 * time.Millisecond
)

// space is the file system under the engine. It keeps room for what the engine must write although the disk is full: to
// flush, to delete and to compact, and so to give space back. The room is a file, the reserve; it is let go when a write
// finds no space, and made again when there is enough.
//
// A write that failed for want of space wrote nothing, so it may be tried again, and is. A failed sync never is: what it
// could not write is gone, and the next sync does not say so.
//
// vfs.OnDiskFull does nearly this. But it gives up after one retry, which ends the process when something else on the disk
// took the reserve as soon as it was let go, and it holds back the deletions that would make room.
type space struct {
	vfs.FS
	dir, path string
	// size is the size of the reserve, and margin the least free space with which changes are taken.
	size, margin int64
	now          func() time.Time
	log          logr.Logger
	// exhausted is told when there is no room and no reserve while the journal is opened.
	exhausted func(error)
	closed    chan struct{}
	making    sync.WaitGroup

	mu sync.Mutex
	// held: the reserve is on the disk.
	held bool
	// full: no changes are taken.
	full bool
	// opened: writes wait for room, instead of failing.
	opened bool
	// busy: the reserve is being made.
	busy bool
	// checked is when the free space was looked at last, and grown what was appended since.
	checked time.Time
	grown   int64
}

func newSpace(fs vfs.FS, dir string, size int64, now func() time.Time, log logr.Logger) *space {
	return &space{
		FS: fs, dir: dir, path: fs.PathJoin(dir, reserveFile), size: size, margin: size / 2,
		now: now, log: log, closed: make(chan struct{}),
	}
}

// Unwrap returns the file system below.
func (s *space) Unwrap() vfs.FS { return s.FS }

// prepare makes room for opening the engine, which has to write before it can delete. With keep, the reserve stays of the
// size that it has.
func (s *space) prepare(keep bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := s.FS.Stat(s.path)
	switch {
	case errors.Is(err, errNotExist):
		if keep {
			s.size, s.margin = 0, 0
		}
		return nil
	case err != nil:
		return err
	case keep:
		s.size, s.margin = info.Size(), info.Size()/2
	}
	s.held = true
	if info.Size() != s.size || s.free() < s.margin {
		s.letGo()
	}
	return nil
}

// settle makes the reserve, if there is room, and from then on writes wait for room.
func (s *space) settle() {
	s.mu.Lock()
	s.opened = true
	wanted := s.size > 0 && !s.held && s.free() >= s.size+s.margin
	s.mu.Unlock()
	if wanted {
		s.make()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size > 0 && !s.held {
		s.refuse()
	} else {
		s.sample()
	}
}

// isFull says whether the disk is too full to take changes, of which as many bytes are about to come.
func (s *space) isFull(grown int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grown += grown
	if (s.size > 0 || s.full) && (s.grown > s.margin/4 || s.now().Sub(s.checked) >= samplePeriod) {
		s.sample()
	}
	return s.full
}

// sample looks at the free space.
func (s *space) sample() {
	s.checked, s.grown = s.now(), 0
	free := s.free()
	switch {
	case s.size == 0:
		// A write found no room, and there is no reserve to tell when there is some.
		if free >= maxMemTable {
			s.accept()
		}
	case s.held && free < s.margin:
		s.refuse()
	case s.held && s.full && free >= 2*s.margin:
		s.accept()
	case !s.held && !s.busy && free >= s.size+2*s.margin:
		// It takes a while, and whoever asks may be a callback.
		s.busy = true
		s.making.Go(s.make)
	}
}

func (s *space) refuse() {
	if !s.full {
		s.full = true
		s.log.Info("The disk of the journal is full: replies wait for the API server until there is room",
			"freeBytes", s.free(), "reserveBytes", s.size, "reserveHeld", s.held)
	}
}

func (s *space) accept() {
	if s.full {
		s.full = false
		s.log.Info("The disk of the journal has room again", "freeBytes", s.free())
	}
}

// free returns the free space, or a lot where the file system does not tell.
func (s *space) free() int64 {
	usage, err := s.FS.GetDiskUsage(s.dir)
	if err != nil || usage.AvailBytes > math.MaxInt64/2 {
		return math.MaxInt64 / 2
	}
	return int64(usage.AvailBytes)
}

// letGo gives the reserve up.
func (s *space) letGo() {
	if err := s.FS.Remove(s.path); err != nil && !errors.Is(err, errNotExist) {
		s.log.Error(err, "The journal's reserve cannot be removed")
	}
	s.held = false
}

// make puts the reserve on the disk.
func (s *space) make() {
	err := s.fill()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if err == nil {
		s.held = true
		s.accept()
		return
	}
	_ = s.FS.Remove(s.path)
	if !noRoom(err) {
		s.log.Error(err, "The journal's reserve cannot be made")
	}
}

// fill writes a file that takes up its size on the disk, also where the file system leaves out or compresses what is empty.
func (s *space) fill() (err error) {
	file, err := s.FS.Create(s.path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var seed [32]byte
	noise := rand.NewChaCha8(seed)
	chunk := make([]byte, 1<<20)
	for left := s.size; left > 0; left -= int64(len(chunk)) {
		chunk = chunk[:min(left, int64(len(chunk)))]
		_, _ = noise.Read(chunk)
		if _, err := file.Write(chunk); err != nil {
			return err
		}
	}
	return file.Sync()
}

// close lets nobody wait any longer.
func (s *space) close() {
	close(s.closed)
	s.making.Wait()
}

// relieve makes room for a write that found none, or waits for some. It returns false if the write should fail.
func (s *space) relieve(err error, patient bool) bool {
	s.mu.Lock()
	if s.held {
		s.letGo()
		s.refuse()
		s.mu.Unlock()
		return true
	}
	s.refuse()
	opened := s.opened
	s.mu.Unlock()
	if !opened {
		s.exhausted(err)
		return false
	}
	timer := time.NewTimer(roomPeriod)
	defer timer.Stop()
	select {
	case <-s.closed:
		return false
	case <-timer.C:
		return patient
	}
}

// retry does what may find no room.
func (s *space) retry(name string, operation func() error) error {
	// What a flush or compaction has written so far is in the way of its own success: it fails, and is started again.
	patient := !strings.HasSuffix(name, ".sst")
	for {
		err := operation()
		if !noRoom(err) || !s.relieve(err, patient) {
			return err
		}
	}
}

// wrap returns the file with writes that wait for room.
func (s *space) wrap(name string, open func() (vfs.File, error)) (file vfs.File, err error) {
	err = s.retry(name, func() error { file, err = open(); return err })
	if err != nil {
		return nil, err
	}
	return &spaceFile{File: file, space: s, name: name}, nil
}

// Create implements vfs.FS.
func (s *space) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.wrap(name, func() (vfs.File, error) { return s.FS.Create(name, category) })
}

// OpenReadWrite implements vfs.FS.
func (s *space) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return s.wrap(name, func() (vfs.File, error) { return s.FS.OpenReadWrite(name, category, options...) })
}

// ReuseForWrite implements vfs.FS.
func (s *space) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.wrap(to, func() (vfs.File, error) { return s.FS.ReuseForWrite(from, to, category) })
}

// Link implements vfs.FS.
func (s *space) Link(from, to string) error {
	return s.retry(to, func() error { return s.FS.Link(from, to) })
}

// Rename implements vfs.FS.
func (s *space) Rename(from, to string) error {
	return s.retry(to, func() error { return s.FS.Rename(from, to) })
}

// Lock implements vfs.FS.
func (s *space) Lock(name string) (closer io.Closer, err error) {
	err = s.retry(name, func() error { closer, err = s.FS.Lock(name); return err })
	return closer, err
}

// spaceFile is a file that is written. Its Sync is the one below: see space.
type spaceFile struct {
	vfs.File
	space *space
	name  string
}

// Write implements io.Writer.
func (f *spaceFile) Write(p []byte) (written int, err error) {
	err = f.space.retry(f.name, func() error {
		n, err := f.File.Write(p[written:])
		written += n
		return err
	})
	return written, err
}

// WriteAt implements io.WriterAt.
func (f *spaceFile) WriteAt(p []byte, offset int64) (written int, err error) {
	err = f.space.retry(f.name, func() error {
		n, err := f.File.WriteAt(p[written:], offset+int64(written))
		written += n
		return err
	})
	return written, err
}

func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// isHeld says whether the reserve is on the disk.
func (s *space) isHeld() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}
