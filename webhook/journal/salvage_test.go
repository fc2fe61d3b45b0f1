package journal

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

func openAgain(fs vfs.FS) (*Journal, error) {
	return Open("journal", Options{
		FS: fs, MaxBytes: 1 << 30, Log: logr.Discard(), Fatal: func(err error) { panic(err) },
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) },
	})
}

func list(t *testing.T, fs vfs.FS, dir, suffix string) (names []string) {
	t.Helper()
	all, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	for _, name := range all {
		if strings.Contains(name, suffix) {
			names = append(names, name)
		}
	}
	return names
}

func read(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	data, err := readFile(fs, "journal/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	file, err := fs.Create("journal/"+name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// tearable is a journal as a crash leaves it, and where in its log each acknowledged entry ends.
func tearable(t *testing.T, entries int) (fs *vfs.MemFS, log string, ends []int) {
	t.Helper()
	fs = vfs.NewCrashableMem()
	j := open(t, fs, 1<<30)
	log = slices.Max(list(t, fs, "journal", logSuffix))
	for id := range uint64(entries) {
		if err := tell(j, id, 10+int(id*id*7919)%5000); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, len(read(t, fs, log)))
	}
	// A record over several blocks.
	if err := tell(j, uint64(entries), 100_000); err != nil {
		t.Fatal(err)
	}
	ends = append(ends, len(read(t, fs, log)))
	clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	closed(t, j)
	return clone, log, ends
}

// A crash leaves the log torn at any point after what was synced, with whatever in its place. Nobody is alarmed, and what
// was acknowledged before is there.
func TestTornTailIsCutOff(t *testing.T) {
	original, log, ends := tearable(t, 40)
	whole := read(t, original, log)
	points := 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 2))
		fs := original.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: random})
		// After what was synced of the entry before: the last entry was on its way.
		last := random.IntN(len(ends))
		at := random.IntN(ends[0])
		if last > 0 {
			at = ends[last-1] + random.IntN(ends[last]-ends[last-1])
		}
		torn := slices.Clone(whole[:at])
		switch random.IntN(4) {
		case 0:
		case 1:
			torn = append(torn, make([]byte, random.IntN(70_000))...)
		case 2:
			garbage := make([]byte, random.IntN(70_000))
			for i := range garbage {
				garbage[i] = byte(random.Uint32())
			}
			torn = append(torn, garbage...)
		case 3:
			// A block of the disk that came out of order.
			hole := random.IntN(ends[last]-at) + 1
			torn = append(append(torn, make([]byte, hole)...), whole[at+hole:ends[last]]...)
		}
		write(t, fs, log, torn)
		j, err := openAgain(fs)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		found := ids(waiting(t, j))
		for id := range last {
			if !slices.Contains(found, uint64(id)) {
				t.Fatalf("seed %d: entry %d was acknowledged and is lost", seed, id)
			}
		}
		if len(found) > last+1 {
			t.Fatalf("seed %d: cut after %d entries, found %d", seed, last, len(found))
		}
		if n := j.Quarantined(); n > 0 {
			t.Fatalf("seed %d: a torn tail is taken for damage", seed)
		}
		if err := tell(j, 1000, 10); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		closed(t, j)
		points++
	}
	if points < 300 {
		t.Errorf("only %d points", points)
	}
}

// damageable is a journal with everything in it: entries in tables and in the log, removed ones, dead letters, a snapshot.
type damageable struct {
	fs            *vfs.MemFS
	waiting, dead []uint64
	replica       uint64
	clock         stamp.HLC
}

