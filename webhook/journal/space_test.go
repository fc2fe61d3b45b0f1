package journal

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
)

const (
	testReserve = 4 << 20
	// patience is how long a test waits for what must come.
	patience = 20 * time.Second
)

// quota is a file system of limited size. Like a real one it writes what fits.
type quota struct {
	vfs.FS
	dir string

	mu    sync.Mutex
	limit int64
	// syncError is what the next sync of a log returns, and syncs counts those that come after it.
	syncError error
	syncs     int
}

type quotaFile struct {
	vfs.File
	quota  *quota
	name   string
	offset int64
}

func (q *quota) used() (used int64) {
	names, _ := q.FS.List(q.dir)
	for _, name := range names {
		if info, err := q.FS.Stat(q.FS.PathJoin(q.dir, name)); err == nil && !info.IsDir() {
			used += info.Size()
		}
	}
	return used
}

// fill leaves as much free space.
func (q *quota) fill(free int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = q.used() + free
}

func (q *quota) GetDiskUsage(string) (vfs.DiskUsage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: uint64(max(0, q.limit-q.used()))}, nil
}

func (q *quota) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &quotaFile{File: file, quota: q, name: name}, nil
}

func (q *quota) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := q.FS.Create(name, category)
	return q.wrap(name, file, err)
}

func (q *quota) ReuseForWrite(from, to string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := q.FS.ReuseForWrite(from, to, category)
	return q.wrap(to, file, err)
}

func (f *quotaFile) Write(p []byte) (int, error) {
	f.quota.mu.Lock()
	defer f.quota.mu.Unlock()
	info, err := f.File.Stat()
	if err != nil {
		return 0, err
	}
	fits := max(0, info.Size()-f.offset) + max(0, f.quota.limit-f.quota.used())
	var full error
	if int64(len(p)) > fits {
		p, full = p[:fits], &os.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
	}
	n, err := f.File.Write(p)
	f.offset += int64(n)
	return n, errors.Join(err, full)
}

func (f *quotaFile) SyncData() error {
	if strings.HasSuffix(f.name, logSuffix) {
		f.quota.mu.Lock()
		defer f.quota.mu.Unlock()
		f.quota.syncs++
		if err := f.quota.syncError; err != nil {
			f.quota.syncError, f.quota.syncs = nil, 0
			return err
		}
	}
	return f.File.SyncData()
}

func (f *quotaFile) Sync() error { return f.SyncData() }

// clock is a time that moves when it is told to.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_700_000_000, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// disk is a journal on a disk of limited size.
type disk struct {
	*quota
	clock clock
	fatal chan error
}

func newDisk() *disk {
	d := &disk{quota: &quota{FS: vfs.NewMem(), dir: "journal", limit: 64 << 20}, fatal: make(chan error, 1)}
	return d
}

func (d *disk) options() Options {
	return Options{
		FS: d.quota, MaxBytes: 1 << 30, ReserveBytes: testReserve, Log: logr.Discard(), Now: d.clock.now,
		Fatal: func(err error) { d.fatal <- err },
	}
}

func (d *disk) open(t *testing.T) *Journal {
	t.Helper()
	j, err := Open("journal", d.options())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// soon fails the test if what must return does not.
func soon(t *testing.T, what string, do func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(patience):
		t.Fatalf("%s: it hangs", what)
	}
}

func tell(j *Journal, id uint64, size int) error {
	_, err := j.Append("chat", change(id, noise(id, size)))
	return err
}

// noise returns text that does not compress.
func noise(seed uint64, size int) string {
	random := rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed)))
	text := make([]byte, size)
	_, _ = random.Read(text)
	return base64.StdEncoding.EncodeToString(text)[:size]
}

