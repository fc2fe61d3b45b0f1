package groupwriter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/apierr"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
	"github.com/groupinfo-operator/groupinfo-operator/internal/stamp"
)

// FieldManager is the name under which GroupInfos are written.
const FieldManager = "groupinfo-operator-groups"

// Result says what a write did.
type Result string

const (
	// Created means that the object was missing.
	Created Result = "created"
	// Patched means that the object learned something.
	Patched Result = "patched"
	// Unchanged means that the object knew it all, and nothing was written.
	Unchanged Result = "unchanged"
)

// Option changes how a state is written.
type Option int

// OnlyIfPresent makes Write return ErrAbsent instead of creating the object.
const OnlyIfPresent Option = iota + 1

// ErrAbsent means that there is no object, and that none was to be created.
var ErrAbsent = errors.New("the group has no GroupInfo, and what was told is too old to create one: the group may be gone")

// IdentityError says that the object with the name derived from a group ID belongs to another group or another
// OpenIMServer. Nothing is written then, and no retry helps.
type IdentityError struct {
	// Object is the name of the object that stands in the way.
	Object client.ObjectKey
	// Field is the identifying field that differs: "groupID" or "serverName".
	Field string
}

// Error implements error.
func (e *IdentityError) Error() string {
	return fmt.Sprintf("GroupInfo %s belongs to another group: its spec.%s differs; delete it if that group is gone", e.Object, e.Field)
}

// Writer merges states into GroupInfos. It is safe for concurrent use.
type Writer struct {
	// Client reads from the API server, not from a cache of all groups: they would take memory in every replica.
	Client client.Client
	// Clock learns the stamps that are met in objects, so that later changes come after them.
	Clock *stamp.Clock
	// Namer derives the object's name from the group ID.
	Namer naming.Namer
}

// conflictBackoff spreads out writers that met on one object. Each round one of them wins, so the steps bound the number
// of writers that may meet; the caller's context bounds the time.
var conflictBackoff = wait.Backoff{Duration: 2 * time.Millisecond, Factor: 1.5, Jitter: 1, Steps: 60, Cap: 250 * time.Millisecond}

// Write merges the state into the GroupInfo of its group in the namespace, and creates the object if there is none. When
// it returns without an error, the object holds the state. Errors are those of the API server, of the context, or an
// [IdentityError].
func (w *Writer) Write(ctx context.Context, namespace string, told merge.State, options ...Option) (Result, error) {
	key := client.ObjectKey{Namespace: namespace, Name: w.Namer.GroupInfo(told.Spec.GroupID)}
	var result Result
	var lost error
	err := wait.ExponentialBackoffWithContext(ctx, conflictBackoff, func(ctx context.Context) (done bool, err error) {
		result, err = w.try(ctx, key, told, slices.Contains(options, OnlyIfPresent), lost == nil)
		if errors.As(err, new(*overtakenError)) {
			lost = err
			return false, nil
		}
		return true, err
	})
	if wait.Interrupted(err) && lost != nil {
		err = lost
	}
	if err != nil {
		return "", fmt.Errorf("write GroupInfo %s: %w", key, apierr.WithoutValues(err))
	}
	return result, nil
}

// overtakenError means that somebody else created, changed or deleted the object between our read and our write.
type overtakenError struct{ cause error }

func (e *overtakenError) Error() string { return "others kept writing it: " + e.cause.Error() }
func (e *overtakenError) Unwrap() error { return e.cause }

// errOutdated stands for what an object seems to be that may be outdated.
var errOutdated = errors.New("the object may be outdated, and there was no time to read it again")

// recent lets the API server answer from its watch cache, which costs it half of what a read from etcd does. The object may
// be outdated by some milliseconds: what is then written ends in a conflict.
var recent = &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "0"}}

// try reads, merges and writes once. The first attempt is an optimistic one.
func (w *Writer) try(ctx context.Context, key client.ObjectKey, told merge.State, onlyIfPresent, first bool) (Result, error) {
	if first && told.Created() && !onlyIfPresent {
		// Most likely nobody has told of the group before, and there is nothing to read.
		return w.create(ctx, key, told)
	}
	var options []client.GetOption
	if first {
		options = append(options, recent)
	}
	stored := &openimv1.GroupInfo{}
	err := w.Client.Get(ctx, key, stored, options...)
	switch {
	case apierr.KindMissing(err):
		// Somebody will install the CRD, and whether there is an object nobody knows.
	case apierrors.IsNotFound(err) && !onlyIfPresent:
		return w.create(ctx, key, told)
	case apierrors.IsNotFound(err):
		err = ErrAbsent
	case err == nil:
		err = identify(key, stored, told)
	}
	if _, foreign := errors.AsType[*IdentityError](err); first && (foreign || errors.Is(err, ErrAbsent)) {
		// A verdict that nothing can mend is not passed on an outdated object, nor when the time is up before the next read.
		return "", &overtakenError{errOutdated}
	} else if err != nil {
		return "", err
	}
	return w.merge(ctx, key, stored, told)
}

// identify returns an IdentityError unless the object is the group's.
func identify(key client.ObjectKey, stored *openimv1.GroupInfo, told merge.State) error {
	switch {
	case stored.Spec.GroupID != told.Spec.GroupID:
		return &IdentityError{Object: key, Field: "groupID"}
	case stored.Spec.ServerName != told.Spec.ServerName:
		return &IdentityError{Object: key, Field: "serverName"}
	}
	return nil
}

// merge merges what was told into the object as it was read.
func (w *Writer) merge(ctx context.Context, key client.ObjectKey, stored *openimv1.GroupInfo, told merge.State) (Result, error) {
	state, err := stateOf(stored)
	if err != nil {
		logf.FromContext(ctx).Info("Stamps are unreadable: every field takes its next change", "groupInfo", key, "reason", err.Error())
	}
	for field, s := range state.Stamps {
		if !w.Clock.Plausible(s) {
			logf.FromContext(ctx).Info("Stamp is too far in the future to be true: the field takes its next change", "groupInfo", key, "field", field)
			delete(state.Stamps, field)
			continue
		}
		w.Clock.Observe(s)
	}
	if !state.Join(told) {
		return Unchanged, nil
	}
	merged := stored.DeepCopy()
	setState(merged, state)
	patch := client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{})
	err = w.Client.Patch(ctx, merged, patch, client.FieldOwner(FieldManager))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return "", &overtakenError{err}
	}
	return Patched, err
}

func (w *Writer) create(ctx context.Context, key client.ObjectKey, told merge.State) (Result, error) {
	object := &openimv1.GroupInfo{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	setState(object, told)
	err := w.Client.Create(ctx, object, client.FieldOwner(FieldManager))
	if apierrors.IsAlreadyExists(err) {
		return "", &overtakenError{err}
	}
	return Created, err
}
