package simulation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

var groupInfos = schema.GroupResource{Group: "openim.io", Resource: "groupinfos"}

// apiServer stands for the API server: a linearizable store of GroupInfos.
type apiServer struct {
	*world
	mu      sync.Mutex
	objects map[string]*object
	// revisions outlive their objects: an object that returns never has a version that its predecessor had.
	revisions map[string]int
	// versions are all that was ever to be read of an object, the last one last.
	versions map[string][]version
}

// version is what there is to be read of an object from a moment on; nothing, if it was deleted then.
type version struct {
	at     time.Time
	of     *object
	stored *openimv1.GroupInfo
}

// object is one life of a GroupInfo, from its creation to its deletion.
type object struct {
	raw    []byte
	stored *openimv1.GroupInfo
	born   time.Time
	// holds are the changes that were written to it, or found in it, and writes counts the writes.
	holds  map[*change]bool
	writes int
}

// batch is what one write is about. The context of each request holds it.
type batch struct {
	changes []*change
	started time.Time
	// seen is the object that the write met last.
	seen *object
}

type batchKey struct{}

func batchOf(ctx context.Context) *batch {
	b, _ := ctx.Value(batchKey{}).(*batch)
	return b
}

// get reads an object as it was a while ago.
func (s *apiServer) get(name string, ago time.Duration) (*object, *openimv1.GroupInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := s.versions[name]
	at := len(versions) - 1
	for then := time.Now().Add(-ago); at >= 0 && versions[at].at.After(then); at-- {
		s.count("versions that a read missed")
	}
	if at < 0 || versions[at].of == nil {
		return nil, nil, apierrors.NewNotFound(groupInfos, name)
	}
	return versions[at].of, versions[at].stored, nil
}

func (s *apiServer) create(name string, body []byte, b *batch) (*object, *openimv1.GroupInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[name] != nil {
		s.count("conflicts between receivers")
		return nil, nil, apierrors.NewAlreadyExists(groupInfos, name)
	}
	if age := b.started.Sub(b.newest()); age > lateAfter+clockError {
		s.failf("%s returns from the dead by a change that is %v old", name, age)
	}
	o := &object{born: time.Now(), holds: map[*change]bool{}}
	if err := s.store(name, o, body, b); err != nil {
		return nil, nil, err
	}
	s.objects[name] = o
	return o, o.stored, nil
}

func (s *apiServer) patch(name string, patch []byte, b *batch) (*object, *openimv1.GroupInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, found := s.objects[name]
	if !found {
		return nil, nil, apierrors.NewNotFound(groupInfos, name)
	}
	var guard struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(patch, &guard); err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if v := guard.Metadata.ResourceVersion; v != "" && v != o.stored.ResourceVersion {
		s.count("conflicts between receivers")
		return nil, nil, apierrors.NewConflict(groupInfos, name, errors.New("the object has been modified"))
	}
	body, err := jsonpatch.MergePatch(o.raw, patch)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if bytes.Equal(body, o.raw) {
		s.failf("%s is written although nothing changes", name)
		return o, o.stored, nil
	}
	if err := s.store(name, o, body, b); err != nil {
		return nil, nil, err
	}
	return o, o.stored, nil
}

// store makes the object hold what the JSON says. The caller holds the lock.
func (s *apiServer) store(name string, o *object, body []byte, b *batch) error {
	next := &openimv1.GroupInfo{}
	if err := json.Unmarshal(body, next); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if next.Spec.GroupName != nil && *next.Spec.GroupName == poison {
		s.count("writes refused as invalid")
		return apierrors.NewInvalid(schema.GroupKind{Group: "openim.io", Kind: "GroupInfo"}, name,
			field.ErrorList{field.Invalid(field.NewPath("spec", "groupName"), poison, "no such name")})
	}
	s.revisions[name]++
	next.ResourceVersion = strconv.Itoa(s.revisions[name])
	if o.stored == nil {
		next.UID = types.UID(fmt.Sprint(name, "/", s.revisions[name]))
		next.CreationTimestamp = metav1.NewTime(time.Now().Truncate(time.Second))
	}
	raw, err := json.Marshal(next)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	// Both come from JSON, so nothing is shared with whoever sent it; readers get copies.
	o.raw, o.stored = raw, next
	s.versions[name] = append(s.versions[name], version{time.Now(), o, next})
	o.writes++
	s.count("writes")
	o.hold(b)
	return nil
}

// hold notes that the object holds what a write is about.
func (o *object) hold(b *batch) {
	for _, c := range b.changes {
		o.holds[c] = true
		c.written.Store(true)
	}
}

// found notes that a write had nothing to do, since the object that it met holds it all.
func (s *apiServer) found(o *object, b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.hold(b)
}

// delete is what a user does.
func (s *apiServer) delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, found := s.objects[name]; found {
		delete(s.objects, name)
		s.versions[name] = append(s.versions[name], version{at: time.Now()})
		s.count("objects deleted")
		s.check(name, o)
	}
}

// present reports whether the object has been there since the moment.
func (s *apiServer) present(name string, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, found := s.objects[name]
	return found && !o.born.After(since)
}

// connection is a client of the API server, over a network. Whoever calls another method than these three panics.
type connection struct {
	client.Client
	from *incarnation
}

