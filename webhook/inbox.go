package webhook

import (
	"context"

	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
)

// Inbox makes changes durable. It is the line between what OpenIM waits for and what happens later: the reply goes out
// when Accept has returned.
type Inbox interface {
	// Accept returns nil once the change to a group of the namespace survives a crash of this process and of its node.
	Accept(ctx context.Context, namespace string, change merge.Change) error
}

// APIServerInbox writes each change to the API server before the reply (--ack=apiserver): durable without a disk of our
// own, and as fast and as available as the API server.
type APIServerInbox struct {
	Writer *groupwriter.Writer
}

var _ Inbox = APIServerInbox{}

// +kubebuilder:rbac:groups=openim.io,resources=groupinfos,verbs=get;create;patch

// Accept implements Inbox.
func (i APIServerInbox) Accept(ctx context.Context, namespace string, change merge.Change) error {
	_, err := i.Writer.Write(ctx, namespace, change.State())
	return err
}
