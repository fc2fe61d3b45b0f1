package groupinfo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/apierr"
	"github.com/groupinfo-operator/groupinfo-operator/internal/ownwrites"
)

// FieldManager is the name under which this controller writes. The managed fields of a ConfigMap under this name are how
// it recognises its own content.
const FieldManager = "groupinfo-operator"

// configMaps keeps the ConfigMaps of GroupSyncs with a ConfigMap target.
type configMaps struct {
	// client reads ConfigMaps' metadata from the cache.
	client client.Client
	// live reads from the API server.
	live client.Reader
	// writes outweigh the cache until it shows them.
	writes *ownwrites.Writes
}

// maxDataBytes is what a ConfigMap holds, keys and values together.
const maxDataBytes = 1 << 20

// desired is the ConfigMap that a GroupSync wants for a group.
type desired struct {
	key client.ObjectKey
	// group is the name of the GroupInfo.
	group       string
	labels      map[string]string
	annotations map[string]string
	owner       metav1.OwnerReference
	// retain: it outlives its owner, so it refers to none.
	retain bool
	data   map[string]string
	hash   string
}

// configMapName returns the name that a group's ConfigMap has where its GroupSync gives it none. Names of GroupSyncs and
// GroupInfos are DNS labels, which hold no dot, so no two pairs share one.
func configMapName(sync *openimv1.GroupSync, group string) string { return sync.Name + "." + group }

// userError is why a ConfigMap cannot be what the GroupSync asks for. It is for the user, and no retry helps.
type userError struct{ message string }

func (e *userError) Error() string { return e.message }

// desire computes the ConfigMap for the group. A *userError says what in the GroupSync, or in the group, stands against it.
func desire(t *task) (desired, error) {
	target := t.sync.Spec.Target.ConfigMap
	name, err := t.rules.Name(t.group)
	if err != nil {
		return desired{}, &userError{err.Error()}
	}
	switch {
	case name == "":
		name = configMapName(t.sync, t.group.Name)
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		return desired{}, &userError{"spec.target.configMap.name gives no valid name for this group: lower-case letters, digits, - and ., at most 253 characters"}
	}
	data, err := t.rules.Data(t.group)
	if err != nil {
		return desired{}, &userError{err.Error()}
	}
	if data == nil {
		if data, err = layOut(t.rules.Content(t.group.Spec), target.Format); err != nil {
			return desired{}, err
		}
	}
	size := 0
	for key, value := range data {
		size += len(key) + len(value)
	}
	if size > maxDataBytes {
		return desired{}, &userError{fmt.Sprintf("the content takes %d bytes and a ConfigMap holds %d; choose less of the group with spec.fields or data", size, maxDataBytes)}
	}
	hash, err := contentHash(data)
	if err != nil {
		return desired{}, err
	}
	return desired{
		key:    client.ObjectKey{Namespace: t.group.Namespace, Name: name},
		group:  t.group.Name,
		labels: with(target.Labels, targetLabels(t.sync, t.group)),
		annotations: with(target.Annotations, map[string]string{
			openimv1.AnnotationContentHash: hash,
			openimv1.AnnotationKeptFor:     string(t.sync.UID) + "/" + t.group.Name,
		}),
		owner:  controllerReference(t.sync),
		retain: retains(t.sync),
		data:   data,
		hash:   hash,
	}, nil
}

func retains(sync *openimv1.GroupSync) bool {
	return sync.Spec.Target.ConfigMap != nil && sync.Spec.Target.ConfigMap.DeletionPolicy == openimv1.DeletionRetain
}

// keptBy reports whether the object is the GroupSync's: it refers to it as its controller or, where it is to outlive it and
// refers to none, is marked.
func keptBy(object metav1.Object, sync types.UID) bool {
	if metav1.GetControllerOf(object) != nil {
		return isControlledBy(object, sync)
	}
	return strings.HasPrefix(object.GetAnnotations()[openimv1.AnnotationKeptFor], string(sync)+"/")
}

