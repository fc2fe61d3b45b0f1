package simulation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/clockskew"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/internal/verifier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/applier"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

const (
	namespace  = "chat"
	serverName = "demo"
	token      = "a-token-that-is-long-enough"

	// spacing is the least time between two writes of one receiver to one group.
	spacing = 100 * time.Millisecond

	// clockError is how wrong a receiver's corrected clock may be. A correction stays as long as the offset may be within
	// the tolerance of it, and the offset is known as precisely as a request is quick and a Date exact.
	clockError = clockskew.Tolerance + 2*slowest + time.Second
)

// replica is a receiver's place: its node's clock, its volume, and the process that runs there.
type replica struct {
	*world
	index int
	disk  *disk

	mu sync.Mutex
	// current is the process that runs, or nil.
	current *incarnation
	started int
	// skew is what the node's clock is off, since the moment skewed.
	skew   time.Duration
	skewed time.Time
	// right counts the measurements in a row that told the truth about this skew, and wrong says that the last did not.
	right int
	wrong bool
}

// wall is what the node's clock shows.
func (r *replica) wall() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Add(r.skew)
}

// setSkew sets the node's clock.
func (r *replica) setSkew(to time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count("clocks set")
	r.skew, r.skewed, r.right = to, time.Now(), 0
}

// settled reports whether the clock's correction must be right: a measurement that is at odds with the one in force has
// to be confirmed by the next.
func (r *replica) settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.right >= 2
}

// running returns the process, or nil.
func (r *replica) running() *incarnation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// incarnation is one process of a receiver, wired like the real one.
type incarnation struct {
	*world
	replica *replica
	number  int
	ctx     context.Context
	cancel  context.CancelFunc
	dead    chan struct{}
	ended   sync.WaitGroup

	clock   *stamp.Clock
	meter   *clockskew.Meter
	writer  *groupwriter.Writer
	applier *applier.Applier
	handler *webhook.Handler

	mu       sync.Mutex
	requests map[string]int
	// groups is what is known of the writes to each group.
	groups map[string]*writes
	// met are the objects as met last.
	met map[string]*object
	// overflowing are the changes that wait to be written before their reply.
	overflowing map[*change]bool
	// observed is the highest time in any stamp that a read has brought.
	observed stamp.HLC
}

// writes is what an incarnation does to one group.
type writes struct {
	// loaded are the changes that were read from the journal since the last write.
	loaded   []*change
	inFlight bool
	// notBefore is when the next write may begin, but for the next few of a batch that was refused: each of its changes is
	// written by itself then, at once.
	notBefore time.Time
	split     int
}

