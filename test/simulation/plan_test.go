package simulation_test

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// replicas is the number of receivers.
const replicas = 3

// poison is the group name that the API server refuses.
const poison = "poison"

// lateAfter is how old a change may be and still create an object.
const lateAfter = 12 * time.Hour

// keyed returns the random numbers for one purpose. What one purpose draws moves nothing for the others, so the order in
// which goroutines run decides nothing.
func keyed(seed uint64, purpose ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintln(h, purpose...)
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// plan is all that a seed decides beforehand. Times are since the start.
type plan struct {
	seed   uint64
	groups []string
	events []event
	// end is when the last event is over: nothing fails after it, and every receiver runs.
	end time.Duration

	windows []window
	// latency is the most that a request usually takes in one direction.
	latency time.Duration
	// failing, lost, conflicting and slow are the shares of the requests that fail before they are executed, lose their
	// reply, are told of a conflict that is none, and take seconds.
	failing, lost, conflicting, slow float64
	// measureEvery is how old a measurement of the clock may get.
	measureEvery time.Duration
	// wrongDates is the share of replies whose Date is hours off.
	wrongDates float64

	// fsync is the most that a commit usually takes.
	fsync time.Duration
	// room is how many entries fit into a journal, and breaking and stuck are the shares of appends with which the disk fails
	// and which it holds up for seconds.
	room            int
	breaking, stuck float64
	// skews are what the clocks are off at the start. poisoned: some changes are refused for good.
	skews    [replicas]time.Duration
	poisoned bool
}

type event struct {
	at time.Duration
	// One of these.
	deliver *delivery
	crash   *crash
	skew    *skew
	deleted string
}

// delivery is one request of OpenIM. Copies of a callback are deliveries of their own: each gets a stamp.
type delivery struct {
	number   int
	callback openim.Callback
	dialect  openim.Dialect
	replica  int
}

// crash ends a receiver and starts it again later.
type crash struct {
	replica int
	down    time.Duration
}

// skew sets a receiver's clock.
type skew struct {
	replica int
	to      time.Duration
}

// window is a time in which requests meet the same trouble.
type window struct {
	from, to time.Duration
	// replica is the one concerned, or -1 for all.
	replica int
	share   float64
	fate    fate
}

// fate is what becomes of a request.
type fate string

const (
	served       fate = "served"
	refused      fate = "connection refused"
	hanging      fate = "no answer"
	replyLost    fate = "reply lost"
	serverError  fate = "500"
	overloaded   fate = "429"
	unauthorized fate = "401"
	forbidden    fate = "403"
	conflicting  fate = "spurious 409"
)

// newPlan derives everything from the seed.
func newPlan(seed uint64) *plan {
	r := keyed(seed, "plan")
	horizon := pick(r, 300*time.Millisecond, 3*time.Second, 30*time.Second, 10*time.Minute)
	p := &plan{
		seed:        seed,
		latency:     pick(r, time.Millisecond, 10*time.Millisecond, 60*time.Millisecond),
		failing:     pick(r, 0, 0.02, 0.1, 0.3),
		lost:        pick(r, 0, 0.02, 0.1),
		conflicting: pick(r, 0, 0.02, 0.1),
		slow:        pick(r, 0, 0.02, 0.05),
		wrongDates:  pick(r, 0, 0.1, 0.3),
		fsync:       pick(r, time.Millisecond, 20*time.Millisecond, 500*time.Millisecond),
		room:        pick(r, 1<<20, 1<<20, 1<<20, 3),
		breaking:    pick(r, 0, 0, 0.05),
		stuck:       pick(r, 0, 0, 0.05),
		poisoned:    r.IntN(6) == 0,

		measureEvery: time.Minute,
		end:          horizon,
	}
	// Late changes are told from others by their age, so the clocks must agree on it.
	late := r.IntN(20) == 0
	if late {
		// Half a day is long.
		p.measureEvery = time.Hour
	}
	for i := range p.skews {
		p.skews[i] = p.anySkew(r, late)
	}
	ids := []string{"g1", "G/2 ä", "a-third"}
	p.groups = ids[:1+r.IntN(len(ids))]
	for _, group := range p.groups {
		p.callbacks(r, group, horizon)
	}
	for range r.IntN(4) {
		p.trouble(r, horizon)
	}
	for range r.IntN(5) {
		p.add(event{at: anywhere(r, horizon), crash: &crash{
			replica: r.IntN(replicas),
			down:    anywhere(r, pick(r, 50*time.Millisecond, 5*time.Second, time.Minute)),
		}})
	}
	for range r.IntN(3) {
		p.add(event{at: anywhere(r, horizon), skew: &skew{replica: r.IntN(replicas), to: p.anySkew(r, late)}})
	}
	if r.IntN(4) == 0 || late {
		for range 1 + r.IntN(3) {
			p.add(event{at: anywhere(r, horizon), deleted: pick(r, p.groups...)})
		}
	}
	if late {
		// A receiver sleeps for half a day on what it could not write, and the groups may be gone when it wakes up.
		asleep := r.IntN(replicas)
		p.windows = append(p.windows, window{from: horizon / 3, to: horizon, replica: asleep, share: 1, fate: refused})
		at := horizon - anywhere(r, horizon/10)
		down := lateAfter + time.Duration(r.IntN(120)-30)*time.Minute
		p.add(event{at: at, crash: &crash{replica: asleep, down: down}})
		for _, group := range p.groups {
			if r.IntN(2) == 0 {
				p.add(event{at: at + anywhere(r, down), deleted: group})
			}
		}
		if r.IntN(2) == 0 {
			d := &delivery{callback: p.callback(r, p.groups[0]), dialect: openim.DialectServer, replica: asleep}
			p.add(event{at: at + down + anywhere(r, time.Second), deliver: d})
		}
	}
	slices.SortFunc(p.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	for i, e := range p.events {
		if e.deliver != nil {
			e.deliver.number = i
			e.deliver.callback.OperationID = fmt.Sprintf("operation %d", i)
		}
	}
	return p
}

func (p *plan) add(e event) {
	p.events = append(p.events, e)
	p.end = max(p.end, e.at)
	if e.crash != nil {
		p.end = max(p.end, e.at+e.crash.down)
	}
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// anywhere returns a moment before the end, to the nanosecond, so that no two events share one.
func anywhere(r *rand.Rand, end time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(max(end, 1))))
}

// anySkew is nothing, what the network makes of an exact clock, or hours. Two receivers stay less than twelve hours apart:
// beyond that the age of a change says nothing until the clock is measured.
func (p *plan) anySkew(r *rand.Rand, late bool) time.Duration {
	most := pick(r, 0, 200*time.Millisecond, 20*time.Second, 5*time.Hour)
	if late {
		most = min(most, 10*time.Second)
	}
	if most == 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(2*most))) - most
}

