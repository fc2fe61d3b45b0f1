package groupinfo

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/rules"
)

// The records of who wrote what, as an API server keeps them.
const (
	metadataFields = `"f:metadata":{"f:annotations":{".":{},"f:openim.io/content-hash":{}},"f:labels":{".":{},"f:openim.io/group-info":{},"f:openim.io/group-sync":{},"f:openim.io/server":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"sync-uid\"}":{}}}`
	createdFields  = `{"f:data":{".":{},"f:groupID":{},"f:groupName":{},"f:serverName":{}},` + metadataFields + `}`
	appliedFields  = `{"f:data":{"f:groupID":{},"f:groupName":{},"f:serverName":{}},` + metadataFields + `}`
)

func wrote(manager string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: operation, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
}

func created(fields string) metav1.ManagedFieldsEntry {
	return wrote(FieldManager, metav1.ManagedFieldsOperationUpdate, fields)
}

func applied(fields string) metav1.ManagedFieldsEntry {
	return wrote(FieldManager, metav1.ManagedFieldsOperationApply, fields)
}

func edited(fields string) metav1.ManagedFieldsEntry {
	return wrote("kubectl-edit", metav1.ManagedFieldsOperationUpdate, fields)
}

func TestDrift(t *testing.T) {
	want := desired{
		labels:      map[string]string{openimv1.LabelGroupSync: "mirror", openimv1.LabelGroupInfo: "g1", openimv1.LabelServer: "demo"},
		annotations: map[string]string{openimv1.AnnotationContentHash: "hash"},
		owner:       metav1.OwnerReference{UID: "sync-uid"},
		data:        map[string]string{"groupID": "g1", "groupName": "A", "serverName": "demo"},
	}
	for name, tc := range map[string]struct {
		fields  []metav1.ManagedFieldsEntry
		change  func(*metav1.PartialObjectMetadata)
		inStep  bool
		surplus []dataKey
	}{
		"as it was created": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields)}, inStep: true,
		},
		"created, then applied with another name": {
			fields: []metav1.ManagedFieldsEntry{
				applied(appliedFields),
				created(`{"f:data":{".":{},"f:groupID":{},"f:serverName":{}},` + metadataFields + `}`),
			},
			inStep: true,
		},
		"applied over somebody's edit": {
			fields: []metav1.ManagedFieldsEntry{applied(appliedFields), edited(`{"f:data":{}}`)}, inStep: true,
		},
		"somebody changed a key": {
			fields: []metav1.ManagedFieldsEntry{
				created(`{"f:data":{".":{},"f:groupID":{},"f:serverName":{}},` + metadataFields + `}`),
				edited(`{"f:data":{"f:groupName":{}}}`),
			},
		},
		"somebody changed a key back: the value is ours, the record is not": {
			fields: []metav1.ManagedFieldsEntry{
				applied(`{"f:data":{"f:groupID":{},"f:serverName":{}},` + metadataFields + `}`),
				edited(`{"f:data":{"f:groupName":{}}}`),
			},
		},
		"somebody wrote the value that is there": {
			fields: []metav1.ManagedFieldsEntry{
				applied(appliedFields),
				wrote("argocd", metav1.ManagedFieldsOperationApply, `{"f:data":{"f:groupName":{}}}`),
			},
			inStep: true,
		},
		"somebody added a key": {
			fields:  []metav1.ManagedFieldsEntry{created(createdFields), edited(`{"f:data":{"f:extra":{}}}`)},
			surplus: []dataKey{{name: "extra"}},
		},
		"somebody removed a key": {
			fields: []metav1.ManagedFieldsEntry{created(`{"f:data":{".":{},"f:groupID":{},"f:serverName":{}},` + metadataFields + `}`)},
		},
		"somebody removed all data": {
			fields: []metav1.ManagedFieldsEntry{created(`{` + metadataFields + `}`)},
		},
		"somebody replaced a key by another": {
			fields: []metav1.ManagedFieldsEntry{
				created(`{"f:data":{".":{},"f:groupID":{},"f:serverName":{}},` + metadataFields + `}`),
				edited(`{"f:data":{"f:extra":{}}}`),
			},
			surplus: []dataKey{{name: "extra"}},
		},
		"somebody added binary data": {
			fields:  []metav1.ManagedFieldsEntry{created(createdFields), edited(`{"f:binaryData":{".":{},"f:extra":{}}}`)},
			surplus: []dataKey{{name: "extra", binary: true}},
		},
		"somebody moved a key to binary data": {
			fields: []metav1.ManagedFieldsEntry{
				created(`{"f:data":{".":{},"f:groupID":{},"f:serverName":{}},` + metadataFields + `}`),
				edited(`{"f:binaryData":{".":{},"f:groupName":{}}}`),
			},
			surplus: []dataKey{{name: "groupName", binary: true}},
		},
		"a key of ours that is not wanted any more": {
			fields: []metav1.ManagedFieldsEntry{
				created(`{"f:data":{".":{},"f:ex":{},"f:groupID":{},"f:groupName":{},"f:serverName":{}},` + metadataFields + `}`),
			},
			surplus: []dataKey{{name: "ex"}},
		},
		"records that cannot be read vouch for nothing": {
			fields: []metav1.ManagedFieldsEntry{created(`{"f:data":["f:groupID","f:groupName","f:serverName"]}`)},
		},
		"records without fields vouch for nothing": {
			fields: []metav1.ManagedFieldsEntry{{Manager: FieldManager, Operation: metav1.ManagedFieldsOperationUpdate}},
		},
		"no records": {},
		"users' own labels and annotations": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields), edited(`{"f:metadata":{"f:labels":{"f:team":{}}}}`)},
			change: func(o *metav1.PartialObjectMetadata) {
				o.Labels["team"], o.Annotations["note"] = "blue", "mine"
			},
			inStep: true,
		},
		"a label of ours changed": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields)},
			change: func(o *metav1.PartialObjectMetadata) { o.Labels[openimv1.LabelServer] = "other" },
		},
		"a label of ours is gone": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields)},
			change: func(o *metav1.PartialObjectMetadata) { delete(o.Labels, openimv1.LabelServer) },
		},
		"other content": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields)},
			change: func(o *metav1.PartialObjectMetadata) { o.Annotations[openimv1.AnnotationContentHash] = "older" },
		},
		"a label that we set once, and do not want any more": {
			fields: []metav1.ManagedFieldsEntry{applied(appliedFields), created(`{"f:metadata":{"f:labels":{"f:team":{}}}}`)},
			change: func(o *metav1.PartialObjectMetadata) { o.Labels["team"] = "blue" },
		},
		"a label that we set once, and that is gone already": {
			fields: []metav1.ManagedFieldsEntry{applied(appliedFields), created(`{"f:metadata":{"f:labels":{"f:team":{}}}}`)},
			inStep: true,
		},
		"no owner": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields)},
			change: func(o *metav1.PartialObjectMetadata) { o.OwnerReferences = nil },
		},
		"no annotations": {
			fields: []metav1.ManagedFieldsEntry{created(createdFields)},
			change: func(o *metav1.PartialObjectMetadata) { o.Annotations = nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Labels:        map[string]string{openimv1.LabelGroupSync: "mirror", openimv1.LabelGroupInfo: "g1", openimv1.LabelServer: "demo"},
				Annotations:   map[string]string{openimv1.AnnotationContentHash: "hash"},
				ManagedFields: tc.fields,

				OwnerReferences: []metav1.OwnerReference{{UID: "sync-uid", Controller: new(true)}},
			}}
			if tc.change != nil {
				tc.change(object)
			}
			if got := inStep(object, want); got != tc.inStep {
				t.Errorf("in step is %v, want %v", got, tc.inStep)
			}
			byName := cmpopts.SortSlices(func(a, b dataKey) bool { return a.name < b.name })
			if diff := cmp.Diff(tc.surplus, surplusKeys(object, want), byName, cmp.AllowUnexported(dataKey{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("surplus: (-want +got)\n%s", diff)
			}
		})
	}
}

