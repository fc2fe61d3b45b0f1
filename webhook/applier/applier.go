package applier

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/groupwriter"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
)

const (
	// spacing is the least time between two writes to one group. What arrives in between is merged: a group that changes
	// 1,000 times a second costs the API server ten writes.
	spacing = 100 * time.Millisecond

	// maxInFlight bounds the writes that are in flight at once, over all groups.
	maxInFlight = 16

	// gentleInFlight is the bound while callbacks come. They and the API server share a disk or a processor often enough, and
	// a reply that waits costs more than an object that lags: with 16, OpenIM's slowest replies took two to three times as
	// long. It ends with a lull, in which no callback has come, or when the groups have waited for their turns for longer than
	// patience: the journal must not grow for ever.
	gentleInFlight = 4
	lull           = 100 * time.Millisecond
	patience       = time.Second

	// writeTimeout bounds one write, conflicts included.
	writeTimeout = 30 * time.Second

	// complaints is the least time between two lines in the log about writes that fail for the same reason.
	complaints = time.Minute

	// firstBackoff and maxBackoff bound the wait after a failed write; it doubles with every failure in a row.
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 30 * time.Second

	// maxAge is how old a change may be and still create an object that is missing. The group of an older one may have
	// been dismissed and deleted since, and must not come back from the dead.
	maxAge = 12 * time.Hour
)

// Writer merges a state into a group's object.
type Writer interface {
	Write(ctx context.Context, namespace string, told merge.State, options ...groupwriter.Option) (groupwriter.Result, error)
}

// Journal holds what waits, forgets what was applied and puts aside what never can be.
type Journal interface {
	// Load returns an entry, and false if it was removed or put aside.
	Load(sequence uint64) (journal.Entry, bool, error)
	Remove(sequences []uint64) error
	Bury(sequences []uint64) error
}

// Options of an Applier. All but Jitter are required.
type Options struct {
	Writer   Writer
	Journal  Journal
	Now      func() time.Time
	Log      logr.Logger
	Registry prometheus.Registerer
	// Jitter returns a random duration from 0 up to most, for the wait after a failure; nil for one that nobody can repeat.
	Jitter func(most time.Duration) time.Duration
}

// Applier applies entries of the journal. It is safe for concurrent use.
type Applier struct {
	writer  Writer
	journal Journal
	now     func() time.Time
	log     logr.Logger
	jitter  func(most time.Duration) time.Duration
	metrics *metrics

	mu     sync.Mutex
	groups map[groupKey]*group
	// complained is when a failure for a reason was logged last.
	complained map[string]time.Time
	// ready are the groups whose turn it is.
	ready turns
	// added is when an entry came last, and waited how long the group that was last taken had waited for its turn.
	added  time.Time
	waited time.Duration
	// wake has room for one token per worker.
	wake chan struct{}
	// settled is closed when nothing waits any more; nil while nobody asks.
	settled chan struct{}
}

type groupKey struct{ namespace, server, groupID string }

// group is what waits for one group's object.
type group struct {
	key groupKey
	// waiting are the entries that no write has taken yet, and writing those of the write in flight, both in the order of
	// acceptance.
	waiting, writing []pending
	// busy: a write is in flight, a turn is scheduled, or it is the group's turn, since then.
	busy     bool
	since    time.Time
	failures int
	// reason is why the last write failed, or empty.
	reason string
}

// pending is what is remembered of an entry: what was told stays on the disk until it is written. In an outage millions may
// wait.
type pending struct {
	sequence uint64
	received time.Time
}

// New returns an applier. It applies nothing before Start.
func New(options Options) *Applier {
	a := &Applier{
		writer:  options.Writer,
		journal: options.Journal,
		now:     options.Now,
		log:     options.Log,
		jitter:  options.Jitter,
		groups:  map[groupKey]*group{},
		ready:   newTurns(),

		complained: map[string]time.Time{},
		wake:       make(chan struct{}, maxInFlight),
	}
	if a.jitter == nil {
		a.jitter = rand.N[time.Duration]
	}
	a.metrics = newMetrics(options.Registry, a)
	return a
}