// start starts the process, unless one runs.
func (r *replica) start() {
	if r.running() != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &incarnation{
		world: r.world, replica: r, number: r.started, ctx: ctx, cancel: cancel, dead: make(chan struct{}),
		requests: map[string]int{}, groups: map[string]*writes{}, met: map[string]*object{},
		overflowing: map[*change]bool{},
	}
	r.started++
	log := logr.Discard()

	opened, replayed := r.disk.open(i)
	i.clock = stamp.NewClock(keyed(i.seed, "identity", r.index, i.number).Uint64(), r.wall)
	i.clock.Observe(stamp.Stamp{HLC: r.disk.highest})
	i.clock.SetOffset(r.disk.correction)
	i.meter = clockskew.NewMeter(r.wall, r.disk.correction, func(correction time.Duration) {
		r.count("clock corrections")
		i.clock.SetOffset(correction)
		r.disk.saveCorrection(correction)
	})
	i.writer = &groupwriter.Writer{Client: connection{from: i}, Clock: i.clock}

	jitter := keyed(i.seed, "jitter", r.index, i.number)
	i.applier = applier.New(applier.Options{
		Writer: (*watchedWriter)(i), Journal: opened, Now: i.clock.Now, Log: log, Registry: prometheus.NewRegistry(),
		Jitter: func(most time.Duration) time.Duration { return anywhere(jitter, most) },
	})
	registry := prometheus.NewRegistry()
	inbox := &webhook.JournalInbox{
		Journal:    opened,
		Applier:    i.applier,
		Overflow:   overflow{i, webhook.NewAPIServerInbox((*overflowWriter)(i))},
		Overflowed: webhook.NewOverflowCounter(registry),
		Broken:     func(error) { i.breakDown() },
	}
	i.handler = webhook.NewHandler(webhook.Options{
		Inbox: witness{i, inbox}, Clock: i.clock, Now: r.wall, Log: log, Registry: registry,
	})
	i.handler.SetVerifiers(verifier.Set{types.NamespacedName{Namespace: namespace, Name: serverName}: verifier.New(token)})
	for _, entry := range replayed {
		i.applier.Add(entry)
	}
	prober := &clockskew.Prober{Meter: i.meter, Every: i.measureEvery, Ask: func(ctx context.Context) error {
		return i.request(ctx, "ask", "", func() error { return nil })
	}}
	i.ended.Go(func() { i.check(i.applier.Start(ctx)) })
	i.ended.Go(func() { i.check(prober.Start(ctx)) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = i
	if r.right < 2 {
		// What a process has measured and not confirmed ends with it.
		r.right = 0
	}
}

func (i *incarnation) check(err error) {
	if err != nil {
		i.failf("receiver %d ends: %v", i.replica.index, err)
	}
}

// crash ends the process in the middle of whatever it does.
func (r *replica) crash() {
	r.mu.Lock()
	i := r.current
	r.current = nil
	r.mu.Unlock()
	if i == nil {
		return
	}
	close(i.dead)
	i.cancel()
	i.ended.Wait()
	r.disk.crash(i.number)
}

// breakDown is what a process does whose journal has failed: it ends soon, and is started again.
func (i *incarnation) breakDown() {
	soon := anywhere(keyed(i.seed, "broken", i.replica.index, i.number), 10*time.Millisecond)
	time.AfterFunc(soon, func() {
		if i.replica.running() == i {
			i.replica.crash()
			time.AfterFunc(soon*100, i.replica.start)
		}
	})
}

func (i *incarnation) isDead() bool {
	select {
	case <-i.dead:
		return true
	default:
		return false
	}
}

func (d *disk) saveCorrection(correction time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.correction = correction
}

func (i *incarnation) nextRequest(name string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests[name]++
	return i.requests[name]
}

// measure takes in the Date of a reply.
func (i *incarnation) measure(random *rand.Rand, date, sent, trulySent time.Time) {
	r := i.replica
	r.mu.Lock()
	// Of several API servers one may have the wrong time, and two in a row are not expected to be told from the truth.
	r.wrong = !r.wrong && random.Float64() < i.wrongDates && time.Since(i.start) < i.end
	switch {
	case r.wrong:
		i.count("wrong dates")
		date = date.Add(time.Hour + anywhere(random, time.Hour))
	case trulySent.After(r.skewed):
		r.right++
	case r.right < 2:
		// The clock was set in between, so it tells little.
		r.right = 0
	}
	if r.wrong && r.right < 2 {
		r.right = 0
	}
	received := time.Now().Add(r.skew)
	i.tracef("%v measures a clock that is %v off and corrected by %v, right %d times; a wrong date: %v", i, r.skew, i.clock.Offset(), r.right, r.wrong)
	r.mu.Unlock()
	i.meter.Observe(date.Truncate(time.Second), sent, received)
}

// saw notes a reply's object.
func (i *incarnation) saw(verb, name string, met *object, reply *openimv1.GroupInfo) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.met[name] = met
	if verb != "get" {
		return
	}
	for _, s := range stampsOf(i.world, reply) {
		if at, err := stamp.Parse(s); err == nil {
			i.observed = max(i.observed, at.HLC)
		}
	}
}

// groupWrites returns what is known of a group. The caller holds the lock.
func (i *incarnation) groupWrites(group string) *writes {
	if i.groups[group] == nil {
		i.groups[group] = &writes{}
	}
	return i.groups[group]
}

// loaded notes that the applier has read a change in order to write it.
func (i *incarnation) loaded(group string, c *change) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.groupWrites(group)
	w.loaded = append(w.loaded, c)
}

// watchedWriter is the group writer, watched in how it is used.
type watchedWriter incarnation

// Write implements applier.Writer.
func (ww *watchedWriter) Write(ctx context.Context, ns string, told merge.State, options ...groupwriter.Option) (groupwriter.Result, error) {
	i, group := (*incarnation)(ww), told.Spec.GroupID
	b := &batch{started: time.Now()}
	i.mu.Lock()
	w := i.groupWrites(group)
	b.changes, w.loaded = w.loaded, nil
	if w.inFlight && !i.isDead() {
		i.failf("receiver %d has two writes to %q in flight", i.replica.index, group)
	}
	if early := time.Until(w.notBefore); early > 0 && w.split == 0 && !i.isDead() {
		i.failf("receiver %d writes %q %v too early", i.replica.index, group, early)
	}
	w.inFlight, w.split = true, max(w.split-1, 0)
	i.mu.Unlock()

	result, err := i.write(ctx, ns, told, b, options...)

	// Writes that began in one moment, at a start, may reach their deadline in one moment; what follows is in no certain
	// order then, and draws from one source.
	_ = i.wait(context.Background(), anywhere(keyed(i.seed, "end of write", i.replica.index, i.number, group, b.started), time.Millisecond))

	i.mu.Lock()
	defer i.mu.Unlock()
	w.inFlight = false
	if (apierrors.IsInvalid(err) || errors.Is(err, groupwriter.ErrAbsent)) && len(b.changes) > 1 {
		w.split = len(b.changes)
	}
	delay, _ := apierrors.SuggestsClientDelay(err)
	w.notBefore = time.Now().Add(max(spacing, time.Duration(delay)*time.Second))
	return result, err
}