// keptForGroup returns the group that an object of the GroupSync is kept for. It does not go by the label alone, which is there
// to select by, and which anybody may change.
func keptForGroup(object metav1.Object, sync *openimv1.GroupSync) string {
	if group, marked := strings.CutPrefix(object.GetAnnotations()[openimv1.AnnotationKeptFor], string(sync.UID)+"/"); marked {
		return group
	}
	group, _ := strings.CutPrefix(object.GetName(), sync.Name+".")
	return group
}

func (d desired) target() string { return "ConfigMap/" + d.key.Name }

// identity tells a write from one for another group.
func (d desired) identity() string { return d.group + " " + d.hash }

// keptForAnother returns the group that an object of the GroupSync is kept for if it is another than this one.
func (d desired) keptForAnother(object metav1.Object) string {
	sync := &openimv1.GroupSync{ObjectMeta: metav1.ObjectMeta{Name: d.owner.Name, UID: d.owner.UID}}
	if group := keptForGroup(object, sync); group != d.group {
		return group
	}
	return ""
}

// conflictError says that an object that is not ours, or another group's, has the name of a target.
type conflictError struct{ target, group string }

func (e *conflictError) Error() string {
	if e.group != "" {
		return fmt.Sprintf("%s is kept for the GroupInfo %s: two groups get the same name; make spec.target.configMap.name differ", e.target, e.group)
	}
	return fmt.Sprintf("%s exists and does not belong to this GroupSync; delete or rename it, or use a GroupSync of another name", e.target)
}

var _ target = (*configMaps)(nil)

// step implements target.
func (c *configMaps) step(ctx context.Context, t *task) outcome {
	if t.fault != nil {
		entry := t.newEntry()
		entry.State, entry.Message = openimv1.SyncStateGaveUp, t.fault.Error()
		t.finish(&entry)
		return outcome{entry: &entry}
	}
	due, err := t.rules.Due(t.group, "")
	if err != nil {
		return outcome{entry: t.recorded, err: err}
	}
	if t.ignored(due.Hash) {
		entry := t.newEntry()
		entry.State, entry.ContentHash = openimv1.SyncStateIgnored, due.Hash
		t.finish(&entry)
		return outcome{entry: &entry}
	}
	want, err := desire(t)
	if _, forUser := errors.AsType[*userError](err); forUser {
		entry := t.newEntry()
		entry.State, entry.Message = openimv1.SyncStateGaveUp, err.Error()
		t.finish(&entry)
		return outcome{entry: &entry}
	} else if err != nil {
		return outcome{entry: t.recorded, err: err}
	}
	return conclude(t, want, c.ensure(ctx, want, t.recorded != nil && t.recorded.State == openimv1.SyncStateConflict))
}

// conclude returns the outcome of an attempt to bring the ConfigMap in step that ended with err.
func conclude(t *task, want desired, err error) outcome {
	entry := t.newEntry()
	entry.Target = want.target()
	o := outcome{entry: &entry}
	if request := t.request(); request != nil {
		entry.RequestedAt = request
	}
	switch conflict, isConflict := errors.AsType[*conflictError](err); {
	case isConflict:
		entry.State, entry.Message = openimv1.SyncStateConflict, conflict.Error()
		o.after = conflictRecheck
	case err != nil:
		entry.State = openimv1.SyncStateFailed
		entry.Message = fmt.Sprintf("%s could not be written (%s); the operator tries again", want.target(), apierr.Reason(err))
		o.err = err
	default:
		// Otherwise the target holds what it held before.
		entry.State, entry.ContentHash = openimv1.SyncStateSynced, want.hash
	}
	t.finish(&entry)
	return o
}

// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch;create;patch;delete