// Add takes an entry of the journal for application.
func (a *Applier) Add(entry journal.Entry) {
	key := groupKey{entry.Namespace, entry.Change.Spec.ServerName, entry.Change.Spec.GroupID}
	a.mu.Lock()
	defer a.mu.Unlock()
	g, found := a.groups[key]
	if !found {
		g = &group{key: key}
		a.groups[key] = g
	}
	g.waiting = append(g.waiting, pending{entry.Sequence, entry.Change.Received})
	a.added = a.now()
	if !g.busy {
		g.busy = true
		a.enqueue(g)
	}
}

// enqueue makes it the group's turn. The caller holds the lock.
func (a *Applier) enqueue(g *group) {
	g.since = a.now()
	a.ready.add(g)
	a.nudge()
}

// nudge wakes a worker that has nothing to do, if there is one.
func (a *Applier) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// bound is how many writes may be in flight now. The caller holds the lock.
func (a *Applier) bound() int {
	// The clock may be set back in between.
	if since := a.now().Sub(a.added); since >= 0 && since < lull && a.waited < patience {
		return gentleInFlight
	}
	return maxInFlight
}

// Start applies entries until the context ends. What is not applied then stays in the journal. It implements
// manager.Runnable.
func (a *Applier) Start(ctx context.Context) error {
	var workers sync.WaitGroup
	for range maxInFlight {
		workers.Go(func() {
			for a.next(ctx) {
			}
		})
	}
	workers.Wait()
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica applies what it received.
func (a *Applier) NeedLeaderElection() bool { return false }

// next applies what waits for the group whose turn it is, and reports whether to go on.
func (a *Applier) next(ctx context.Context) bool {
	g, entries := a.take()
	if g == nil {
		select {
		case <-ctx.Done():
			return false
		case <-a.wake:
			return true
		}
	}
	if ctx.Err() != nil {
		return false
	}
	a.finish(g, a.apply(ctx, g.key, entries))
	return true
}

func (a *Applier) take() (*group, []pending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.ready.take(a.bound())
	if g == nil {
		return nil, nil
	}
	a.waited = a.now().Sub(g.since)
	g.writing, g.waiting = g.waiting, nil
	return g, g.writing
}

// leftover is what a write could not bring into the API server.
type leftover struct {
	entries []pending
	// wait is how long the API server asked to wait.
	wait time.Duration
	// reason is one of the openimv1.Pending… reasons.
	reason string
}

// finish notes what is left of a group's entries and when its next turn may come.
func (a *Applier) finish(g *group, left leftover) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready.done(g)
	if a.ready.any() {
		// One more may be allowed than before.
		a.nudge()
	}
	g.waiting, g.writing = append(left.entries, g.waiting...), nil
	g.reason = left.reason
	wait := spacing
	if len(left.entries) > 0 {
		g.failures++
		wait = max(left.wait, a.backoff(g.failures))
	} else {
		g.failures = 0
	}
	time.AfterFunc(wait, func() { a.turn(g) })
}

// turn makes it the group's turn if anything waits for it, and forgets the group otherwise.
func (a *Applier) turn(g *group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(g.waiting) == 0 {
		delete(a.groups, g.key)
		if len(a.groups) == 0 && a.settled != nil {
			close(a.settled)
			a.settled = nil
		}
		return
	}
	a.enqueue(g)
}

// Settle waits until everything is applied, and reports false if the context ends before.
func (a *Applier) Settle(ctx context.Context) bool {
	a.mu.Lock()
	if len(a.groups) == 0 {
		a.mu.Unlock()
		return true
	}
	if a.settled == nil {
		a.settled = make(chan struct{})
	}
	settled := a.settled
	a.mu.Unlock()
	select {
	case <-settled:
		return true
	case <-ctx.Done():
		return false
	}
}

// backoff is how long to wait after so many failures in a row, with jitter: many groups fail at the same moment.
func (a *Applier) backoff(failures int) time.Duration {
	full := min(firstBackoff<<min(failures-1, 16), maxBackoff)
	return full/2 + a.jitter(full/2)
}

