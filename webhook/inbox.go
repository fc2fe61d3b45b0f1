package webhook

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
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
	// Overflow takes what a full or broken journal cannot: slower is better than lost. If the journal has it after all, it is
	// merged twice, which changes nothing.
	Overflow Inbox
	// Overflowed counts what goes to Overflow.
	Overflowed prometheus.Counter
	// Broken is called when the journal failed; the process must end then.
	Broken func(error)
}

var _ Inbox = JournalInbox{}

// Accept implements Inbox.
func (i JournalInbox) Accept(ctx context.Context, namespace string, change merge.Change) error {
	entry, err := i.Journal.Append(namespace, change)
	_, broken := errors.AsType[*journal.BrokenError](err)
	switch {
	case err == nil:
		i.Applier.Add(entry)
		return nil
	case broken:
		i.Broken(err)
		i.Overflowed.Inc()
		return i.Overflow.Accept(ctx, namespace, change)
	case errors.Is(err, journal.ErrFull):
		i.Overflowed.Inc()
		return i.Overflow.Accept(ctx, namespace, change)
	default:
		return err
	}
}