// untilThereIsRoom lets a second pass until the journal takes changes again.
func untilThereIsRoom(t *testing.T, j *Journal, advance func()) {
	t.Helper()
	for deadline := time.Now().Add(patience); j.Full(); {
		if time.Now().After(deadline) {
			t.Fatalf("there is no room after everything was applied; free are %d bytes", j.space.free())
		}
		advance()
		j.reclaim(0, true)
		j.reclaiming.done.Wait()
		j.space.making.Wait()
	}
}

func TestFullDiskRefusesChangesAndGoesOn(t *testing.T) {
	d := newDisk()
	j := d.open(t)
	defer closed(t, j)
	if j.Full() || !j.space.isHeld() {
		t.Fatal("no reserve on an empty disk")
	}
	soon(t, "append", func() error { return tell(j, 1, 1000) })

	// Somebody else takes all that is left, before anybody looks.
	d.fill(0)
	soon(t, "append what the reserve is for", func() error { return tell(j, 2, 1000) })
	if j.space.isHeld() || !j.Full() {
		t.Errorf("on the full disk the reserve is held: %v, and the journal full: %v", j.space.isHeld(), j.Full())
	}
	if err := tell(j, 3, 1000); !errors.Is(err, ErrFull) {
		t.Errorf("on the full disk Append returns %v", err)
	}
	soon(t, "remove", func() error { return j.Remove([]uint64{1}) })
	if diff := cmp.Diff([]uint64{2}, ids(waiting(t, j))); diff != "" {
		t.Error(diff)
	}

	d.fill(2 * testReserve)
	if err := tell(j, 4, 1000); !errors.Is(err, ErrFull) {
		t.Errorf("a second has not passed, and Append returns %v", err)
	}
	untilThereIsRoom(t, j, func() { d.clock.advance(samplePeriod) })
	if !j.space.isHeld() {
		t.Error("changes are taken without a reserve")
	}
	soon(t, "append when there is room", func() error { return tell(j, 5, 1000) })
	if err := j.Err(); err != nil {
		t.Error(err)
	}
}

func TestLittleFreeSpaceRefusesChangesBeforeTheDiskIsFull(t *testing.T) {
	d := newDisk()
	j := d.open(t)
	defer closed(t, j)
	d.fill(testReserve/2 - 1)
	d.clock.advance(samplePeriod)
	if err := tell(j, 1, 1000); !errors.Is(err, ErrFull) {
		t.Errorf("with less than the margin Append returns %v", err)
	}
	if !j.space.isHeld() {
		t.Error("the reserve was let go although no write failed")
	}
	d.fill(2 * testReserve)
	d.clock.advance(samplePeriod)
	soon(t, "append when there is room", func() error { return tell(j, 2, 1000) })

	// Much that is written in no time is seen too.
	id := uint64(3)
	for d.fill(2 * testReserve); ; id++ {
		if err := tell(j, id, 100_000); errors.Is(err, ErrFull) {
			break
		} else if err != nil || id > 100 {
			t.Fatalf("append %d: %v", id, err)
		}
	}
	if !j.space.isHeld() {
		t.Error("the journal used its reserve up by itself")
	}
}

// What else is on the disk may take the reserve as well. Then writes wait, and the process goes on.
func TestWriteWithoutRoomAndReserveWaits(t *testing.T) {
	d := newDisk()
	j := d.open(t)
	defer closed(t, j)
	d.fill(0)
	soon(t, "append", func() error { return tell(j, 1, 1000) })
	d.fill(0)
	saved := make(chan error, 1)
	go func() { saved <- j.SaveSnapshot([]byte(noise(1, 100_000))) }()
	select {
	case err := <-saved:
		t.Fatalf("a write without room returned %v", err)
	case err := <-d.fatal:
		t.Fatalf("a full disk ends the process: %v", err)
	case <-time.After(4 * roomPeriod):
	}
	if err := tell(j, 2, 1000); !errors.Is(err, ErrFull) {
		t.Errorf("meanwhile Append returns %v", err)
	}
	d.fill(1 << 20)
	soon(t, "the write when there is room", func() error { return <-saved })
	if snapshot, err := j.Snapshot(); err != nil || len(snapshot) != 100_000 {
		t.Errorf("the snapshot has %d bytes, error %v", len(snapshot), err)
	}
}