// apply writes the entries in one write, and returns those that must be tried again.
func (a *Applier) apply(ctx context.Context, key groupKey, entries []pending) (left leftover) {
	err := a.write(ctx, key, entries)
	verdict := judge(err)
	_, foreign := errors.AsType[*groupwriter.IdentityError](err)
	if verdict == impossible && len(entries) > 1 && !foreign {
		// One bad change must not take the good ones along; an object of another group refuses them all.
		for _, entry := range entries {
			again := a.apply(ctx, key, []pending{entry})
			left.entries = append(left.entries, again.entries...)
			left.wait, left.reason = max(left.wait, again.wait), cmp.Or(again.reason, left.reason)
		}
		return left
	}
	sequences := make([]uint64, 0, len(entries))
	for _, entry := range entries {
		sequences = append(sequences, entry.sequence)
	}
	switch verdict {
	case applied:
		a.metrics.applied.Add(float64(len(entries)))
		if err := a.journal.Remove(sequences); err != nil {
			// The journal has failed and the process is about to end; the entries are applied again after it.
			a.log.Error(err, "Applied changes stay in the journal")
		}
	case impossible:
		a.metrics.buried.Add(float64(len(entries)))
		a.log.Error(err, "Change put aside as a dead letter: the API server will never take it", "namespace", key.namespace, "sequences", sequences)
		if err := a.journal.Bury(sequences); err != nil {
			a.log.Error(err, "Dead letter stays in the journal")
		}
	case passing:
		left = leftover{entries: entries, wait: RetryAfter(err), reason: reasonOf(err)}
		a.metrics.retried.WithLabelValues(left.reason).Inc()
		a.complain(ctx, left.reason, err)
	}
	return left
}

// complain logs that writes fail and why, at most once in complaints for each reason: in an outage every group fails.
func (a *Applier) complain(ctx context.Context, reason string, err error) {
	if ctx.Err() != nil {
		// It is we who end.
		return
	}
	a.mu.Lock()
	last, before := a.complained[reason]
	now := a.now()
	due := !before || now.Sub(last) >= complaints
	if due {
		a.complained[reason] = now
	}
	waiting := len(a.groups)
	a.mu.Unlock()
	if due {
		a.log.Info("Writes to the API server fail; the changes stay in the journal and are tried again", "reason", reason, "groups", waiting, "error", err.Error())
	}
}

// write merges the entries and writes the result.
func (a *Applier) write(ctx context.Context, key groupKey, entries []pending) error {
	told := merge.State{Spec: openimv1.GroupInfoSpec{ServerName: key.server, GroupID: key.groupID}}
	newest, confirmed := time.Time{}, false
	for _, waiting := range entries {
		entry, found, err := a.journal.Load(waiting.sequence)
		if err != nil {
			return err
		} else if !found {
			// It came twice, and was applied the first time.
			continue
		}
		told.Join(entry.Change.State())
		confirmed = confirmed || entry.Confirmed
		if entry.Change.Received.After(newest) {
			newest = entry.Change.Received
		}
	}
	if len(told.History) == 0 {
		return nil
	}
	var options []groupwriter.Option
	if a.now().Sub(newest) > maxAge && !confirmed {
		options = append(options, groupwriter.OnlyIfPresent)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	started := a.now()
	_, err := a.writer.Write(ctx, key.namespace, told, options...)
	a.metrics.duration.Observe(a.now().Sub(started).Seconds())
	return err
}

// Backlog is what waits for one OpenIMServer's groups.
type Backlog struct {
	// Oldest is when the oldest change was received that is not in the API server.
	Oldest time.Time
	// Reason is one of the openimv1.Pending… reasons: why that change could not be written. It is empty if no attempt failed.
	Reason string
}

// Backlogs returns what waits or is in flight, by OpenIMServer. It looks at every group for which something does.
func (a *Applier) Backlogs() map[journal.Tenant]Backlog {
	a.mu.Lock()
	defer a.mu.Unlock()
	backlogs := map[journal.Tenant]Backlog{}
	for _, g := range a.groups {
		tenant := journal.Tenant{Namespace: g.key.namespace, Server: g.key.server}
		// Both are in the order of acceptance.
		for _, entries := range [][]pending{g.writing, g.waiting} {
			if len(entries) == 0 {
				continue
			}
			received := entries[0].received
			if known, found := backlogs[tenant]; !found || received.Before(known.Oldest) {
				backlogs[tenant] = Backlog{Oldest: received, Reason: g.reason}
			}
		}
	}
	return backlogs
}

// Oldest returns the time of receipt of the oldest change that waits or is in flight, and false if there is none.
func (a *Applier) Oldest() (oldest time.Time, found bool) {
	for _, backlog := range a.Backlogs() {
		if oldest.IsZero() || backlog.Oldest.Before(oldest) {
			oldest = backlog.Oldest
		}
	}
	return oldest, !oldest.IsZero()
}