func newDamageable(t *testing.T) damageable {
	t.Helper()
	d := damageable{fs: vfs.NewCrashableMem()}
	j, err := openAgain(d.fs)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.SaveSnapshot([]byte("snapshot")), j.SaveOffset(time.Minute)); err != nil {
		t.Fatal(err)
	}
	add := func(from, to uint64) {
		for id := from; id < to; id++ {
			// Only noise fills blocks and tables; every block of a table has one or two entries.
			if err := tell(j, id, 2500+int(id%10)*400); err != nil {
				t.Fatal(err)
			}
		}
	}
	sort := func(from, to uint64) {
		for _, entry := range waiting(t, j) {
			id := uint64(entry.Change.Stamp.HLC)
			switch {
			case id < from || id >= to:
			case id%5 == 1:
				err = j.Remove([]uint64{entry.Sequence})
			case id%5 == 2:
				d.dead = append(d.dead, id)
				err = j.Bury([]uint64{entry.Sequence})
			default:
				d.waiting = append(d.waiting, id)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	add(0, 40)
	sort(0, 25)
	if err := j.db.Flush(); err != nil {
		t.Fatal(err)
	}
	add(40, 75)
	sort(25, 75)
	if err := j.SaveSnapshot([]byte("snapshot")); err != nil {
		t.Fatal(err)
	}
	d.replica, d.clock = j.Identity(), j.HighestTime()
	for deadline := time.Now().Add(patience); ; {
		if m := j.db.Metrics(); m.Compact.NumInProgress == 0 && m.Flush.NumInProgress == 0 && m.MemTable.Count == 1 {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the engine does not come to rest")
		}
		runtime.Gosched()
	}
	live := map[string]bool{}
	levels, err := j.db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range slices.Concat(levels...) {
		live[fmt.Sprintf("%06d%s", table.BackingSSTNum, tableSuffix)] = true
	}
	clone := d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	closed(t, j)
	d.fs = clone
	// Those that the engine was about to delete are of no use to the tests.
	for _, name := range list(t, d.fs, "journal", tableSuffix) {
		if !live[name] {
			if err := d.fs.Remove("journal/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(list(t, d.fs, "journal", tableSuffix)) < 1 || len(list(t, d.fs, "journal", logSuffix)) < 1 {
		t.Fatal("the journal has not both a table and a log")
	}
	return d
}

func (d damageable) clone(random *rand.Rand) *vfs.MemFS {
	return d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: random})
}

func deadIDs(t *testing.T, j *Journal) []uint64 {
	t.Helper()
	var dead []Entry
	if err := j.Dead(func(e Entry, err error) error { dead = append(dead, e); return err }); err != nil {
		t.Fatal(err)
	}
	return ids(dead)
}

func missing(want, got []uint64) (lost []uint64) {
	for _, id := range want {
		if !slices.Contains(got, id) {
			lost = append(lost, id)
		}
	}
	return lost
}

// Whatever is damaged, the journal opens, with everything that the damage did not hit.
func TestDamageIsQuarantinedAndTheRestTakenOver(t *testing.T) {
	d := newDamageable(t)
	flip := func(random *rand.Rand, data []byte, from, to int) []byte {
		data = slices.Clone(data)
		data[from+random.IntN(to-from)] ^= 1 << random.IntN(8)
		return data
	}
	pick := func(random *rand.Rand, fs vfs.FS, suffix string) string {
		names := list(t, fs, "journal", suffix)
		return names[random.IntN(len(names))]
	}
	for name, tc := range map[string]struct {
		damage func(random *rand.Rand, fs *vfs.MemFS)
		// lost is how many entries may be lost, waiting and dead ones together; noticed: it cannot go unnoticed.
		lost    int
		noticed bool
		rounds  int
	}{
		"a bit of the log": {func(random *rand.Rand, fs *vfs.MemFS) {
			log := slices.Max(list(t, fs, "journal", logSuffix))
			data := read(t, fs, log)
			write(t, fs, log, flip(random, data, 0, len(data)))
		}, 1, false, 60},
		"16 kB of the log": {func(random *rand.Rand, fs *vfs.MemFS) {
			log := slices.Max(list(t, fs, "journal", logSuffix))
			data := read(t, fs, log)
			at := random.IntN(len(data) - 16<<10)
			clear(data[at : at+16<<10])
			write(t, fs, log, data)
		}, 8, false, 30},
		"a bit of the data in a table": {func(random *rand.Rand, fs *vfs.MemFS) {
			table := pick(random, fs, tableSuffix)
			data := read(t, fs, table)
			write(t, fs, table, flip(random, data, 0, len(data)-6000))
		}, 2, true, 25},
		"a bit at the end of a table": {func(random *rand.Rand, fs *vfs.MemFS) {
			table := pick(random, fs, tableSuffix)
			data := read(t, fs, table)
			write(t, fs, table, flip(random, data, len(data)-100, len(data)))
		}, 60, false, 15},
		"the end of a table": {func(random *rand.Rand, fs *vfs.MemFS) {
			table := pick(random, fs, tableSuffix)
			data := read(t, fs, table)
			write(t, fs, table, data[:random.IntN(len(data))])
		}, 60, true, 10},
		"a table": {func(random *rand.Rand, fs *vfs.MemFS) {
			if err := fs.Remove("journal/" + pick(random, fs, tableSuffix)); err != nil {
				t.Fatal(err)
			}
		}, 60, true, 4},
		"the manifest": {func(random *rand.Rand, fs *vfs.MemFS) {
			for _, name := range list(t, fs, "journal", "MANIFEST-") {
				if !strings.HasPrefix(name, manifestMarker) {
					if err := fs.Remove("journal/" + name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, 0, true, 2},
		"a bit of the manifest": {func(random *rand.Rand, fs *vfs.MemFS) {
			name := strings.SplitN(slices.Max(list(t, fs, "journal", manifestMarker)), ".", 4)[3]
			data := read(t, fs, name)
			write(t, fs, name, flip(random, data, 0, len(data)))
		}, 0, true, 25},
		"the end of the manifest": {func(random *rand.Rand, fs *vfs.MemFS) {
			name := strings.SplitN(slices.Max(list(t, fs, "journal", manifestMarker)), ".", 4)[3]
			data := read(t, fs, name)
			write(t, fs, name, data[:len(data)-1-random.IntN(4)])
		}, 0, true, 5},
		"the manifest's marker": {func(random *rand.Rand, fs *vfs.MemFS) {
			for _, name := range list(t, fs, "journal", manifestMarker) {
				if err := fs.Remove("journal/" + name); err != nil {
					t.Fatal(err)
				}
			}
		}, 0, true, 2},
		"the format's marker": {func(random *rand.Rand, fs *vfs.MemFS) {
			for _, name := range list(t, fs, "journal", formatMarker) {
				if err := fs.Remove("journal/" + name); err != nil {
					t.Fatal(err)
				}
			}
		}, 0, true, 2},
		"the options": {func(random *rand.Rand, fs *vfs.MemFS) {
			for _, name := range list(t, fs, "journal", "OPTIONS-") {
				if err := fs.Remove("journal/" + name); err != nil {
					t.Fatal(err)
				}
			}
		}, 0, false, 2},
		"what the options say": {func(random *rand.Rand, fs *vfs.MemFS) {
			for _, name := range list(t, fs, "journal", "OPTIONS-") {
				write(t, fs, name, []byte(strings.ReplaceAll(string(read(t, fs, name)), "comparer=", "comparer=x")))
			}
		}, 0, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			quarantined := 0
			for seed := range uint64(tc.rounds) {
				random := rand.New(rand.NewPCG(seed, 3))
				fs := d.clone(random)
				tc.damage(random, fs)
				j, err := openAgain(fs)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				found, dead := ids(waiting(t, j)), deadIDs(t, j)
				lost := append(missing(d.waiting, append(found, dead...)), missing(d.dead, append(dead, found...))...)
				if len(lost) > tc.lost {
					t.Fatalf("seed %d: %v are lost", seed, lost)
				}
				// A dead letter that waits again is tried again, which harms nobody; but only what damage hit may change sides.
				if revived := missing(d.dead, dead); len(revived) > tc.lost {
					t.Fatalf("seed %d: the dead letters %v wait", seed, revived)
				}
				if buried := missing(d.waiting, found); len(buried) > tc.lost {
					t.Fatalf("seed %d: the waiting entries %v do not wait", seed, buried)
				}
				snapshot, err := j.Snapshot()
				offset, offsetErr := j.Offset()
				if err := errors.Join(err, offsetErr); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if tc.lost == 0 && (string(snapshot) != "snapshot" || offset != time.Minute) {
					t.Fatalf("seed %d: the snapshot is %q, the offset %v", seed, snapshot, offset)
				}
				switch n := j.Quarantined(); {
				case n == 1:
					quarantined++
					if j.Identity() == d.replica {
						t.Fatalf("seed %d: the identity of a damaged journal is used again", seed)
					}
				case n > 1 || tc.noticed || len(lost) > 0 && tc.lost > 1:
					t.Fatalf("seed %d: %d directories are in quarantine, %d entries are lost", seed, n, len(lost))
				}
				if got := j.HighestTime(); got < d.clock && tc.lost == 0 {
					t.Fatalf("seed %d: the highest time went back from %d to %d", seed, d.clock, got)
				}
				if err := tell(j, 1000, 10); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				n, tallies := j.Quarantined(), j.Tallies()
				closed(t, j)
				// Once is enough.
				if j, err = openAgain(fs); err != nil {
					t.Fatalf("seed %d: open again: %v", seed, err)
				}
				if j.Quarantined() != n {
					t.Fatalf("seed %d: what was salvaged is damaged", seed)
				}
				if diff := gocmp.Diff(tallies, j.Tallies()); diff != "" {
					t.Fatalf("seed %d: (-before +after a restart)\n%s", seed, diff)
				}
				closed(t, j)
			}
			t.Logf("%d of %d were quarantined", quarantined, tc.rounds)
		})
	}
}

// crashingFS takes a picture of the disk as a crash would leave it, before the operation of a given number.
type crashingFS struct {
	vfs.FS
	mem    *vfs.MemFS
	random *rand.Rand

	mu      sync.Mutex
	count   int
	crashAt int
	crashed *vfs.MemFS
}

type crashingFile struct {
	vfs.File
	fs *crashingFS
}

func (c *crashingFS) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count++; c.count == c.crashAt {
		c.crashed = c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.random.IntN(101), RNG: c.random})
	}
}

func (c *crashingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	c.step()
	file, err := c.FS.Create(name, category)
	return crashingFile{file, c}, err
}

func (c *crashingFS) Rename(from, to string) error { c.step(); return c.FS.Rename(from, to) }
func (c *crashingFS) Remove(name string) error     { c.step(); return c.FS.Remove(name) }
func (c *crashingFS) OpenDir(name string) (vfs.File, error) {
	file, err := c.FS.OpenDir(name)
	return crashingFile{file, c}, err
}
func (f crashingFile) Write(p []byte) (int, error) { f.fs.step(); return f.File.Write(p) }
func (f crashingFile) Sync() error                 { f.fs.step(); return f.File.Sync() }
func (f crashingFile) SyncData() error             { f.fs.step(); return f.File.SyncData() }

// A crash while a damaged journal is put aside and taken over loses nothing either, whenever it comes.
func TestCrashDuringSalvage(t *testing.T) {
	d := newDamageable(t)
	crashes := 0
	for crashAt := 1; ; crashAt++ {
		random := rand.New(rand.NewPCG(uint64(crashAt), 4))
		mem := d.clone(random)
		for _, name := range list(t, mem, "journal", manifestMarker) {
			if err := mem.Remove("journal/" + name); err != nil {
				t.Fatal(err)
			}
		}
		dir, err := mem.OpenDir("journal")
		if err := errors.Join(err, dir.Sync(), dir.Close()); err != nil {
			t.Fatal(err)
		}
		crashing := &crashingFS{FS: mem, mem: mem, random: random, crashAt: crashAt}
		j, err := openAgain(crashing)
		if err != nil {
			t.Fatal(err)
		}
		crashing.mu.Lock()
		crashed := crashing.crashed
		crashing.mu.Unlock()
		closed(t, j)
		if crashed == nil {
			break
		}
		crashes++
		j, err = openAgain(crashed)
		if err != nil {
			t.Fatalf("crash %d: %v", crashAt, err)
		}
		found, dead := ids(waiting(t, j)), deadIDs(t, j)
		if lost := append(missing(d.waiting, found), missing(d.dead, append(dead, found...))...); len(lost) > 0 {
			t.Fatalf("crash %d: %v are lost", crashAt, lost)
		}
		if n := j.Quarantined(); n < 1 {
			t.Fatalf("crash %d: nothing is in quarantine", crashAt)
		}
		if unread := list(t, crashed, "journal", unreadSuffix); len(unread) > 0 {
			t.Fatalf("crash %d: %v are not taken over", crashAt, unread)
		}
		if got := j.HighestTime(); got < d.clock {
			t.Fatalf("crash %d: the highest time went back from %d to %d", crashAt, d.clock, got)
		}
		closed(t, j)
	}
	if crashes < 50 {
		t.Errorf("%d crashes prove too little", crashes)
	}
	t.Logf("%d crashes", crashes)
}

func TestWhatIsNotDamageIsNotQuarantined(t *testing.T) {
	d := newDamageable(t)
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, fs *vfs.MemFS)
		want    string
	}{
		"another format": {func(t *testing.T, fs *vfs.MemFS) {
			t.Helper()
			j, err := openAgain(fs)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.db.Set(formatKey, encodeNumber(2), pebble.Sync); err != nil {
				t.Fatal(err)
			}
			closed(t, j)
		}, "run the version that wrote it"},
		"another format, and damaged": {func(t *testing.T, fs *vfs.MemFS) {
			t.Helper()
			j, err := openAgain(fs)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.db.Set(formatKey, encodeNumber(2), pebble.Sync); err != nil {
				t.Fatal(err)
			}
			closed(t, j)
			for _, name := range list(t, fs, "journal", manifestMarker) {
				if err := fs.Remove("journal/" + name); err != nil {
					t.Fatal(err)
				}
			}
		}, "run the version that wrote it"},
		"a later engine": {func(t *testing.T, fs *vfs.MemFS) {
			t.Helper()
			write(t, fs, fmt.Sprintf("%s999999.%03d", formatMarker, pebble.FormatNewest+1), nil)
		}, "run the version that wrote it"},
		"open elsewhere": {func(t *testing.T, fs *vfs.MemFS) {
			t.Helper()
			lock, err := pebble.LockDirectory("journal", fs)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := lock.Close(); err != nil {
					t.Error(err)
				}
			})
		}, "unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := d.clone(rand.New(rand.NewPCG(1, 1)))
			tc.prepare(t, fs)
			if j, err := openAgain(fs); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the journal is %v, the error %v", j, err)
			}
			if found := list(t, fs, "journal", quarantinePrefix); len(found) > 0 {
				t.Errorf("%v were made", found)
			}
			// The engine may have gone on with its log.
			for _, kind := range []string{logSuffix, "OPTIONS-", "LOCK"} {
				if len(list(t, fs, "journal", kind)) == 0 {
					t.Errorf("the files %s are gone", kind)
				}
			}
		})
	}
}

