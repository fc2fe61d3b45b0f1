package simulation_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/journal"
	"github.com/groupinfo-operator/groupinfo-operator/webhook/openim"
)

// historyLimit is the number of history entries that an object keeps.
const historyLimit = 16

// change is a delivery that a receiver has stamped.
type change struct {
	merge.Change
	delivery *delivery
	at       time.Time

	// acknowledged: OpenIM was told so. durable: a journal holds or held it. overflowed: it was written before the reply
	// instead. written: an object holds or held it. buried: it is a dead letter.
	acknowledged, durable, overflowed, written, buried atomic.Bool
	// committed is when the journal said so, in nanoseconds.
	committed atomic.Int64
}

// newest returns when the newest change of the batch was received.
func (b *batch) newest() time.Time {
	return slices.MaxFunc(b.changes, func(x, y *change) int { return x.at.Compare(y.at) }).at
}

// stamped takes in a change that a receiver has just stamped, and checks its stamp against the true time.
func (i *incarnation) stamped(ctx context.Context, told merge.Change) {
	d, ok := ctx.Value(deliveryKey{}).(*delivery)
	if !ok {
		i.failf("a change comes from nowhere")
		return
	}
	now := time.Now()
	i.mu.Lock()
	observed := i.observed
	i.mu.Unlock()
	settled := i.replica.settled()

	w := i.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, twice := w.changes[told.Stamp.String()]; twice {
		w.failf("callback %d has the stamp of another", d.number)
	}
	w.changes[told.Stamp.String()] = &change{Change: told, delivery: d, at: now}
	w.byDelivery[d] = w.changes[told.Stamp.String()]

	at := told.Stamp.HLC
	if rank := rankOf(d.callback.Command); told.Stamp.Rank != rank {
		w.failf("callback %d has the rank %d, not %d", d.number, told.Stamp.Rank, rank)
	}
	if at <= observed {
		w.failf("callback %d has a stamp before one that its receiver had read in an object", d.number)
	}
	if settled {
		w.count("stamps by a clock that was measured")
		if at.Time().Before(now.Add(-clockError)) {
			w.failf("callback %d has a stamp %v behind the API server's clock", d.number, now.Sub(at.Time()))
		}
		// One that follows an earlier stamp is as wrong as that.
		if at.Time().After(now.Add(clockError)) && at > w.latest+1 {
			w.failf("callback %d has a stamp %v ahead of the API server's clock", d.number, at.Time().Sub(now))
		}
	}
	w.latest = max(w.latest, at)
}

func rankOf(command openim.Command) stamp.Rank {
	switch command {
	case openim.AfterCreateGroup:
		return 0
	case openim.AfterDismissGroup:
		return 2
	}
	return 1
}

// changeOf returns what is known of a journal's entry.
func (w *world) changeOf(entry journal.Entry) *change {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, found := w.changes[entry.Change.Stamp.String()]
	if !found {
		w.failf("an entry has a stamp that no change had")
		c = &change{Change: entry.Change}
	}
	return c
}

func (w *world) changeOfDelivery(d *delivery) *change {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byDelivery[d]
}

// checkDeadLetter allows what the API server refuses for good, and what came too late for an object that is not there.
func (i *incarnation) checkDeadLetter(c *change) {
	name := c.delivery.callback.Group.GroupName
	age := time.Since(c.at)
	object := i.writer.Namer.GroupInfo(c.delivery.callback.GroupID)
	switch {
	case name != nil && *name == poison:
		i.count("dead letters that were poison")
	case age > lateAfter-clockError && !i.server.present(object, time.Now().Add(-2*slowest)):
		i.count("dead letters that were late")
	default:
		i.failf("callback %d is a dead letter without a reason, after %v", c.delivery.number, age)
	}
}