func TestWriters(t *testing.T) {
	object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{
		applied(`{"f:data":{"f:a":{},"f:f:b":{}}}`),
		created(`{"f:data":{".":{},"f:a":{}}}`),
		edited(`{"f:binaryData":{"f:a":{}},"f:immutable":{}}`),
	}}}
	want := map[dataKey][]string{
		{name: "a"}:               {FieldManager, FieldManager},
		{name: "f:b"}:             {FieldManager},
		{name: "a", binary: true}: {"kubectl-edit"},
	}
	if diff := cmp.Diff(want, writers(object), cmp.AllowUnexported(dataKey{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A ConfigMap anybody may edit has records that anybody may have written.
func FuzzWriters(f *testing.F) {
	f.Add(createdFields)
	f.Add(`{"f:data":null}`)
	f.Add(`{"f:data":{".":{}}}`)
	f.Fuzz(func(t *testing.T, fields string) {
		object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{edited(fields)}}}
		for key, by := range writers(object) {
			if !slices.Equal(by, []string{"kubectl-edit"}) {
				t.Errorf("%v was written by %v", key, by)
			}
		}
		if inStep(object, desired{data: map[string]string{"groupID": "g1"}}) {
			t.Error("somebody else's record vouches for our content")
		}
		for _, key := range surplusKeys(object, desired{data: map[string]string{"groupID": "g1"}}) {
			if !key.binary && key.name == "groupID" {
				t.Error("a key that is wanted is surplus")
			}
		}
	})
}

func TestDesire(t *testing.T) {
	cache, err := rules.NewCache(CheckTarget)
	if err != nil {
		t.Fatal(err)
	}
	generation := int64(0)
	newTask := func(target openimv1.ConfigMapTarget) *task {
		generation++
		sync := &openimv1.GroupSync{
			ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "mirror", UID: "sync-uid", Generation: generation},
			Spec:       openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &target}},
		}
		if r := cache.Of(sync); !r.Valid() {
			t.Fatal(r.Faults)
		}
		return &task{sync: sync, rules: cache.Of(sync), group: &openimv1.GroupInfo{
			ObjectMeta: metav1.ObjectMeta{Namespace: "chat", Name: "g1"},
			Spec:       openimv1.GroupInfoSpec{ServerName: "demo", GroupID: "g1", GroupName: new("A"), Ex: new(strings.Repeat("x", 128<<10))},
		}}
	}
	mustDesire := func(task *task) desired {
		t.Helper()
		got, err := desire(task)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	task := newTask(openimv1.ConfigMapTarget{})
	got := mustDesire(task)
	if diff := cmp.Diff("ConfigMap/mirror.g1", got.target()); diff != "" {
		t.Error(diff)
	}
	if got.key.Namespace != "chat" || got.owner.UID != "sync-uid" || got.owner.BlockOwnerDeletion != nil || !*got.owner.Controller || got.retain {
		t.Errorf("key %s, owner %+v", got.key, got.owner)
	}
	if len(got.hash) != 64 || strings.Trim(got.hash, "0123456789abcdef") != "" {
		t.Errorf("hash %q", got.hash)
	}

	// History and status are not content.
	task.group.History = []openimv1.HistoryEntry{{Stamp: "1"}}
	task.group.Status.ObservedGeneration = 7
	if diff := cmp.Diff(got, mustDesire(task), cmp.AllowUnexported(desired{})); diff != "" {
		t.Errorf("(-before +after)\n%s", diff)
	}

	byExpression := mustDesire(newTask(openimv1.ConfigMapTarget{
		Name: "'group.' + group.groupID", Data: map[string]string{"title": "group.groupName + '!'", "empty": "group.notification"},
		DeletionPolicy: openimv1.DeletionRetain,
	}))
	if diff := cmp.Diff(map[string]string{"title": "A!", "empty": ""}, byExpression.data); diff != "" || byExpression.key.Name != "group.g1" || !byExpression.retain {
		t.Errorf("%s: %s", byExpression.key, diff)
	}

	for name, tc := range map[string]struct {
		target openimv1.ConfigMapTarget
		want   string
	}{
		"no name": {
			openimv1.ConfigMapTarget{Name: "group.groupName"},
			"spec.target.configMap.name gives no valid name for this group: lower-case letters, digits, - and ., at most 253 characters",
		},
		"more than a ConfigMap holds": {
			openimv1.ConfigMapTarget{Data: map[string]string{"a": "group.ex + group.ex + group.ex + group.ex", "b": "group.ex + group.ex + group.ex + group.ex", "c": "'x'"}},
			"the content takes 1048580 bytes and a ConfigMap holds 1048576; choose less of the group with spec.fields or data",
		},
		"what cannot be evaluated": {
			openimv1.ConfigMapTarget{Data: map[string]string{"b": "string(int(group.groupName))"}},
			`data["b"] cannot be evaluated for this group: guard against missing keys with has() or in, and convert only what is a number`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := desire(newTask(tc.target))
			if _, forUser := errors.AsType[*userError](err); !forUser || err.Error() != tc.want {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

func TestConfigMapFaults(t *testing.T) {
	got := CheckTarget(&openimv1.GroupSyncSpec{Target: openimv1.SyncTarget{ConfigMap: &openimv1.ConfigMapTarget{
		Data:        map[string]string{"a/b": "'x'", "ok": "'x'"},
		Labels:      map[string]string{"team": "not a value!", "example.com/ok": "yes"},
		Annotations: map[string]string{"not a key": "x", "example.com/Ok": "any thing!"},
	}}})
	want := []string{`spec.target.configMap.data: "a/b" cannot be a key`, `spec.target.configMap.labels["team"]`, `spec.target.configMap.annotations["not a key"]`}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i].Message, want[i]) || got[i].Reason != openimv1.ReasonInvalidTarget {
			t.Errorf("%+v, want %s", got[i], want[i])
		}
	}
}
