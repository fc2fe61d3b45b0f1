package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConfigMapFormat says how a group is laid out in a ConfigMap.
//
// +kubebuilder:validation:Enum=Keys;JSON
type ConfigMapFormat string

const (
	// ConfigMapFormatKeys writes one key per field that OpenIM told: groupID, groupName, needVerification and so on.
	ConfigMapFormatKeys ConfigMapFormat = "Keys"

	// ConfigMapFormatJSON writes the single key group.json, which holds the fields as one JSON object.
	ConfigMapFormatJSON ConfigMapFormat = "JSON"
)

// ConfigMapTarget keeps one ConfigMap per group, named <groupsync>.<groupinfo>, in the GroupSync's namespace.
type ConfigMapTarget struct {
	// format is Keys (one key per field) or JSON (one key, group.json).
	//
	// +optional
	// +default="Keys"
	Format ConfigMapFormat `json:"format,omitempty"`
}

// SyncTarget says where the groups go. Exactly one member is set.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type SyncTarget struct {
	// configMap keeps one ConfigMap per group.
	//
	// +optional
	ConfigMap *ConfigMapTarget `json:"configMap,omitempty"`
}

// GroupSyncSpec says which groups to keep in step, and with what.
type GroupSyncSpec struct {
	// selector picks GroupInfos of this namespace by their labels. Absent or empty, it picks all of them.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`

	// suspend stops the GroupSync: its targets stay as they are until it is set to false again.
	//
	// +optional
	Suspend *bool `json:"suspend,omitempty"`

	// target says where the groups go. Its kind cannot be changed later: create another GroupSync instead.
	//
	// +required
	Target SyncTarget `json:"target,omitempty,omitzero"`
}

// GroupSyncStatus sums up how far the GroupSync has come with its groups.
type GroupSyncStatus struct {
	// observedGeneration is the metadata.generation that this status describes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions of the GroupSync: Ready (every selected group is in step), and, only when true, Reconciling and Stalled
	// (as kstatus defines them).
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// matched is the number of GroupInfos that the selector picks.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Matched *int32 `json:"matched,omitempty"`

	// synced is the number of matched GroupInfos whose target holds their current content.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Synced *int32 `json:"synced,omitempty"`

	// failing is the number of matched GroupInfos whose target could not be brought in step. Each names its reason in its
	// own status.syncs.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failing *int32 `json:"failing,omitempty"`
}

// GroupSync keeps something else in step with the GroupInfos of its namespace. Deleting it removes what it made.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=groupsyncs,singular=groupsync,shortName=gsync,categories=openim
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every selected group is in step"
// +kubebuilder:printcolumn:name="Matched",type=integer,JSONPath=`.status.matched`,description="GroupInfos selected"
// +kubebuilder:printcolumn:name="Synced",type=integer,JSONPath=`.status.synced`,description="GroupInfos in step"
// +kubebuilder:printcolumn:name="Failing",type=integer,JSONPath=`.status.failing`,description="GroupInfos that could not be brought in step"
// +kubebuilder:printcolumn:name="Suspended",type=boolean,priority=1,JSONPath=`.spec.suspend`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 63",message="a GroupSync's name is a DNS label of at most 63 characters: it is part of its targets' names and labels"
type GroupSync struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty,omitzero"`

	// spec says which groups to keep in step, and with what.
	//
	// +required
	Spec GroupSyncSpec `json:"spec,omitempty,omitzero"`

	// status sums up how far the GroupSync has come.
	//
	// +optional
	Status GroupSyncStatus `json:"status,omitempty,omitzero"`
}

// GroupSyncList is a list of GroupSyncs.
//
// +kubebuilder:object:root=true
type GroupSyncList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the GroupSyncs.
	Items []GroupSync `json:"items"`
}
