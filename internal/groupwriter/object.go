package groupwriter

import (
	"maps"
	"strconv"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
	"github.com/groupinfo-operator/groupinfo-operator/internal/merge"
	"github.com/groupinfo-operator/groupinfo-operator/internal/naming"
)

// stateOf returns what the object holds. Stamps that cannot be read count as none: they are an annotation, which any
// editor of the object can spoil, and the next change to each field mends it.
func stateOf(object *openimv1.GroupInfo) (state merge.State, stampsErr error) {
	stamps, err := merge.ParseStamps(object.Annotations[openimv1.AnnotationStamps])
	return merge.State{Spec: object.Spec, Stamps: stamps, History: object.History}, err
}

// setState makes the object hold the state.
func setState(object *openimv1.GroupInfo, state merge.State) {
	object.Spec = state.Spec
	object.History = state.History
	object.Annotations = maps.Clone(object.Annotations)
	if object.Annotations == nil {
		object.Annotations = map[string]string{}
	}
	object.Annotations[openimv1.AnnotationStamps] = state.Stamps.String()
	object.Labels = maps.Clone(object.Labels)
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	maps.Copy(object.Labels, labels(state.Spec))
}

// labels returns the labels that the spec implies.
func labels(spec openimv1.GroupInfoSpec) map[string]string {
	implied := map[string]string{openimv1.LabelServer: spec.ServerName}
	if value, ok := naming.LabelValue(spec.GroupID); ok {
		implied[openimv1.LabelGroupID] = value
	}
	if spec.GroupStatus != nil {
		implied[openimv1.LabelGroupStatus] = labelNumber(*spec.GroupStatus)
	}
	if spec.GroupType != nil {
		implied[openimv1.LabelGroupType] = labelNumber(*spec.GroupType)
	}
	return implied
}

// labelNumber writes a wire integer as a label value, which may not begin with a sign.
func labelNumber(value int32) string {
	if value < 0 {
		return "negative"
	}
	return strconv.FormatInt(int64(value), 10)
}