func (i *incarnation) write(ctx context.Context, ns string, told merge.State, b *batch, options ...groupwriter.Option) (groupwriter.Result, error) {
	result, err := i.writer.Write(context.WithValue(ctx, batchKey{}, b), ns, told, options...)
	if err == nil && result == groupwriter.Unchanged && !i.isDead() {
		i.count("writes that had nothing to do")
		i.mu.Lock()
		met := b.seen
		if met == nil {
			met = i.met[i.writer.Namer.GroupInfo(told.Spec.GroupID)]
		}
		i.mu.Unlock()
		if met == nil {
			i.failf("receiver %d finds %q unchanged and has never met it", i.replica.index, told.Spec.GroupID)
			return result, err
		}
		i.server.found(met, b)
	}
	return result, err
}

// overflow takes what the journal cannot.
type overflow struct {
	by *incarnation
	webhook.Inbox
}

// Accept implements webhook.Inbox.
func (o overflow) Accept(ctx context.Context, ns string, told merge.Change) error {
	o.by.count("changes written before the reply")
	c := o.by.changeOf(journal.Entry{Change: told})
	c.overflowed.Store(true)
	o.by.mu.Lock()
	o.by.overflowing[c] = true
	o.by.mu.Unlock()
	defer func() {
		o.by.mu.Lock()
		defer o.by.mu.Unlock()
		delete(o.by.overflowing, c)
	}()
	return o.Inbox.Accept(ctx, ns, told)
}

// overflowWriter is the group writer as the overflow uses it.
type overflowWriter incarnation

// Write implements applier.Writer.
func (ow *overflowWriter) Write(ctx context.Context, ns string, told merge.State, options ...groupwriter.Option) (groupwriter.Result, error) {
	i, group := (*incarnation)(ow), "before the reply: "+told.Spec.GroupID
	b := &batch{started: time.Now()}
	for _, entry := range told.History {
		if at, err := stamp.Parse(entry.Stamp); err == nil {
			b.changes = append(b.changes, i.changeOf(journal.Entry{Change: merge.Change{Stamp: at}}))
		}
	}
	i.mu.Lock()
	if len(b.changes) == historyLimit {
		// More came than a history shows. Batches are written in turn, so what is older and waits is in this one.
		oldest := told.History[historyLimit-1].Stamp
		for c := range i.overflowing {
			if c.Spec.GroupID == told.Spec.GroupID && c.Stamp.String()[2:] < oldest[2:] {
				b.changes = append(b.changes, c)
			}
		}
	}
	w := i.groupWrites(group)
	if w.inFlight && !i.isDead() {
		i.failf("receiver %d has two writes to %q in flight", i.replica.index, group)
	}
	w.inFlight = true
	i.mu.Unlock()
	result, err := i.write(ctx, ns, told, b, options...)
	i.mu.Lock()
	defer i.mu.Unlock()
	w.inFlight = false
	if err == nil {
		for _, c := range b.changes {
			delete(i.overflowing, c)
		}
	}
	return result, err
}

// witness sees each change with its stamp, whatever becomes of it.
type witness struct {
	by *incarnation
	webhook.Inbox
}

// Accept implements webhook.Inbox.
func (w witness) Accept(ctx context.Context, ns string, told merge.Change) error {
	w.by.stamped(ctx, told)
	return w.Inbox.Accept(ctx, ns, told)
}

type deliveryKey struct{}

// deliver plays OpenIM: it sends a callback once and does not care what becomes of it.
func (w *world) deliver(d *delivery) {
	w.count("callbacks sent")
	i := w.replicas[d.replica].running()
	if i == nil {
		return
	}
	body, err := openim.Encode(d.dialect, d.callback)
	if err != nil {
		w.failf("the plan is broken: %v", err)
		return
	}
	url := openim.URL("/callbacks/"+namespace+"/"+serverName+"/"+token, openim.URLFormPath, d.dialect.Spelling(d.callback.Command))
	ctx := context.WithValue(context.Background(), deliveryKey{}, d)
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	request.Header.Set("Content-Type", openim.ContentType)
	reply := httptest.NewRecorder()
	i.handler.ServeHTTP(reply, request)
	if i.isDead() {
		// The connection has gone with the process.
		return
	}
	c := w.changeOfDelivery(d)
	if reply.Code != http.StatusOK {
		w.count("callbacks refused")
		if c == nil || !c.overflowed.Load() {
			w.failf("callback %d is refused although the journal takes it: %d %s", d.number, reply.Code, reply.Body)
		}
		return
	}
	w.count("callbacks acknowledged")
	if c == nil || reply.Header().Get(webhook.StampHeader) != c.Stamp.String() {
		w.failf("callback %d: the reply tells another stamp", d.number)
		return
	}
	c.acknowledged.Store(true)
	if !c.durable.Load() && !c.written.Load() {
		w.failf("callback %d is acknowledged, and neither on the disk nor in the API server", d.number)
	}
	if !c.overflowed.Load() && time.Now().UnixNano() != c.committed.Load() {
		w.failf("callback %d was on the disk and waited for its reply all the same", d.number)
	}
}

func (i *incarnation) String() string {
	return fmt.Sprintf("receiver %d.%d", i.replica.index, i.number)
}