// What a running journal finds damaged ends the process, and the next start takes the rest over.
func TestDamageFoundLaterEndsTheProcess(t *testing.T) {
	for name, find := range map[string]func(*Journal) error{
		"by Load": func(j *Journal) error {
			for sequence := range uint64(100) {
				if _, _, err := j.Load(sequence); err != nil {
					return err
				}
			}
			return nil
		},
		"by Waiting": func(j *Journal) error { return j.Waiting(func(Entry) error { return nil }) },
		"by a compaction": func(j *Journal) error {
			return j.db.Compact(t.Context(), entryKey(entryPrefix, 0), entryKey(entryPrefix, 1000), false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			fatal := make(chan error, 10)
			options := Options{FS: fs, MaxBytes: 1 << 30, Log: logr.Discard(), Fatal: func(err error) { fatal <- err }}
			j, err := Open("journal", options)
			if err != nil {
				t.Fatal(err)
			}
			sizes := map[uint64]int{}
			for id := range uint64(60) {
				if err := tell(j, id, 5000); err != nil {
					t.Fatal(err)
				}
				sizes[id] = 5000
				if id%20 == 19 {
					// Tables that overlap, for the compaction.
					if err := errors.Join(j.Remove([]uint64{1}), j.db.Flush()); err != nil {
						t.Fatal(err)
					}
				}
			}
			// The engine may replace a table in the meantime, which then was damaged in vain.
			damagedTables := map[string]bool{}
			for deadline := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
				if table := slices.Max(list(t, fs, "journal", tableSuffix)); !damagedTables[table] {
					damagedTables[table] = true
					file, err := fs.OpenReadWrite("journal/"+table, vfs.WriteCategoryUnspecified)
					if errors.Is(err, errNotExist) {
						continue
					} else if err != nil {
						t.Fatal(err)
					}
					info, err := file.Stat()
					if err != nil {
						t.Fatal(err)
					}
					var flipped [1]byte
					_, err = file.ReadAt(flipped[:], info.Size()/2)
					flipped[0] ^= 1
					_, writeErr := file.WriteAt(flipped[:], info.Size()/2)
					if err := errors.Join(err, writeErr, file.Close()); err != nil {
						t.Fatal(err)
					}
				}
				if find(j) != nil || j.Err() != nil {
					break
				}
				if time.Now().After(deadline) {
					t.Error("nothing is found")
					break
				}
			}
			select {
			case err := <-fatal:
				if !errors.As(err, new(*BrokenError)) {
					t.Errorf("the process ends with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the process goes on")
			}
			if err := tell(j, 100, 10); !errors.As(err, new(*BrokenError)) {
				t.Errorf("Append returns %v", err)
			}
			_ = j.Close()
			j, err = Open("journal", options)
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, j)
			want := slices.SortedFunc(maps.Keys(sizes), cmp.Compare)
			if lost := missing(want, ids(waiting(t, j))); len(lost) > 2+1 || j.Quarantined() != 1 {
				t.Errorf("%v are lost, %d directories are in quarantine", lost, j.Quarantined())
			}
		})
	}
}