// told returns the fields that a callback tells, by their names in the spec. A value that is too large is an omission.
func told(fields openim.GroupFields) map[string]any {
	told := map[string]any{}
	spec := reflect.TypeFor[openimv1.GroupInfoSpec]()
	value := reflect.ValueOf(fields)
	for n := range value.NumField() {
		if value.Field(n).IsNil() {
			continue
		}
		counterpart, _ := spec.FieldByName(value.Type().Field(n).Name)
		name := jsonName(counterpart)
		told[name] = value.Field(n).Elem().Interface()
		// Nothing else comes near the bound.
		if text, ok := told[name].(string); ok && len(text) > 1000 {
			sum := sha256.Sum256([]byte(text))
			told[name] = openimv1.OmittedField{Field: name, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:])}
		}
	}
	return told
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// held returns the fields that an object holds, by their names, and its omissions among them.
func held(spec openimv1.GroupInfoSpec) map[string]any {
	held := map[string]any{}
	value := reflect.ValueOf(spec)
	for n := range value.NumField() {
		if f := value.Field(n); f.Kind() == reflect.Pointer && !f.IsNil() {
			held[jsonName(value.Type().Field(n))] = f.Elem().Interface()
		}
	}
	for _, omitted := range spec.Omitted {
		held[omitted.Field] = omitted
	}
	return held
}

// stampsOf reads the annotation of an object: a stamp for each field.
func stampsOf(w *world, o *openimv1.GroupInfo) map[string]string {
	stamps := map[string]string{}
	for group := range strings.SplitSeq(o.Annotations[openimv1.AnnotationStamps], ";") {
		at, names, _ := strings.Cut(group, "=")
		for name := range strings.SplitSeq(names, ",") {
			if stamps[name] != "" {
				w.failf("%s: %s has two stamps", o.Name, name)
			}
			if name != "" {
				stamps[name] = at
			}
		}
	}
	return stamps
}

// content is what matters of an object.
type content struct {
	GroupID, ServerName string
	Fields              map[string]any
	Stamps              map[string]string
	History             []openimv1.HistoryEntry
}

// merged computes what an object holds that got the changes.
func merged(group string, changes map[*change]bool) content {
	c := content{GroupID: group, ServerName: serverName, Fields: map[string]any{}, Stamps: map[string]string{}}
	for change := range changes {
		// Written at a fixed width, stamps compare as texts.
		at := change.Stamp.String()
		fields := told(change.delivery.callback.Group)
		for name, value := range fields {
			if at > c.Stamps[name] {
				c.Stamps[name], c.Fields[name] = at, value
			}
		}
		entry := openimv1.HistoryEntry{
			Stamp: at, Command: string(change.delivery.callback.Command), OperationID: change.delivery.callback.OperationID,
			Fields: slices.Sorted(maps.Keys(fields)),
		}
		entry.Time.Time = change.Received.Truncate(time.Second)
		c.History = append(c.History, entry)
	}
	slices.SortFunc(c.History, func(x, y openimv1.HistoryEntry) int {
		return cmp.Or(cmp.Compare(y.Stamp[2:], x.Stamp[2:]), cmp.Compare(y.Stamp, x.Stamp))
	})
	c.History = c.History[:min(len(c.History), historyLimit)]
	return c
}

// check compares an object with the changes that went into it.
func (s *apiServer) check(name string, o *object) {
	got := content{
		GroupID: o.stored.Spec.GroupID, ServerName: o.stored.Spec.ServerName,
		Fields: held(o.stored.Spec), Stamps: stampsOf(s.world, o.stored), History: o.stored.History,
	}
	want := merged(got.GroupID, o.holds)
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		s.failf("%s is not the merge of the %d changes that went into it (-want +got):\n%s", name, len(o.holds), diff)
	}
	if o.writes > len(o.holds) {
		s.failf("%s took %d writes for %d changes", name, o.writes, len(o.holds))
	}
	s.counts("changes compared", len(o.holds))
}

// judge checks all that must hold when everything is over.
func (w *world) judge() {
	for _, r := range w.replicas {
		if waiting, _ := r.disk.left(); waiting > 0 {
			w.failf("%d changes still wait at receiver %d", waiting, r.index)
		}
	}
	for _, c := range w.changes {
		must := c.acknowledged.Load() || c.durable.Load()
		if must && !c.written.Load() && !c.buried.Load() {
			w.failf("callback %d was acknowledged (%v) and is lost", c.delivery.number, c.acknowledged.Load())
		}
	}
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for name, o := range w.server.objects {
		w.server.check(name, o)
	}
}
