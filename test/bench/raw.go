package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

// rawKind is how a loop makes records durable.
type rawKind string

const (
	// rawEach appends each record to a file and calls fdatasync for it alone.
	rawEach rawKind = "a file, a sync for each record"
	// rawShared appends what has come meanwhile and calls fdatasync once for all of it.
	rawShared rawKind = "a file, a sync for all that came meanwhile"
	// rawJournal is the journal without anything around it.
	rawJournal rawKind = "the journal alone"
)

// raw returns how many records per second of so many bytes the disk takes from so many writers.
func raw(ctx context.Context, dir string, kind rawKind, writers, size int, window time.Duration) (perSecond float64, err error) {
	one, closeAll, err := rawStore(filepath.Join(dir, "raw"), kind, size)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	var stored atomic.Int64
	failures := make([]error, writers)
	var running sync.WaitGroup
	started := time.Now()
	for writer := range writers {
		running.Go(func() {
			for ctx.Err() == nil && failures[writer] == nil {
				failures[writer] = one()
				stored.Add(1)
			}
		})
	}
	running.Wait()
	return float64(stored.Load()) / time.Since(started).Seconds(), errors.Join(failures...)
}

// rawStore returns what stores a record.
func rawStore(path string, kind rawKind, size int) (one, closeAll func() error, err error) {
	if kind == rawJournal {
		j, err := journal.Open(path, journal.Options{MaxBytes: 1 << 30, Log: logr.Discard(), Fatal: func(error) {}})
		if err != nil {
			return nil, nil, err
		}
		change := typicalChange(j.Identity())
		one := func() error {
			_, err := j.Append(modeJournal, change)
			return err
		}
		return one, func() error { return errors.Join(j.Close(), os.RemoveAll(path)) }, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	store := func(records int) error {
		if _, err := file.Write(make([]byte, records*size)); err != nil {
			return err
		}
		return syscall.Fdatasync(int(file.Fd()))
	}
	one = func() error { return store(1) }
	if kind == rawShared {
		one = share(store)
	}
	return one, func() error { return errors.Join(file.Close(), os.Remove(path)) }, nil
}

// share makes of a function that stores several records one that stores a record of the caller's together with those of
// all others who call meanwhile.
func share(store func(records int) error) func() error {
	type batch struct {
		records int
		done    chan struct{}
		err     error
	}
	var mu sync.Mutex
	turn := make(chan struct{}, 1)
	open := &batch{done: make(chan struct{})}
	return func() error {
		mu.Lock()
		mine := open
		mine.records++
		first := mine.records == 1
		mu.Unlock()
		if !first {
			<-mine.done
			return mine.err
		}
		// The first of a batch stores it, once the batch before is on the disk.
		turn <- struct{}{}
		defer func() { <-turn }()
		mu.Lock()
		open = &batch{done: make(chan struct{})}
		mu.Unlock()
		mine.err = store(mine.records)
		close(mine.done)
		return mine.err
	}
}

// recordBytes is the size of a record that the journal keeps for a callback of the load.
func recordBytes(dir string) (size int, err error) {
	dir = filepath.Join(dir, "record")
	j, err := journal.Open(dir, journal.Options{MaxBytes: 1 << 20, Log: logr.Discard(), Fatal: func(error) {}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, j.Close(), os.RemoveAll(dir)) }()
	if _, err := j.Append(modeJournal, typicalChange(j.Identity())); err != nil {
		return 0, err
	}
	_, bytes := j.Depth()
	return int(bytes), nil
}

// typicalChange is what a callback of the load tells.
func typicalChange(replica uint64) merge.Change {
	return merge.Change{
		Stamp:    stamp.NewClock(replica, time.Now).Next(stamp.RankTold),
		Command:  "callbackAfterSetGroupInfoExCommand",
		Received: time.Now(),
		Spec: openimv1.GroupInfoSpec{
			ServerName: serverName, GroupID: "g100",
			GroupName: new("Group name 500000"), Notification: new("Updated group notification 500000"),
			Introduction: new("Updated group introduction 500000"), Ex: new("Updated extra data 500000"),
			FaceURL:          new("http://example.com/new/path/to/face/image-500000.png"),
			NeedVerification: new(int32(1)), LookMemberInfo: new(int32(1)), ApplyMemberFriend: new(int32(0)),
		},
	}
}

// The file systems that statfs knows by number and that matter here.
var fileSystems = map[int64]string{
	0x01021994: "tmpfs", 0x858458f6: "ramfs", 0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlayfs",
	0x2fc12fc1: "zfs", 0x6969: "nfs", 0xf2f52010: "f2fs",
}

// fileSystem names the file system of the directory, and fails if that keeps its files in memory.
func fileSystem(dir string) (string, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return "", err
	}
	name, known := fileSystems[stat.Type]
	switch {
	case name == "tmpfs" || name == "ramfs":
		return "", fmt.Errorf("%s is in memory, where a sync costs nothing; give a directory on a disk with -dir", dir)
	case !known:
		return fmt.Sprintf("file system %#x", stat.Type), nil
	}
	return name, nil
}
