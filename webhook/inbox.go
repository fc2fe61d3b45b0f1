package webhook

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

const (
	// diskPatience is how long the disk may take before the API server is tried instead. It leaves that half of the time that
	// a reply may take.
	diskPatience = acknowledgeTimeout / 2

	// maxStuck bounds the changes that wait for the disk, in bytes: if it does not answer, they stay in memory. Further ones go
	// to the API server at once. stuckOverhead is what each takes beside its texts.
	maxStuck      = 64 << 20
	stuckOverhead = 4 << 10
)

// Inbox makes changes durable. It is the line between what OpenIM waits for and what happens later: the reply goes out
// when Accept has returned.
type Inbox interface {
	// Accept returns nil once the change to a group of the namespace survives a crash of this process and of its node.
	Accept(ctx context.Context, namespace string, change merge.Change) error
}

// JournalInbox writes each change to the local disk before the reply (--ack=journal), and leaves it to the applier to bring
// it into the API server. Nothing that the API server does delays or prevents the reply.
type JournalInbox struct {
	// Journal keeps changes on the local disk; a *journal.Journal.
	Journal interface {
		Append(namespace string, change merge.Change) (journal.Entry, error)
	}
	// Applier brings what the journal keeps into the API server; an *applier.Applier.
	Applier interface {
		Add(entry journal.Entry)
	}
	// Overflow takes what a full or broken journal cannot, or not in time: slower is better than lost. If the journal has it
	// after all, it is merged twice, which changes nothing.
	Overflow Inbox
	// Overflowed counts what goes to Overflow.
	Overflowed prometheus.Counter
	// Broken is called when the journal failed; the process must end then.
	Broken func(error)

	// stuck are the bytes of the changes whose call to the journal has not returned.
	stuck atomic.Int64
}

var _ Inbox = (*JournalInbox)(nil)

// errStuck means that the disk has not answered in time.
var errStuck = errors.New("the disk does not answer")

// Accept implements Inbox.
func (i *JournalInbox) Accept(ctx context.Context, namespace string, change merge.Change) error {
	err := i.append(ctx, namespace, change)
	_, broken := errors.AsType[*journal.BrokenError](err)
	switch {
	case broken:
	case errors.Is(err, journal.ErrFull), errors.Is(err, errStuck):
	default:
		return err
	}
	i.Overflowed.Inc()
	return i.Overflow.Accept(ctx, namespace, change)
}

// append has the change written to the disk, but does not wait for ever.
func (i *JournalInbox) append(ctx context.Context, namespace string, change merge.Change) error {
	size := memoryOf(change)
	if i.stuck.Add(size) > maxStuck {
		i.stuck.Add(-size)
		return errStuck
	}
	result := make(chan error, 1)
	go func() {
		defer i.stuck.Add(-size)
		entry, err := i.Journal.Append(namespace, change)
		// What follows is due also if nobody waits any more: a disk may hang before it fails.
		if err == nil {
			i.Applier.Add(entry)
		} else if _, broken := errors.AsType[*journal.BrokenError](err); broken {
			i.Broken(err)
		}
		result <- err
	}()
	patience := time.NewTimer(diskPatience)
	defer patience.Stop()
	select {
	case err := <-result:
		return err
	case <-patience.C:
		return errStuck
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Idle reports whether no call to the journal is under way. Only then may it be closed.
func (i *JournalInbox) Idle() bool { return i.stuck.Load() == 0 }

// memoryOf is about what a change takes while it is written: its texts, and their copy in the form for the disk.
func memoryOf(change merge.Change) int64 {
	size := int64(stuckOverhead)
	spec := &change.Spec
	for _, text := range []*string{spec.GroupName, spec.Notification, spec.Introduction, spec.FaceURL, spec.Ex} {
		if text != nil {
			size += 2 * int64(len(*text))
		}
	}
	return size
}