// ensure makes the ConfigMap what it should be, with at most one write, and none if it is so already. expectForeign says
// that a foreign object was in the way last time, so that a look comes before an attempt to create.
func (c *configMaps) ensure(ctx context.Context, want desired, expectForeign bool) error {
	known, err := c.cached(ctx, want.key)
	if err != nil {
		return err
	}
	resourceVersion := ""
	if known != nil {
		resourceVersion = known.ResourceVersion
	}
	if own, unseen := c.writes.Unseen(want.key, resourceVersion); unseen {
		switch own.ContentHash {
		case want.identity():
			return nil
		default:
			if group, _, _ := strings.Cut(own.ContentHash, " "); group != want.group {
				return &conflictError{target: want.target(), group: group}
			}
		}
		return c.apply(ctx, want, own.UID)
	}
	if known == nil {
		if !expectForeign {
			err := c.create(ctx, want)
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		// Only now is it sure that the name is taken, and not by something that the cache should show.
		if known, err = c.look(ctx, want.key); err != nil {
			return err
		} else if known == nil {
			return c.create(ctx, want)
		}
	}
	switch {
	case !keptBy(known, want.owner.UID):
		return &conflictError{target: want.target()}
	case want.keptForAnother(known) != "":
		return &conflictError{target: want.target(), group: want.keptForAnother(known)}
	case inStep(known, want):
		return nil
	}
	if surplus := surplusKeys(known, want); len(surplus) > 0 || isControlledBy(known, want.owner.UID) == want.retain || len(surplusMetadata(known, want)) > 0 {
		return c.patch(ctx, want, known, surplus)
	}
	return c.apply(ctx, want, known.UID)
}

// create writes the ConfigMap for the first time. It must be a Create: server-side apply would take over an object that
// somebody else has just made.
func (c *configMaps) create(ctx context.Context, want desired) error {
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       want.key.Namespace,
			Name:            want.key.Name,
			Labels:          want.labels,
			Annotations:     want.annotations,
			OwnerReferences: want.owners(nil),
		},
		Data: want.data,
	}
	if err := c.client.Create(ctx, object, client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("create %s: %w", want.target(), apierr.WithoutValues(err))
	}
	c.writes.Record(want.key, ownwrites.Write{UID: object.UID, ResourceVersion: object.ResourceVersion, ContentHash: want.identity()})
	return nil
}

// apply writes over the ConfigMap with this UID, and over no other that may have come in its place.
func (c *configMaps) apply(ctx context.Context, want desired, uid types.UID) error {
	configuration := corev1ac.ConfigMap(want.key.Name, want.key.Namespace).
		WithUID(uid).
		WithLabels(want.labels).
		WithAnnotations(want.annotations).
		WithData(want.data)
	if !want.retain {
		configuration.WithOwnerReferences(metav1ac.OwnerReference().
			WithAPIVersion(want.owner.APIVersion).
			WithKind(want.owner.Kind).
			WithName(want.owner.Name).
			WithUID(want.owner.UID).
			WithController(true))
	}
	if err := c.client.Apply(ctx, configuration, client.FieldOwner(FieldManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s: %w", want.target(), apierr.WithoutValues(err))
	}
	c.writes.Record(want.key, ownwrites.Write{UID: uid, ResourceVersion: *configuration.ResourceVersion, ContentHash: want.identity()})
	return nil
}

// owners returns the owner references that the ConfigMap should have, where it has some.
func (d desired) owners(existing []metav1.OwnerReference) []metav1.OwnerReference {
	owners := slices.DeleteFunc(slices.Clone(existing), func(owner metav1.OwnerReference) bool { return owner.UID == d.owner.UID })
	if d.retain {
		return owners
	}
	return append(owners, d.owner)
}

// patch writes over the ConfigMap and removes what is too much as well. Apply removes only what it applied before, not what
// somebody else added, nor what was there since the first Create.
func (c *configMaps) patch(ctx context.Context, want desired, known *metav1.PartialObjectMetadata, surplus []dataKey) error {
	labels, annotations := map[string]any{}, map[string]any{}
	for key, value := range want.labels {
		labels[key] = value
	}
	for key, value := range want.annotations {
		annotations[key] = value
	}
	for _, key := range surplusMetadata(known, want) {
		if key.label {
			labels[key.name] = nil
		} else {
			annotations[key.name] = nil
		}
	}
	body := map[string]any{
		"metadata": map[string]any{
			"uid":             known.UID,
			"resourceVersion": known.ResourceVersion,
			"labels":          labels,
			"annotations":     annotations,
			"ownerReferences": want.owners(known.OwnerReferences),
		},
	}
	data := map[string]any{}
	for key, value := range want.data {
		data[key] = value
	}
	body["data"] = data
	binaryData := map[string]any{}
	for _, key := range surplus {
		if key.binary {
			binaryData[key.name] = nil
		} else {
			data[key.name] = nil
		}
	}
	if len(binaryData) > 0 {
		body["binaryData"] = binaryData
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the patch of %s: %w", want.target(), err)
	}
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: want.key.Namespace, Name: want.key.Name}}
	if err := c.client.Patch(ctx, object, client.RawPatch(types.MergePatchType, encoded), client.FieldOwner(FieldManager)); err != nil {
		return fmt.Errorf("patch %s: %w", want.target(), apierr.WithoutValues(err))
	}
	c.writes.Record(want.key, ownwrites.Write{UID: object.UID, ResourceVersion: object.ResourceVersion, ContentHash: want.identity()})
	return nil
}

