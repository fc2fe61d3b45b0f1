package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	openimac "github.com/groupinfo-operator/groupinfo-operator/internal/applyconfiguration/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/clockskew"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/applier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/reporter"
)

const (
	// ackJournal makes a reply wait for the local disk, ackAPIServer for the API server.
	ackJournal   = "journal"
	ackAPIServer = "apiserver"
)

// diskTimeout bounds how long a receiver that ends waits for its disk.
const diskTimeout = 5 * time.Second

// settleTimeout bounds how long a receiver that ends waits for what it accepted last to get into the API server. What does
// not stays in the journal.
const settleTimeout = 5 * time.Second

// receiverOptions are the flags of a process that receives.
type receiverOptions struct {
	name         string
	address      string
	ack          string
	journalDir   string
	journalBytes int64
	// journalReserve is the size of the journal's reserve on the disk.
	journalReserve int64
	drain          time.Duration
}

func (o *receiverOptions) bind(flags *pflag.FlagSet) {
	// Without a host name, --name must be given.
	hostname, _ := os.Hostname()
	flags.StringVar(&o.name, "name", cmp.Or(os.Getenv("POD_NAME"), hostname), "name of this receiver in the status of OpenIMServers; it belongs to the journal and comes back with it ($POD_NAME, or the host name)")
	flags.StringVar(&o.address, "callback-bind-address", ":8080", "address for OpenIM's callbacks")
	flags.StringVar(&o.ack, "ack", ackJournal, "what a reply waits for: "+ackJournal+" (the change is on the local disk, in --journal-dir) or "+ackAPIServer+" (the change is in the API server)")
	flags.StringVar(&o.journalDir, "journal-dir", "/var/lib/groupinfo-operator/journal", "directory of the journal, on a disk that outlives the process and belongs to this replica alone")
	flags.Int64Var(&o.journalBytes, "journal-max-bytes", 1<<30, "bytes of changes that may wait for the API server; beyond it a reply waits for the API server again")
	flags.Int64Var(&o.journalReserve, "journal-reserve-bytes", journal.DefaultReserveBytes, "bytes of the disk that the journal sets aside, to go on when the disk is full; 0 for none")
	flags.DurationVar(&o.drain, "drain", 5*time.Second, "how long to go on receiving after the signal to end, until load balancers have noticed")
}

func (o *receiverOptions) validate() error {
	switch {
	case o.name == "":
		return errors.New("--name is empty: name this receiver")
	case o.ack != ackJournal && o.ack != ackAPIServer:
		return fmt.Errorf("--ack=%s is neither %s nor %s", o.ack, ackJournal, ackAPIServer)
	case o.ack == ackJournal && o.journalDir == "":
		return errors.New("--ack=journal needs --journal-dir: a directory on a disk that outlives the process")
	case o.ack == ackJournal && o.journalBytes <= 0:
		return errors.New("--journal-max-bytes must be positive")
	case o.ack == ackJournal && o.journalReserve < 0:
		return errors.New("--journal-reserve-bytes must not be negative")
	}
	return nil
}

// receiverProcess is what receives callbacks, and brings them into the API server.
type receiverProcess struct {
	options receiverOptions
	version string
	log     logr.Logger
	clock   *stamp.Clock
	meter   *clockskew.Meter
	// registry gets the metrics.
	registry prometheus.Registerer

	server   *webhook.Server
	applier  *applier.Applier
	journal  *journal.Journal
	reporter *reporter.Reporter
	broken   chan error
	// idle reports whether no callback waits for the journal.
	idle func() bool
	// saving are the writes of the clock's offset.
	saving sync.WaitGroup
	// abandoned: the journal has failed and cannot even be closed.
	abandoned bool
}

// newReceiver opens the journal and sets the clock by what it says: that takes no API server.
func newReceiver(version string, o receiverOptions) (*receiverProcess, error) {
	r := &receiverProcess{
		options: o, version: version, log: logf.Log.WithName("receiver"), broken: make(chan error, 1),
		registry: metrics.Registry,
		// An identity for each process, not the journal's: what was written before its reply, because the journal was full, has
		// a stamp that the journal knows nothing of, and the next process would make the same one if the wall clock is behind.
		clock: stamp.NewClock(randomReplica(), time.Now),
	}
	offset := time.Duration(0)
	if o.ack == ackJournal {
		if err := r.openJournal(); err != nil {
			return nil, err
		}
		r.clock.Observe(stamp.Stamp{HLC: r.journal.HighestTime()})
		var err error
		if offset, err = r.journal.Offset(); err != nil {
			return nil, errors.Join(fmt.Errorf("read the clock's offset: %w", err), r.close())
		}
	}
	r.clock.SetOffset(offset)
	r.meter = clockskew.NewMeter(time.Now, offset, r.correct)
	return r, nil
}

