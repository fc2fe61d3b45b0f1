package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/applier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

const (
	// ackJournal makes a reply wait for the local disk, ackAPIServer for the API server.
	ackJournal   = "journal"
	ackAPIServer = "apiserver"
)

// receiverOptions are the flags of a process that receives.
type receiverOptions struct {
	address      string
	ack          string
	journalDir   string
	journalBytes int64
	drain        time.Duration
}

func (o *receiverOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.address, "callback-bind-address", ":8080", "address for OpenIM's callbacks")
	flags.StringVar(&o.ack, "ack", ackAPIServer, "what a reply waits for: "+ackJournal+" (the change is on the local disk; needs --journal-dir) or "+ackAPIServer+" (the change is in the API server)")
	flags.StringVar(&o.journalDir, "journal-dir", "", "directory of the journal, on a disk that outlives the process and belongs to this replica alone")
	flags.Int64Var(&o.journalBytes, "journal-max-bytes", 1<<30, "bytes of changes that may wait for the API server; beyond it a reply waits for the API server again")
	flags.DurationVar(&o.drain, "drain", 5*time.Second, "how long to go on receiving after the signal to end, until load balancers have noticed")
}

func (o *receiverOptions) validate() error {
	switch {
	case o.ack != ackJournal && o.ack != ackAPIServer:
		return fmt.Errorf("--ack=%s is neither %s nor %s", o.ack, ackJournal, ackAPIServer)
	case o.ack == ackJournal && o.journalDir == "":
		return errors.New("--ack=journal needs --journal-dir: a directory on a disk that outlives the process")
	case o.ack == ackJournal && o.journalBytes <= 0:
		return errors.New("--journal-max-bytes must be positive")
	}
	return nil
}

// receiverProcess is what receives callbacks, and brings them into the API server.
type receiverProcess struct {
	server  *webhook.Server
	applier *applier.Applier
	journal *journal.Journal
	broken  chan error
	// abandoned: the journal has failed and cannot even be closed.
	abandoned bool
	log       logr.Logger
}

// newReceiver sets up a receiver, with its journal replayed, and adds to the manager what depends on the API server.
func newReceiver(ctx context.Context, mgr manager.Manager, verifiers cache.Cache, verifierSecret client.ObjectKey, o receiverOptions) (_ *receiverProcess, err error) {
	r := &receiverProcess{log: logf.Log.WithName("receiver"), broken: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	// A client without a cache: a merge must start from what the API server has.
	live, err := client.New(mgr.GetConfig(), client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, err
	}
	clock := stamp.NewClock(randomReplica(), time.Now)
	if o.ack == ackJournal {
		if err := r.openJournal(o); err != nil { //nolint:contextcheck // a damaged journal is read to the end
			return nil, err
		}
		clock = stamp.NewClock(r.journal.Replica(), time.Now)
		clock.Observe(stamp.Stamp{HLC: r.journal.HighestTime()})
	}
	writer := &groupwriter.Writer{Client: live, Clock: clock}
	inbox := webhook.Inbox(webhook.APIServerInbox{Writer: writer})
	if r.journal != nil {
		r.applier = applier.New(applier.Options{Writer: writer, Journal: r.journal, Now: time.Now, Log: r.log, Registry: metrics.Registry})
		inbox = webhook.JournalInbox{Journal: r.journal, Applier: r.applier, Overflow: inbox, Broken: r.fail}
		if err := r.journal.Waiting(func(entry journal.Entry) error { r.applier.Add(entry); return nil }); err != nil {
			return nil, fmt.Errorf("replay the journal: %w", err)
		}
		if entries, bytes := r.journal.Depth(); entries > 0 {
			r.log.Info("Replaying the journal", "changes", entries, "bytes", bytes)
		}
	}
	handler := webhook.NewHandler(webhook.Options{Inbox: inbox, Clock: clock, Now: time.Now, Log: r.log, Registry: metrics.Registry})
	watch := &webhook.VerifierWatch{Cache: verifiers, Secret: verifierSecret, Handler: handler, Log: r.log}
	if r.journal != nil {
		if err := r.useSnapshot(handler); err != nil {
			return nil, err
		}
		watch.Save = r.saveSnapshot
	}
	if err := errors.Join(mgr.AddReadyzCheck("receiver", handler.Ready), mgr.Add(watch)); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.address)
	if err != nil {
		return nil, fmt.Errorf("listen for callbacks: %w", err)
	}
	r.log.Info("Listening for callbacks", "address", listener.Addr().String(), "ack", o.ack)
	r.server = &webhook.Server{Handler: handler, Listener: listener, Drain: o.drain}
	return r, nil
}

func (r *receiverProcess) openJournal(o receiverOptions) (err error) {
	// What users wrote is for nobody else on the node.
	if err := os.MkdirAll(o.journalDir, 0o700); err != nil {
		return err
	}
	r.journal, err = journal.Open(o.journalDir, journal.Options{
		MaxBytes:     o.journalBytes,
		ReserveBytes: journal.DefaultReserveBytes,
		Log:          r.log,
		Registry:     metrics.Registry,
		Fatal:        r.fail,
	})
	return err
}

// useSnapshot takes the verifiers that were in force last, so that the receiver serves although the API server is away.
func (r *receiverProcess) useSnapshot(handler *webhook.Handler) error {
	snapshot, err := r.journal.Snapshot()
	if err != nil || snapshot == nil {
		return err
	}
	var data map[string][]byte
	//nolint:nilerr // the snapshot is a copy of what the API server has
	if json.Unmarshal(snapshot, &data) != nil {
		r.log.Info("The kept verifiers cannot be read: callbacks are refused until the API server answers")
		return nil
	}
	set, err := verifier.FromSecret(data)
	handler.SetVerifiers(set)
	if err != nil {
		r.log.Info("Some kept verifiers are left out", "reason", err.Error())
	}
	return nil
}

func (r *receiverProcess) saveSnapshot(data map[string][]byte) error {
	snapshot, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return r.journal.SaveSnapshot(snapshot)
}

// fail ends the receiver. What was acknowledged is on the disk, and the next start reads it from there.
func (r *receiverProcess) fail(err error) {
	select {
	case r.broken <- err:
	default:
	}
}

// run receives until the context ends, and drains. It returns at once when the journal fails.
func (r *receiverProcess) run(ctx context.Context) error {
	// The applier goes on while the server drains.
	applying, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	applied := make(chan error, 1)
	go func() {
		if r.applier == nil {
			applied <- nil
			return
		}
		applied <- r.applier.Start(applying)
	}()
	served := make(chan error, 1)
	go func() { served <- r.server.Run(ctx) }()
	select {
	case err := <-served:
		stop()
		return errors.Join(err, <-applied)
	case err := <-r.broken:
		// Calls to the journal may never return now: the process ends without them.
		r.abandoned = true
		return err
	}
}

// close closes the journal, which nobody may use any more.
func (r *receiverProcess) close() error {
	if r.journal == nil || r.abandoned {
		return nil
	}
	return r.journal.Close()
}

// randomReplica identifies this process among all that stamp changes.
func randomReplica() uint64 {
	var random [8]byte
	// crypto/rand never fails.
	_, _ = rand.Read(random[:])
	return binary.BigEndian.Uint64(random[:])
}
