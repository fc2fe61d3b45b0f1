package webhook

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/applier"
)

// retryPause is how long to wait before a write is tried again for whose reply somebody waits; it doubles each time.
const retryPause = 50 * time.Millisecond

// APIServerInbox writes each change to the API server before the reply (--ack=apiserver): durable without a disk of our
// own, and as fast and as available as the API server. Of one group at most one write is in flight; what is told meanwhile
// is merged into the next one, and all who wait for it get their replies together. Trouble that may pass is given a chance to
// for as long as somebody waits.
type APIServerInbox struct {
	writer applier.Writer

	mu sync.Mutex
	// next are the batches that no write has taken yet. A group is in the map, perhaps with nil, while a write is in flight.
	next map[inboxKey]*batch
}

var _ Inbox = (*APIServerInbox)(nil)

type inboxKey struct{ namespace, server, groupID string }

// batch is what is written for a group at once, for all who wait for it.
type batch struct {
	changes []merge.Change
	// deadline is when the last of those who wait gives up.
	deadline time.Time
	// written is closed when errs, one for each change, are there.
	written chan struct{}
	errs    []error
}

// NewAPIServerInbox returns an inbox that writes with writer, a *groupwriter.Writer.
func NewAPIServerInbox(writer applier.Writer) *APIServerInbox {
	return &APIServerInbox{writer: writer, next: map[inboxKey]*batch{}}
}

// +kubebuilder:rbac:groups=openim.io,resources=groupinfos,verbs=get;create;patch

// Accept implements Inbox.
func (i *APIServerInbox) Accept(ctx context.Context, namespace string, change merge.Change) error {
	b, position := i.join(ctx, inboxKey{namespace, change.Spec.ServerName, change.Spec.GroupID}, change)
	select {
	case <-b.written:
		return b.errs[position]
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join adds the change to the group's next batch, and sees to it that somebody writes that.
func (i *APIServerInbox) join(ctx context.Context, key inboxKey, change merge.Change) (b *batch, position int) {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		deadline = time.Now().Add(acknowledgeTimeout)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	b, busy := i.next[key]
	if b == nil {
		b = &batch{written: make(chan struct{})}
		i.next[key] = b
	}
	b.changes = append(b.changes, change)
	if deadline.After(b.deadline) {
		b.deadline = deadline
	}
	if !busy {
		// The batch outlives whoever began it: others may wait for it.
		go i.write(context.WithoutCancel(ctx), key)
	}
	return b, len(b.changes) - 1
}

// write writes the group's batches until there is none.
func (i *APIServerInbox) write(ctx context.Context, key inboxKey) {
	for {
		i.mu.Lock()
		b := i.next[key]
		if b == nil {
			delete(i.next, key)
			i.mu.Unlock()
			return
		}
		i.next[key] = nil
		i.mu.Unlock()

		b.errs = i.writeBatch(ctx, key.namespace, b)
		close(b.written)
	}
}

// writeBatch writes all changes in one write, or each by itself if the API server will never take them together: one bad
// change must not take the good ones along.
func (i *APIServerInbox) writeBatch(ctx context.Context, namespace string, b *batch) []error {
	ctx, cancel := context.WithDeadline(ctx, b.deadline)
	defer cancel()
	errs := make([]error, len(b.changes))
	told := b.changes[0].State()
	for _, change := range b.changes[1:] {
		told.Join(change.State())
	}
	err := i.persist(ctx, namespace, told)
	_, foreign := errors.AsType[*groupwriter.IdentityError](err)
	apart := err != nil && applier.Final(err) && !foreign && len(b.changes) > 1
	for n, change := range b.changes {
		if errs[n] = err; apart {
			errs[n] = i.persist(ctx, namespace, change.State())
		}
	}
	return errs
}

// persist writes a state, again and again while the trouble may pass and the context lasts.
func (i *APIServerInbox) persist(ctx context.Context, namespace string, told merge.State) error {
	for pause := retryPause; ; pause *= 2 {
		_, err := i.writer.Write(ctx, namespace, told)
		if err == nil || applier.Final(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(max(pause, applier.RetryAfter(err))):
		}
	}
}
