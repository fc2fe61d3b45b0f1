package groupinfo

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dataKey is a key in a ConfigMap's data or binaryData.
type dataKey struct {
	name   string
	binary bool
}

// writers returns, for each key of a ConfigMap's data, who wrote it. The API server keeps this record for every object: a
// key that somebody else changed is theirs from then on, or theirs too, and one that was removed is nobody's.
func writers(object *metav1.PartialObjectMetadata) map[dataKey][]string {
	result := map[dataKey][]string{}
	for _, entry := range object.ManagedFields {
		if entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Data       map[string]json.RawMessage `json:"f:data"`
			BinaryData map[string]json.RawMessage `json:"f:binaryData"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			// A record that cannot be read vouches for nothing: the keys look as if nobody had written them.
			continue
		}
		for field := range fields.Data {
			if name, isKey := strings.CutPrefix(field, "f:"); isKey {
				key := dataKey{name: name}
				result[key] = append(result[key], entry.Manager)
			}
		}
		for field := range fields.BinaryData {
			if name, isKey := strings.CutPrefix(field, "f:"); isKey {
				key := dataKey{name: name, binary: true}
				result[key] = append(result[key], entry.Manager)
			}
		}
	}
	return result
}

// inStep reports whether the ConfigMap is as it should be, as far as its metadata tells: our content by its hash, every key
// written by us and no other key, and labels as they should be. Who writes the value that a key has already is a writer of
// it as well, so others beside us have changed nothing.
func inStep(object *metav1.PartialObjectMetadata, want desired) bool {
	if !contains(object.Labels, want.labels) || !contains(object.Annotations, want.annotations) || len(surplusMetadata(object, want)) > 0 {
		return false
	}
	if isControlledBy(object, want.owner.UID) == want.retain {
		return false
	}
	written := writers(object)
	if len(written) != len(want.data) {
		return false
	}
	for name := range want.data {
		if !slices.Contains(written[dataKey{name: name}], FieldManager) {
			return false
		}
	}
	return true
}

// surplusKeys returns the keys that the ConfigMap has and should not have.
func surplusKeys(object *metav1.PartialObjectMetadata, want desired) []dataKey {
	var surplus []dataKey
	for key := range writers(object) {
		if _, wanted := want.data[key.name]; key.binary || !wanted {
			surplus = append(surplus, key)
		}
	}
	return surplus
}

// metadataKey is a label or an annotation.
type metadataKey struct {
	name  string
	label bool
}

// surplusMetadata returns the labels and annotations that we wrote once, and that are not wanted any more. Those of others
// stay.
func surplusMetadata(object *metav1.PartialObjectMetadata, want desired) []metadataKey {
	var surplus []metadataKey
	for _, entry := range object.ManagedFields {
		if entry.FieldsV1 == nil || entry.Manager != FieldManager {
			continue
		}
		var fields struct {
			Metadata struct {
				Labels      map[string]json.RawMessage `json:"f:labels"`
				Annotations map[string]json.RawMessage `json:"f:annotations"`
			} `json:"f:metadata"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			continue
		}
		collect := func(written map[string]json.RawMessage, there, wanted map[string]string, label bool) {
			for field := range written {
				name, isKey := strings.CutPrefix(field, "f:")
				_, isThere := there[name]
				if _, isWanted := wanted[name]; isKey && isThere && !isWanted {
					surplus = append(surplus, metadataKey{name: name, label: label})
				}
			}
		}
		collect(fields.Metadata.Labels, object.Labels, want.labels, true)
		collect(fields.Metadata.Annotations, object.Annotations, want.annotations, false)
	}
	return surplus
}

// contains reports whether all has every pair of some.
func contains(all, some map[string]string) bool {
	return maps.Equal(some, intersection(all, some))
}

func intersection(all, some map[string]string) map[string]string {
	result := map[string]string{}
	for key := range some {
		if value, found := all[key]; found {
			result[key] = value
		}
	}
	return result
}