// Without a reserve nothing can be let go, but a process that has the journal open goes on as well.
func TestFullDiskWithoutReserveWaitsForRoom(t *testing.T) {
	d := newDisk()
	options := d.options()
	options.ReserveBytes = 0
	j, err := Open("journal", options)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, j)
	d.fill(0)
	told := make(chan error, 1)
	go func() { told <- tell(j, 1, 1000) }()
	for deadline := time.Now().Add(patience); !j.Full(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("nobody sees that the disk is full")
		}
	}
	if err := tell(j, 2, 1000); !errors.Is(err, ErrFull) {
		t.Errorf("Append returns %v", err)
	}
	d.fill(2 * maxMemTable)
	soon(t, "the append that waited", func() error { return <-told })
	d.clock.advance(samplePeriod)
	soon(t, "append when there is room", func() error { return tell(j, 3, 1000) })
}

func TestFullDiskIsOpenedAndDrained(t *testing.T) {
	d := newDisk()
	j := d.open(t)
	var told []uint64
	for id := range uint64(80) {
		soon(t, "append", func() error { return tell(j, id, 100_000) })
		told = append(told, id)
	}
	closed(t, j)

	d.fill(0)
	soon(t, "open", func() (err error) { j, err = Open("journal", d.options()); return err })
	defer func() { closed(t, j) }()
	// The engine has removed what it had read.
	d.fill(0)
	d.clock.advance(samplePeriod)
	if !j.Full() {
		t.Error("the journal is not full on a full disk")
	}
	entries := waiting(t, j)
	if diff := cmp.Diff(told, ids(entries)); diff != "" {
		t.Fatal(diff)
	}
	// As the applier does: bit by bit.
	for _, entry := range entries {
		d.clock.advance(samplePeriod / 4)
		soon(t, "remove", func() error { return j.Remove([]uint64{entry.Sequence}) })
	}
	untilThereIsRoom(t, j, func() { d.clock.advance(samplePeriod) })
	soon(t, "append when drained", func() error { return tell(j, 99, 1000) })
	select {
	case err := <-d.fatal:
		t.Error(err)
	default:
	}
}

func TestFullDiskWithoutReserveIsNotOpenedAndSaysSo(t *testing.T) {
	d := newDisk()
	options := d.options()
	options.ReserveBytes = 0
	j, err := Open("journal", options)
	if err != nil {
		t.Fatal(err)
	}
	soon(t, "append", func() error { return tell(j, 1, 1000) })
	closed(t, j)
	d.fill(0)
	opened := make(chan error, 1)
	go func() { _, err := Open("journal", options); opened <- err }()
	select {
	case err := <-opened:
		if _, broken := errors.AsType[*BrokenError](err); !broken || !strings.Contains(err.Error(), "make some room") {
			t.Errorf("error is %v", err)
		}
	case <-time.After(patience):
		t.Error("it hangs")
	}
}