// remove implements target.
func (c *configMaps) remove(ctx context.Context, group client.ObjectKey, syncs []openimv1.GroupSync) error {
	return c.prune(ctx, group, syncs, func(*openimv1.GroupSync, string) bool { return false })
}

// prune deletes those of the group's ConfigMaps that their GroupSync does not want and keep does not select. What a GroupSync
// retains stays.
func (c *configMaps) prune(ctx context.Context, group client.ObjectKey, syncs []openimv1.GroupSync, keep func(sync *openimv1.GroupSync, name string) bool) error {
	var kept metav1.PartialObjectMetadataList
	kept.SetGroupVersionKind(configMapKind.GroupVersion().WithKind("ConfigMapList"))
	if err := c.client.List(ctx, &kept, client.InNamespace(group.Namespace), client.MatchingFields{groupIndex: group.Name}); err != nil {
		return fmt.Errorf("list the group's ConfigMaps: %w", err)
	}
	for i := range kept.Items {
		object := &kept.Items[i]
		owner := slices.IndexFunc(syncs, func(sync openimv1.GroupSync) bool { return keptBy(object, sync.UID) })
		// Without an owner it is somebody else's by now; with one that is gone the garbage collector takes it. One that is kept
		// for another group had its label changed.
		if owner < 0 || keptForGroup(object, &syncs[owner]) != group.Name || retains(&syncs[owner]) || keep(&syncs[owner], object.Name) || !object.DeletionTimestamp.IsZero() {
			continue
		}
		key := client.ObjectKeyFromObject(object)
		precondition := client.Preconditions{UID: &object.UID}
		if err := c.client.Delete(ctx, object, precondition); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete ConfigMap/%s: %w", key.Name, apierr.WithoutValues(err))
		}
		c.writes.Forget(key)
	}
	return nil
}

// cached returns the metadata of the ConfigMap as the cache shows it, or nil. Objects without our label are not in it.
func (c *configMaps) cached(ctx context.Context, key client.ObjectKey) (*metav1.PartialObjectMetadata, error) {
	return metadataOf(ctx, c.client, key)
}

// look returns the metadata of the ConfigMap as the API server has it, or nil.
func (c *configMaps) look(ctx context.Context, key client.ObjectKey) (*metav1.PartialObjectMetadata, error) {
	return metadataOf(ctx, c.live, key)
}

func metadataOf(ctx context.Context, reader client.Reader, key client.ObjectKey) (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(configMapKind)
	if err := reader.Get(ctx, key, object); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read ConfigMap/%s: %w", key.Name, err)
	}
	return object, nil
}

func isControlledBy(object metav1.Object, owner types.UID) bool {
	controller := metav1.GetControllerOf(object)
	return controller != nil && controller.UID == owner
}