// correct takes over a new correction of the clock.
func (r *receiverProcess) correct(offset time.Duration) {
	r.clock.SetOffset(offset)
	if offset == 0 {
		r.log.Info("The clock agrees with the API server's again")
	} else {
		r.log.Info("The clock differs from the API server's, and is corrected: synchronize the clock of this node", "offset", offset.String())
	}
	if r.journal == nil {
		return
	}
	// The latest is kept: two that are saved at once are so near to each other that either will do.
	r.saving.Go(func() {
		if err := r.journal.SaveOffset(r.clock.Offset()); err != nil {
			r.log.Error(err, "The clock's offset is not kept: a restart has to measure it again")
		}
	})
}

// setUp makes everything that needs the manager, and takes up what waits in the journal.
func (r *receiverProcess) setUp(ctx context.Context, mgr manager.Manager, verifiers cache.Cache, verifierSecret client.ObjectKey) error {
	// A client without a cache: of 100,000 groups a receiver needs the few that it writes to.
	live, err := client.New(mgr.GetConfig(), client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return err
	}
	writer := &groupwriter.Writer{Client: live, Clock: r.clock}
	inbox := webhook.Inbox(webhook.NewAPIServerInbox(writer))
	if r.journal != nil {
		if inbox, err = r.journalInbox(writer, inbox); err != nil {
			return err
		}
	}
	handler := webhook.NewHandler(webhook.Options{Inbox: inbox, Clock: r.clock, Now: time.Now, Log: r.log, Registry: r.registry})
	watch := &webhook.VerifierWatch{Cache: verifiers, Secret: verifierSecret, Handler: handler, Log: r.log}
	if r.journal != nil {
		if err := r.useSnapshot(handler); err != nil {
			return err
		}
		watch.Save = r.saveSnapshot
	}
	r.reporter = r.newReporter(live, handler)
	prober, err := r.newProber(mgr.GetConfig())
	if err != nil {
		return err
	}
	if err := errors.Join(mgr.AddReadyzCheck("receiver", handler.Ready), mgr.Add(watch), mgr.Add(prober)); err != nil {
		return err
	}
	r.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "groupinfo_operator_clock_offset_seconds",
		Help: "What is added to the clock to get the API server's time; 0 while they differ by 5 s at the most.",
	}, func() float64 { return r.clock.Offset().Seconds() }))

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", r.options.address)
	if err != nil {
		return fmt.Errorf("listen for callbacks: %w", err)
	}
	r.log.Info("Listening for callbacks", "address", listener.Addr().String(), "ack", r.options.ack)
	r.server = &webhook.Server{Handler: handler, Listener: listener, Drain: r.options.drain}
	return nil
}

// journalInbox returns the inbox that keeps changes in the journal, which the applier brings into the API server.
func (r *receiverProcess) journalInbox(writer applier.Writer, overflow webhook.Inbox) (webhook.Inbox, error) {
	r.applier = applier.New(applier.Options{Writer: writer, Journal: r.journal, Now: r.clock.Now, Log: r.log, Registry: r.registry})
	if err := r.journal.Waiting(func(entry journal.Entry) error { r.applier.Add(entry); return nil }); err != nil {
		return nil, fmt.Errorf("replay the journal: %w", err)
	}
	if entries, bytes := r.journal.Depth(); entries > 0 {
		r.log.Info("Replaying the journal", "changes", entries, "bytes", bytes)
	}
	inbox := &webhook.JournalInbox{
		Journal: r.journal, Applier: r.applier, Overflow: overflow,
		Overflowed: webhook.NewOverflowCounter(r.registry), Broken: r.fail,
	}
	r.idle = inbox.Idle
	return inbox, nil
}