func (c connection) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	requested := (&client.GetOptions{}).ApplyOptions(options).AsGetOptions()
	return c.exchange(ctx, "get", key.Name, into, func() (*object, *openimv1.GroupInfo, error) {
		ago := time.Duration(0)
		if requested.ResourceVersion == "0" {
			// Any version will do, and the watch cache of some API server answers.
			ago = c.from.lag(key.Name)
		}
		return c.from.server.get(key.Name, ago)
	})
}

func (c connection) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	b := batchOf(ctx)
	return c.exchange(ctx, "create", o.GetName(), o, func() (*object, *openimv1.GroupInfo, error) {
		return c.from.server.create(o.GetName(), body, b)
	})
}

func (c connection) Patch(ctx context.Context, o client.Object, patch client.Patch, _ ...client.PatchOption) error {
	body, err := patch.Data(o)
	if err != nil {
		return err
	}
	if patch.Type() != types.MergePatchType {
		return apierrors.NewBadRequest("a GroupInfo is written with JSON merge patches")
	}
	b, name := batchOf(ctx), o.GetName()
	return c.exchange(ctx, "patch", name, o, func() (*object, *openimv1.GroupInfo, error) {
		return c.from.server.patch(name, body, b)
	})
}

// exchange sends a request about an object and takes the reply into it.
func (c connection) exchange(ctx context.Context, verb, name string, into client.Object, execute func() (*object, *openimv1.GroupInfo, error)) error {
	var met *object
	var reply *openimv1.GroupInfo
	err := c.from.request(ctx, verb, name, func() (err error) {
		met, reply, err = execute()
		return err
	})
	if err != nil {
		return err
	}
	info, ok := into.(*openimv1.GroupInfo)
	if !ok {
		return apierrors.NewBadRequest("not a GroupInfo")
	}
	reply.DeepCopyInto(info)
	batchOf(ctx).seen = met
	c.from.saw(verb, name, met, reply)
	return nil
}

// request carries one request over the network and back, if it gets so far.
func (i *incarnation) request(ctx context.Context, verb, name string, execute func() error) (err error) {
	number := i.nextRequest(name)
	r := keyed(i.seed, "request", i.replica.index, i.number, name, number)
	fate := i.fateOf(r, i.replica.index, verb)
	there, back := i.delay(r), i.delay(r)
	executesAnyway := r.IntN(2) == 0
	i.count("requests")
	defer func() { i.note(i.replica.index, i.number, name, number, verb, fate, err) }()

	if fate != served {
		i.count("requests: " + string(fate))
	}
	sent, trulySent := i.replica.wall(), time.Now()
	execute = i.onceOnly(execute)
	if fate == hanging {
		there = time.Hour
	}
	if err := i.wait(ctx, there); err != nil {
		// What is on its way cannot be called back.
		if rest := there - time.Since(trulySent); executesAnyway && (fate == served || fate == replyLost) {
			time.AfterFunc(rest, func() {
				if execute() == nil && verb != "get" {
					i.count("writes executed after their sender was gone")
				}
			})
		}
		return err
	}
	date := time.Now()
	switch fate {
	case served, replyLost:
		err = execute()
	case refused:
		return errors.New("connection refused")
	case serverError:
		err = apierrors.NewInternalError(errors.New("etcd has no leader"))
	case overloaded:
		err = apierrors.NewTooManyRequests("slow down", 1+r.IntN(5))
	case unauthorized:
		err = apierrors.NewUnauthorized("the token has expired")
	case forbidden:
		err = apierrors.NewForbidden(groupInfos, name, errors.New("the role is gone"))
	case conflicting:
		err = apierrors.NewConflict(groupInfos, name, errors.New("the object has been modified"))
	}
	if lost := i.wait(ctx, back); lost != nil {
		return lost
	}
	if fate == replyLost {
		return errors.New("connection reset by peer")
	}
	i.measure(r, date, sent, trulySent)
	return err
}

// onceOnly guards against a request that is executed twice: the network copies nothing.
func (w *world) onceOnly(execute func() error) func() error {
	done := false
	return func() error {
		if done {
			w.failf("a request is executed twice: the simulation is broken")
		}
		done = true
		return execute()
	}
}

// wait lets time pass for a request, unless its sender gives up or dies.
func (i *incarnation) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-i.dead:
	}
	if i.isDead() {
		return errCrashed
	}
	return ctx.Err()
}

// fateOf decides on a request.
func (w *world) fateOf(r *rand.Rand, replica int, verb string) fate {
	now := time.Since(w.start)
	one, other := r.Float64(), r.Float64()
	if now > w.end {
		return served
	}
	at := slices.IndexFunc(w.windows, func(t window) bool {
		return t.from <= now && now < t.to && (t.replica == -1 || t.replica == replica) && one < t.share
	})
	switch {
	case at >= 0:
		return w.windows[at].fate
	case other < w.failing:
		return pick(r, refused, refused, serverError, overloaded, hanging)
	case other < w.failing+w.lost:
		return replyLost
	case other < w.failing+w.lost+w.conflicting && verb == "patch":
		return conflicting
	}
	return served
}

// lag is how far behind a watch cache is.
func (i *incarnation) lag(name string) time.Duration {
	r := keyed(i.seed, "lag", i.replica.index, i.number, name, time.Since(i.start))
	return anywhere(r, pick(r, time.Millisecond, 50*time.Millisecond, 2*time.Second))
}

// slowest is the most that a request takes in one direction.
const slowest = 2 * time.Second

func (w *world) delay(r *rand.Rand) time.Duration {
	if r.Float64() < w.slow && time.Since(w.start) < w.end {
		return anywhere(r, slowest)
	}
	return anywhere(r, w.latency)
}