// trouble adds a window.
func (p *plan) trouble(r *rand.Rand, horizon time.Duration) {
	from := anywhere(r, horizon)
	w := window{
		from:    from,
		to:      from + anywhere(r, pick(r, time.Second, 30*time.Second, 8*time.Minute)),
		replica: r.IntN(2*replicas) - replicas,
		share:   pick(r, 0.3, 1, 1),
		fate:    pick(r, refused, refused, hanging, replyLost, serverError, overloaded, unauthorized, forbidden),
	}
	if w.replica < 0 {
		w.replica = -1
	}
	p.windows = append(p.windows, w)
	p.end = max(p.end, w.to)
}

// callbacks adds what OpenIM tells of one group, copied, shuffled and delayed.
func (p *plan) callbacks(r *rand.Rand, group string, horizon time.Duration) {
	told := []openim.Callback{created(r, group)}
	for range 1 + r.IntN(pick(r, 4, 6, 8, 30)) {
		told = append(told, p.callback(r, group))
	}
	if r.IntN(3) == 0 {
		dismissed := openim.Callback{Command: openim.AfterDismissGroup, GroupID: group}
		dismissed.Group.GroupStatus = new(openim.GroupStatusDismissed)
		// Servers send it twice, and what was on its way comes after it.
		at := len(told) - r.IntN(2)
		told = slices.Insert(told, at, dismissed, dismissed)
	}
	for i, callback := range told {
		for range 1 + r.IntN(5)/3 {
			at := horizon * time.Duration(i) / time.Duration(len(told))
			at += anywhere(r, pick(r, time.Millisecond, 100*time.Millisecond, horizon/4, horizon-at))
			d := &delivery{callback: callback, dialect: p.dialect(r, callback), replica: r.IntN(replicas)}
			p.add(event{at: at, deliver: d})
		}
	}
}

// dialect is one that can say it.
func (p *plan) dialect(r *rand.Rand, callback openim.Callback) openim.Dialect {
	dialect := pick(r, openim.Dialects()...)
	if _, err := openim.Encode(dialect, callback); err != nil {
		return openim.DialectServer
	}
	return dialect
}

func created(r *rand.Rand, group string) openim.Callback {
	return openim.Callback{Command: openim.AfterCreateGroup, GroupID: group, Group: openim.GroupFields{
		GroupName: value(r), Notification: value(r), Introduction: value(r), FaceURL: value(r), Ex: value(r),
		NeedVerification: number(r), LookMemberInfo: number(r), ApplyMemberFriend: number(r),
		OwnerUserID: value(r), CreatorUserID: value(r),
		GroupType: number(r), GroupStatus: number(r), CreateTime: new(1_700_000_000_000 + r.Int64N(3)),
	}}
}

// value is one of few, so that A comes after B after A.
func value(r *rand.Rand) *string { return new(pick(r, "a", "b", "c", "<d>")) }
func number(r *rand.Rand) *int32 { return new(int32(r.IntN(3))) }

// callback returns one that tells of an existing group.
func (p *plan) callback(r *rand.Rand, group string) openim.Callback {
	callback := openim.Callback{Command: openim.AfterSetGroupInfoEx, GroupID: group}
	told := &callback.Group
	switch r.IntN(8) {
	case 0:
		callback.Command = openim.AfterTransferGroupOwner
		told.OwnerUserID = value(r)
		return callback
	case 1:
		callback.Command = openim.AfterSetGroupInfo
	}
	for _, field := range []**string{&told.GroupName, &told.Notification, &told.Introduction, &told.FaceURL, &told.Ex} {
		if r.IntN(3) == 0 {
			*field = value(r)
		}
		if r.IntN(12) == 0 && callback.Command == openim.AfterSetGroupInfoEx {
			*field = new("")
		}
	}
	for _, field := range []**int32{&told.NeedVerification, &told.LookMemberInfo, &told.ApplyMemberFriend} {
		if r.IntN(4) == 0 {
			*field = number(r)
		}
	}
	switch {
	case p.poisoned && r.IntN(6) == 0:
		told.GroupName = new(poison)
	case r.IntN(400) == 0:
		// Too large to store: what is stored is that it was omitted.
		told.Ex = new(strings.Repeat("<", merge.MaxTextBytes/6+1))
	}
	return callback
}