// newReporter returns what tells of this receiver in the OpenIMServers' status.
func (r *receiverProcess) newReporter(live client.Client, handler *webhook.Handler) *reporter.Reporter {
	options := reporter.Options{
		Name: r.options.name, Version: r.version,
		Apply: func(ctx context.Context, manager string, server *openimac.OpenIMServerApplyConfiguration) error {
			return live.Status().Apply(ctx, server, client.FieldOwner(manager), client.ForceOwnership)
		},
		LastCallbacks: handler.LastCallbacks, Offset: r.clock.Offset, Now: r.clock.Now, Log: r.log,
	}
	if r.journal != nil {
		options.Journal, options.Applier = r.journal, r.applier
	}
	return reporter.New(options)
}

// newProber returns what asks the API server for the time when nothing else has asked it for anything.
func (r *receiverProcess) newProber(config *rest.Config) (*clockskew.Prober, error) {
	asking, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &clockskew.Prober{Meter: r.meter, Every: time.Minute, Ask: func(ctx context.Context) error {
		return asking.RESTClient().Get().AbsPath("/version").Do(ctx).Error()
	}}, nil
}

func (r *receiverProcess) openJournal() (err error) {
	// What users wrote is for nobody else on the node.
	if err := os.MkdirAll(r.options.journalDir, 0o700); err != nil {
		return fmt.Errorf("make the journal's directory: %w; choose another with --journal-dir, or do without one with --ack=%s", err, ackAPIServer)
	}
	r.journal, err = journal.Open(r.options.journalDir, journal.Options{
		MaxBytes:     r.options.journalBytes,
		ReserveBytes: r.options.journalReserve,
		Log:          r.log,
		Registry:     r.registry,
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

// run receives until the context ends, and drains. When the journal fails it drains as well, and returns why: what comes
// then is written to the API server before the reply.
func (r *receiverProcess) run(ctx context.Context) error {
	// The applier and the reporter go on while the server drains.
	applying, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var background sync.WaitGroup
	for _, start := range r.inBackground() {
		background.Go(func() {
			// Neither fails: what they meet is tried again.
			_ = start(applying)
		})
	}
	serving, drain := context.WithCancel(ctx)
	defer drain()
	served := make(chan error, 1)
	go func() { served <- r.server.Run(serving) }()
	select {
	case err := <-served:
		r.settle(applying, stop, &background)
		return err
	case err := <-r.broken:
		// Calls to the journal may never return now: the process ends without them.
		r.abandoned = true
		drain()
		return errors.Join(err, <-served)
	}
}

func (r *receiverProcess) inBackground() []func(context.Context) error {
	tasks := []func(context.Context) error{r.reporter.Start}
	if r.applier != nil {
		tasks = append(tasks, r.applier.Start)
	}
	return tasks
}

// settle gives the changes that were accepted last the time to get into the API server, and tells what is left.
func (r *receiverProcess) settle(ctx context.Context, stop func(), background *sync.WaitGroup) {
	if r.applier != nil {
		settling, cancel := context.WithTimeout(ctx, settleTimeout)
		if !r.applier.Settle(settling) {
			entries, _ := r.journal.Depth()
			r.log.Info("Changes stay in the journal until this receiver starts again", "changes", entries)
		}
		cancel()
	}
	stop()
	if !within(diskTimeout, background.Wait) {
		r.log.Info("The disk of the journal does not answer: ending without it. What was acknowledged is on it")
		r.abandoned = true
		return
	}
	r.reporter.Farewell(context.WithoutCancel(ctx))
}

// within reports whether the wait was over in time.
func within(limit time.Duration, wait func()) bool {
	over := make(chan struct{})
	go func() {
		defer close(over)
		wait()
	}()
	select {
	case <-over:
		return true
	case <-time.After(limit):
		return false
	}
}

// close closes the journal, which nobody may use any more. It does not wait for ever for a disk that does not answer: what
// was acknowledged is on it all the same.
func (r *receiverProcess) close() error {
	if r.journal == nil || r.abandoned {
		return nil
	}
	if r.idle != nil && !r.idle() {
		return errors.New("callbacks still wait for the disk of the journal: ending without closing it")
	}
	var err error
	closed := within(diskTimeout, func() {
		r.saving.Wait()
		err = r.journal.Close()
	})
	if !closed {
		return errors.New("the disk of the journal does not answer: ending without closing it")
	}
	return err
}

// randomReplica identifies this process among all that stamp changes.
func randomReplica() uint64 {
	var random [8]byte
	// crypto/rand never fails.
	_, _ = rand.Read(random[:])
	return binary.BigEndian.Uint64(random[:])
}