// What a failed sync was to write is gone, whatever the next one says. That the disk is full is no exception.
func TestFailedSyncForWantOfSpaceIsFinal(t *testing.T) {
	d := newDisk()
	j := d.open(t)
	soon(t, "append", func() error { return tell(j, 1, 1000) })
	d.mu.Lock()
	d.syncError = &os.PathError{Op: "fdatasync", Path: "log", Err: syscall.ENOSPC}
	d.mu.Unlock()
	result := make(chan error, 1)
	go func() { result <- tell(j, 2, 1000) }()
	select {
	case err := <-result:
		if err == nil {
			t.Error("a change is acknowledged whose sync failed")
		}
	case err := <-d.fatal:
		t.Logf("the engine ends: %v", err)
	case <-time.After(patience):
		t.Fatal("nobody is told")
	}
	soon(t, "append after the failure", func() error {
		if err := tell(j, 3, 1000); !errors.As(err, new(*BrokenError)) {
			return fmt.Errorf("it returns %w", err)
		}
		return nil
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.syncs != 0 {
		t.Errorf("the log was synced %d times after a failure", d.syncs)
	}
}

func TestReserveOfAnotherSizeIsReplaced(t *testing.T) {
	d := newDisk()
	size := func() int64 {
		info, err := d.FS.Stat("journal/" + reserveFile)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for _, tc := range []struct {
		name     string
		reserve  int64
		existing bool
		want     int64
	}{
		{"made", 2 << 20, false, 2 << 20},
		{"larger", 3 << 20, false, 3 << 20},
		{"kept by who only looks", 0, true, 3 << 20},
		{"none", 0, false, 0},
		{"none for who only looks", 1 << 20, true, 0},
	} {
		options := d.options()
		options.ReserveBytes, options.ReadExisting = tc.reserve, tc.existing
		j, err := Open("journal", options)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		closed(t, j)
		if got := size(); got != tc.want {
			t.Errorf("%s: the reserve has %d bytes, want %d", tc.name, got, tc.want)
		}
	}
}

// The same on a real file system, whose kernel decides what fits.
func TestFullFileSystem(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("a file system of a few MB is needed, and mounting one is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	var clock clock
	dir := filepath.Join(mount, "journal")
	fatal := make(chan error, 1)
	options := Options{
		MaxBytes: 1 << 30, ReserveBytes: testReserve, Log: logr.Discard(), Now: clock.now, Fatal: func(err error) { fatal <- err },
	}
	j, err := Open(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	var told []uint64
	fill := func() {
		for id := uint64(len(told)); ; id++ {
			clock.advance(samplePeriod / 10)
			if err := tell(j, id, 50_000); errors.Is(err, ErrFull) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			told = append(told, id)
		}
	}
	soon(t, "append until the disk is full", func() error { fill(); return nil })
	if len(told) < 100 {
		t.Errorf("only %d entries of 50 kB fit into 32 MB", len(told))
	}
	hog := filepath.Join(mount, "hog")
	if err := takeAll(hog); err != nil {
		t.Fatal(err)
	}
	// The journal must still write, for instance snapshots.
	for n := uint64(0); n < 100 && j.space.isHeld(); n++ {
		soon(t, "write on the full disk", func() error { return j.SaveSnapshot([]byte(noise(n, 100_000))) })
	}
	if j.space.isHeld() || !j.Full() {
		t.Errorf("on the full disk the reserve is held: %v, and the journal full: %v", j.space.isHeld(), j.Full())
	}
	closed(t, j)

	if err := takeAll(hog + "2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(hog, 0); err != nil {
		t.Fatal(err)
	}
	soon(t, "open", func() (err error) { j, err = Open(dir, options); return err })
	defer func() { closed(t, j) }()
	entries := waiting(t, j)
	if diff := cmp.Diff(told, ids(entries)); diff != "" {
		t.Fatal(diff)
	}
	for _, entry := range entries {
		clock.advance(samplePeriod / 4)
		soon(t, "remove", func() error { return j.Remove([]uint64{entry.Sequence}) })
	}
	if err := os.Remove(hog + "2"); err != nil {
		t.Fatal(err)
	}
	untilThereIsRoom(t, j, func() { clock.advance(samplePeriod) })
	soon(t, "append when there is room", func() error { return tell(j, 1, 1000) })
	select {
	case err := <-fatal:
		t.Error(err)
	default:
	}
	t.Logf("%d entries of 50 kB fitted", len(told))
}

// takeAll writes a file until the disk is full.
func takeAll(path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err := file.Write(chunk); noRoom(err) {
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			return err
		}
	}
	return nil
}
